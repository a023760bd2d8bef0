"""What the search for secrets is made from: costs of ordinary text, and the rules of a secret detector.

The search itself is not here but in the product.
"""
