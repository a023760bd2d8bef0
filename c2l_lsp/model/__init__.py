"""The numerical code: tensors in, tensors out.

Four packages build on each other, and imports go one way, from left to right never back: `runtime` (the forward pass on
given weights) ← `lm` (the frozen base language model) ← `adapter` (what changes its predictions: LoRA, final map, kNN
memory) ← `hypernet` (from a repository's text to an adapter). Code here opens model files and checkpoints but no
repository, knows no git and no LSP, and starts no Python threads; long work is a generator that yields between steps.
"""
