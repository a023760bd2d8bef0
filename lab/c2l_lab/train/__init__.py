"""Training: tokenizers, base models, hypernetworks and priors.

Building the text belongs in `corpus`; scoring finished models belongs in `benchmarks`.
"""
