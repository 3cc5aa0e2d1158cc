"""The one training loop: sources of batches, steps, rails, checkpoints."""
