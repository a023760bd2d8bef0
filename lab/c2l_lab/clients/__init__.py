"""Clients of the two processes: `lsp` for the language server, as an editor, and `engine` for the engine alone.

They know the protocols only. Requests that belong to a measurement or a demo are in `benchmarks` and `demo`.
"""
