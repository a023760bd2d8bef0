"""What benchmarks measure on: repositories at a commit, held-out files, places to complete.

No methods and no scores here. Text for training belongs in `corpus`.
"""
