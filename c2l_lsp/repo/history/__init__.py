"""Snapshots of a folder, the differences between them, and git history as data."""
