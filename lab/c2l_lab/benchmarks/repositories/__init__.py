"""What benchmarks measure on: repositories at a commit, held-out files, places to complete."""
