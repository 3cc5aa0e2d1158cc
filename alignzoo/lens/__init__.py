"""Per-token signals of methods on given responses, as values, JSON and a page."""
