"""What is open in the editor: folders, documents, buffers for the engine, and the settings layers.

No request is answered here: that belongs in `completion`.
"""
