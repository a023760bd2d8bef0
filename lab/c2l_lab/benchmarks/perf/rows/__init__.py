"""The rows of `bench perf`, by subject."""
