"""`bench perf`: speed, as ratios to peers measured in the same run, each with a bar.

The rows belong in `rows`. The quality of completions is not measured here.
"""
