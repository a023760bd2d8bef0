"""Completion requests: from a position in a document to the items that an editor shows, and their acceptance.

The model's part of a completion is in `engine.completion`, in another process.
"""
