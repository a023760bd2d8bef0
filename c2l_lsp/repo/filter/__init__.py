"""The rules that decide which files of a folder may be read, and the only code that reads them.

Git's own files belong in `git`; snapshots and diffs belong in `history`.
"""
