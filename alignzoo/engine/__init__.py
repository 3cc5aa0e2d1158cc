"""The engine: models, data, scoring, sampling and the one training loop."""
