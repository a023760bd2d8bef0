"""Running git safely, and finding a folder's git directory. No file of the working tree is read here."""
