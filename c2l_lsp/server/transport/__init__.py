"""Bytes, messages and processes: the stdio stream, JSON-RPC, the editor contract, the engine process.

Nothing here knows documents or decides what is suggested.
"""
