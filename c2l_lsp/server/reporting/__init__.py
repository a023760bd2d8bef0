"""Output to the user: status, statistics and progress bars. Reports decisions that are made elsewhere."""
