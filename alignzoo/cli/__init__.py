"""The command line. Importing it costs next to nothing: commands import what they need."""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings

from alignzoo.cli.commands import app
from alignzoo.cli.terminal.lazily import import_torch_on_first_use
from alignzoo.cli.terminal.stopping import stoppable
from alignzoo.contract.errors import AlignzooError, Interrupted, RecipeError
from alignzoo.engine.parallel.agreement import end, leave
from alignzoo.engine.parallel.exchange import everyone
from alignzoo.launch.worker import at_work, tell

INTERRUPTED = 130


def main() -> int:
    """Run the command line: 0 done, 1 failed, 2 bad recipe or usage, 130 or 143 interrupted."""
    _quiet_libraries()
    import_torch_on_first_use()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: nobody reads
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # texts of models may have no form in UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    code = _stoppable()
    if everyone().size > 1:
        end(code)
    return code


def _stoppable() -> int:
    with stoppable() as stopping:
        try:
            with at_work():
                return _main()
        except SystemExit as stop:  # how typer ends; it knows only SIGINT
            code = int(stop.code or 0)
            return 128 + stopping.number if code == INTERRUPTED and stopping.number else code
        except Interrupted as stop:  # on the way out, after an error was told
            return stop.code
        finally:
            leave()


def _main() -> int:
    try:
        app(prog_name="alignzoo")
    except AlignzooError as error:
        if os.environ.get("ALIGNZOO_TRACE") and error.__cause__:
            traceback.print_exception(error.__cause__)
        prefix = "" if isinstance(error, RecipeError) else "error: "
        tell(f"{prefix}{error}", error, error.exit_code)
        return error.exit_code
    except OSError as error:  # a full disk, a folder without permission
        tell(f"error: {error}", error, 1)
        return 1
    except Exception as error:  # a plug-in may raise anything, and so may our own mistakes
        tell(unexpected(error), error, 1)
        return 1
    return 0


def _quiet_libraries() -> None:
    """Their bars would tear ours apart; what matters in their warnings, we say ourselves."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if not os.environ.get("ALIGNZOO_TRACE"):
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        warnings.filterwarnings("ignore", category=FutureWarning)


def unexpected(error: Exception) -> str:
    """One sentence about an error that nobody foresaw, or its traceback if that is wanted."""
    if os.environ.get("ALIGNZOO_TRACE"):
        return "".join(traceback.format_exception(error)).rstrip()
    at = traceback.extract_tb(error.__traceback__)[-1]
    what = " ".join(str(error).split())
    return (
        f"error: unexpected {type(error).__name__}{': ' if what else ''}{what} "
        f"(in {at.name}, {at.filename}:{at.lineno}); ALIGNZOO_TRACE=1 prints the traceback"
    )
