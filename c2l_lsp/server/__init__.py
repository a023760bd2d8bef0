"""The LSP edge: protocol, positions, documents, features, the client of the engine process. Never imports torch."""
