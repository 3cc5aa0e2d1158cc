"""Loading, checking and saving models, and their heads."""
