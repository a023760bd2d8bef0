"""Connections of the server: the stdio stream, JSON-RPC, the editor contract, the engine process.

Independent of documents and of how completions are computed.
"""
