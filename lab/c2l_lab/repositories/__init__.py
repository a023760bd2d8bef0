"""Repositories to measure and fit on: their files at a commit, held-out files, and spans to complete.

Methods and scores belong elsewhere, and text for training belongs in `corpus`.
"""
