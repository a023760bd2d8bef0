"""`bench adapt`: compares adaptation methods on held-out repositories.

The methods themselves belong in `methods`, the repositories in `repositories`.
"""
