"""From a position in a document to the items an editor shows, and what became of them.

The model's side of a completion is `engine.completion`, in another process.
"""
