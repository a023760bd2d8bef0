"""The rows of `bench perf`, one module a subject.

How a row is timed and judged belongs in `perf.measure`, not here.
"""
