"""Connections of the server: the stdio stream, JSON-RPC, the editor contract, the engine process.

Documents belong in `workspace`, completions in `completion`; neither is known here.
"""
