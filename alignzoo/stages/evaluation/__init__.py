"""The stage that measures models: by a rule, or by judges."""
