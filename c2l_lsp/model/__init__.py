"""The numerical code: tensors in, tensors out.

Four packages build on each other: `runtime` (the forward pass on given weights) ← `lm` (the frozen base language model)
← `adapter` (LoRA, final map and kNN memory, which change its predictions) ← `hypernet` (from a repository's text to an
adapter). A package imports only those to its left. Code here reads model files and checkpoints but no repository, uses
neither git nor LSP, and starts no Python threads; long work is a generator that yields between steps.
"""

import sys

sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
# transformers uses this package, if it is installed, to download and run code that a model's config.json or its kind of
# model names. With None, Python reports that it is not installed. This is set before any module imports transformers.
