"""`make demo`: the real server on a copy of a repository, driven by a language client.

Nothing is measured for a report here: that belongs in `benchmarks`.
"""
