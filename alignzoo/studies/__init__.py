"""Studies: recipes over seeds, folded into tables, figures, and a verdict for every claim."""
