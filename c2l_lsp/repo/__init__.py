"""Files of a workspace folder and their changes: filter, snapshots, diffs, file watching, git history.

Imports go one way: git ← filter ← history, and git, filter ← watching. Nothing here imports torch or LSP types.
"""
