"""Tensors in, tensors out: the base LM, encoders, hypernetworks, LoRA, checkpoints. No git, no LSP, no threads."""
