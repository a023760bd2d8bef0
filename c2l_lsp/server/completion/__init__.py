"""From a position in a document to the items an editor shows, and what became of them.

Prompts, decoding and the model belong in `engine.completion`, in another process.
"""
