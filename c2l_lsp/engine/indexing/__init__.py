"""Indexes of a folder's text that need no forward pass of the model.

Here belongs what keeps such an index equal to the files: which chunks come and go, and when. The indexes themselves are
in `model.adapter`. Adapters and their generations belong in `adaptation`, files on disk in `storage`.
"""
