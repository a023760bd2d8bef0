"""`bench adapt`: what each way of adapting gives on held-out repositories.

The methods themselves belong in `methods`, the repositories in `repositories`.
"""
