"""The command line. Importing it costs next to nothing: commands import what they need."""

from __future__ import annotations

import sys

from alignzoo.cli.commands import app
from alignzoo.errors import AlignzooError, RecipeError


def main() -> int:
    """Run the command line: 0 done, 1 failed, 2 bad recipe or usage, 130 interrupted."""
    try:
        app(prog_name="alignzoo")
    except AlignzooError as error:
        prefix = "" if isinstance(error, RecipeError) else "error: "
        print(f"{prefix}{error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a full disk, a folder without permission
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
