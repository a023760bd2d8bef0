"""Fits what ships with `memory`: the prior of a base model, and the mixture gate of its kNN memory.

The base model is not trained here.
"""
