"""The one filter: which files of a folder may be read at all, and the only code that opens one.

Reading git's own files belongs in `git`; comparing what was read belongs in `history`.
"""
