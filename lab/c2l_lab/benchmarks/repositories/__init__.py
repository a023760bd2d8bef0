"""The data of the benchmarks: repositories at a commit, held-out files, and spans to complete.

No methods and no scores here. Text for training belongs in `corpus`.
"""
