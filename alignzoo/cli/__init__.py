"""The command line. Importing it costs next to nothing: commands import what they need."""

from __future__ import annotations

import os
import sys

from alignzoo.cli.commands import app
from alignzoo.errors import AlignzooError, RecipeError


def main() -> int:
    """Run the command line: 0 done, 1 failed, 2 bad recipe or usage, 130 interrupted."""
    # Bars of the libraries would tear ours apart, and mix with answers.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
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
