"""Hypernetworks, from a repository's text to an adapter: `memory` (ours), `static` and `evo` (Code2LoRA).

Training them belongs in the laboratory; choosing one for a folder belongs into `engine.adaptation.registry`.
"""
