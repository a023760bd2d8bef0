"""Adapters and how a forward pass applies them: LoRA pairs, the final map, the kNN memory, fine-tuning.

How an adapter is generated from a repository belongs in `hypernet`.
"""
