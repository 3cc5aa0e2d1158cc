"""How good a judge is, measured against people."""
