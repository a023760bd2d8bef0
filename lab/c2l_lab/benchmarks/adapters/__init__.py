"""`bench adapt`: what each way of adapting gives on held-out repositories."""
