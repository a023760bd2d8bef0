"""From repositories to weights: corpus, examples, objective, loop. Runs without pygls installed."""
