"""Commands for authors of plug-ins: new, check."""
