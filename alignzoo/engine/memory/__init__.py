"""How much memory a training stage takes, by doing it on tensors that have no data."""
