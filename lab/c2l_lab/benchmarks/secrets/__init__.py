"""`bench secrets`: what the search for secrets finds, of forms of secrets and of ordinary string literals.

The search itself is not here but in the product.
"""
