"""Snapshots of a folder, the differences between them, and git history as data.

Every file is opened through `filter`. Nothing here waits for changes: that belongs in `watching`.
"""
