"""`bench lines`, `bench scaling`, `bench vocabulary`: how well a base model completes lines."""
