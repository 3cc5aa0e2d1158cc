"""Curves of runs as figures for a paper: what was logged, over steps, FLOPs or KL, seeds folded."""
