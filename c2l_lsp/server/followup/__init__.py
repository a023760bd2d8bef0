"""Follow-up edits: places that need the edit that was just made elsewhere. No model is asked.

What the model suggests belongs in `completion`; which files may be read is decided in `c2l_lsp.repo.filter`.
"""
