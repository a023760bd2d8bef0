"""The state directory of a workspace folder: generations, the cache of chunk embeddings, the lock, the inventory.

Nothing here decides when something is written, or what it means: that is `adaptation`.
"""
