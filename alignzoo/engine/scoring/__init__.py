"""From hidden states to the per-token quantities that methods read."""
