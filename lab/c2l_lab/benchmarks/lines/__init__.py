"""`bench lines`, `bench scaling`, `bench vocabulary`: how well a base model completes lines.

Adapters are measured in `adapters`.
"""
