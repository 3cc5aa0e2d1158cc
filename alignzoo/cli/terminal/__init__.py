"""What a person types and sees: names, progress, tables."""
