"""Training of `static` and `evo` on a frozen base model: data, objective, loop, evaluation.

The networks that are shipped belong in `c2l_lsp.model.hypernet`, not here.
"""
