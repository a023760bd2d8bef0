"""File events of the operating system, merged into batches of hints.

Finding the actual changes belongs in `history`: a scan compares contents.
"""
