"""Decides which part of a decoded text is shown: neighbouring lines, brackets and quotes, words, indentation, syntax.

Pure functions of texts and a place. No model, no folder and no setting is known here.
"""
