"""Commits typed again over LSP by a simulated author, who accepts what agrees with the text, and thresholds for it.

What a completion costs in time is measured in `perf`, never here.
"""
