"""Benchmarks: what is measured, on what, against which methods, and how it is reported.

Each folder is one benchmark or a part that several share. Tests of correctness belong in `tests`, not here.
"""
