"""File events of the operating system, gathered into batches. What changed is decided by content hashes, elsewhere."""
