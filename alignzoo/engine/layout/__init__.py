"""How the weights, gradients and optimiser state of a stage lie over the ranks."""
