"""What the server tells the user: status, statistics, progress bars. Decides nothing."""
