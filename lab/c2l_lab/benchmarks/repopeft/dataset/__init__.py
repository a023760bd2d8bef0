"""Building and reading the datasets of RepoPeftBench."""
