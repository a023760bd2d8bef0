"""Completion requests: from a position in a document to the items that an editor shows, and their acceptance.

Prompts, decoding and the model belong in `engine.completion`, in another process.
"""
