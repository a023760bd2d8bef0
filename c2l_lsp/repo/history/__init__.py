"""Snapshots of a folder, diffs between texts in git's format, and git history.

Files are read only through `filter`. Waiting for changes belongs in `watching`.
"""
