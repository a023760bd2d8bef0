"""Benchmarks: data, methods, baselines, metrics and reports.

Each folder is one benchmark or a part that several share. Tests of correctness belong in `tests`, not here.
"""
