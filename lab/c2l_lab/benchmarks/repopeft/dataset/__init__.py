"""Building and reading the datasets of RepoPeftBench.

Prediction and scoring belong in `repopeft`.
"""
