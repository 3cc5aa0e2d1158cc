"""From a YAML file to a checked recipe, and the registry of what it may name."""
