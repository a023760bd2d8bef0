"""One completion, from the text around a cursor to candidate texts: prompt, decoding, drafts, stop rules, confidence.

Nothing here knows folders, adapter updates or the disk: the adapter is an argument. Never imports `adaptation`.
"""
