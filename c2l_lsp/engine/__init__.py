"""The engine process: its loop, the frames it exchanges with the server, and what its rooms share.

Completions belong in `completion`, a folder's adapter in `adaptation`, files on disk in `storage`. No LSP here.
"""
