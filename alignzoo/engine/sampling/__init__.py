"""The built-in rollout engine on transformers, and what engines in another process need."""
