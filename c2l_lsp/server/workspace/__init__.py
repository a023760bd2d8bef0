"""What the editor has open: folders, documents, unsaved buffers, layered settings. No requests are answered here."""
