"""`bench lines`, `bench scaling`, `bench vocabulary`: how well a base model completes lines.

No adapters here: they are measured in `adapters`.
"""
