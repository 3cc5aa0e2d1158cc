"""Commands that measure models and judges."""
