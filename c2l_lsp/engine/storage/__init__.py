"""The state directory of a workspace folder: generations, the cache of chunk embeddings, the lock, the inventory.

When something is written, and what it means, belongs in `adaptation`.
"""
