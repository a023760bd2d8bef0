"""Hypernetworks, from a repository's text to an adapter: `memory` (ours), `static` and `evo` (Code2LoRA).

Start with `protocol`. `engine.adaptation.registry` chooses the hypernetwork of a folder; the laboratory trains them.
"""
