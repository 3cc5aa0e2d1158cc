"""The built-in rollout engine, on transformers' `generate`."""
