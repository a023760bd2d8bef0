"""Training the base language model: sizes, examples, objective, optimiser, loop.

Hypernetworks and priors belong in `hypernet` and `memory`; text belongs in `corpus`.
"""
