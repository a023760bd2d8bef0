"""Running git safely, and locating git's own files.

No file of the working tree is read here: that belongs in `filter`.
"""
