"""`make demo`: a copy of a repository, the real server, and a client that plays the editor.

Nothing is measured for a report here: that belongs in `benchmarks`.
"""
