"""`bench lines`, `bench ends`, `bench scaling`, `bench vocabulary`: base models without adapters.

Adapters are measured in `adapters`.
"""
