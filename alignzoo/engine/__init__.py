"""The training loop and everything that touches tensors."""
