"""Commands that only show: list, show, doctor, recipe-schema."""
