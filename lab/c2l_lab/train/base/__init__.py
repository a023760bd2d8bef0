"""Training the base language model: sizes, examples, objective, optimiser, loop."""
