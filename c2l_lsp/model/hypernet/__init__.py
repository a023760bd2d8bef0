"""Hypernetworks, from a repository's text to an adapter: `memory` (ours), `static` and `evo` (Code2LoRA).

Start with `protocol`. Training belongs in the laboratory, the choice for a folder in `engine.adaptation.registry`.
"""
