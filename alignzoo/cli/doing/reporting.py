"""`alignzoo report`: runs as one page, written, or served while they go."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignzoo.cli.terminal.outputs import check_outputs
from alignzoo.contract.errors import UsageError, described
from alignzoo.recipe.registry import Registry, load_plugins
from alignzoo.report import as_json, fold_report, render_report
from alignzoo.report.runs import find_runs
from alignzoo.store.files import write_text

PAGE = "report.html"


@dataclass(frozen=True)
class Wish:
    """Where a report goes, and what it shall hold."""

    page: Path | None
    numbers: Path | None
    watch: bool
    port: int | None
    lens: int = 0  # rows of every train stage that are read token by token


def report_command(folders: Sequence[Path], wish: Wish) -> int:
    """Write a report, or serve it until Ctrl-C; the exit status."""
    if wish.port is not None and not wish.watch:
        raise UsageError("--port: nothing is served without --watch; add it")
    if wish.watch and (wish.page or wish.numbers):
        raise UsageError("--watch: it writes nothing; leave out -o and --json")
    if wish.watch and wish.lens:
        raise UsageError(
            "--watch: a page that follows a run loads no model, and --lens does; leave one out"
        )
    registry = load_plugins()
    if wish.watch:
        return _watch(folders, registry, wish.port or 0)
    page = wish.page or (folders[0] / PAGE if len(folders) == 1 else Path(PAGE))
    check_outputs({"-o": page, "--json": wish.numbers or page.with_suffix(".json")})
    print(write_report(folders, registry, page, wish.numbers, wish.lens))
    return 0


def write_report(
    folders: Sequence[Path],
    registry: Registry,
    page: Path,
    numbers: Path | None = None,
    lens: int = 0,
) -> str:
    """Write the page and its JSON twin; the sentence that says where. `lens` rows of every train
    stage are read token by token, which loads its models.

    Raises UsageError for a folder that is no run.
    """
    numbers = numbers or page.with_suffix(".json")
    report = fold_report(folders, registry)
    if lens:
        from alignzoo.cli.doing.report_lens import with_lens

        report = with_lens(report, lens, registry)
    beside = numbers.name if numbers.parent == page.parent else str(numbers)
    write_text(page, render_report(report, twin=beside))
    values = json.dumps(as_json(report), ensure_ascii=False, allow_nan=False)
    write_text(numbers, values + "\n")
    return f"report: {page}"


def report_of(runs: Sequence[Path], folder: Path, registry: Registry) -> str:
    """What runs that are done leave for their reader, in a folder; the sentence that says where.

    A fault of the report is no fault of the runs: it is said and costs nothing but the page.
    """
    try:
        return write_report(runs, registry, folder / PAGE)
    except Exception as error:  # whatever it is, the results are there
        return f"report: not written ({described(error)}); try `alignzoo report {folder}`"


def _watch(folders: Sequence[Path], registry: Registry, port: int) -> int:
    from alignzoo.report.serve import Live, server_of

    server = server_of(Live(find_runs(folders), registry), port)
    print(f"http://127.0.0.1:{server.server_port}/ shows the run as it goes; Ctrl-C ends this")
    sys.stdout.flush()
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        print("\nended", file=sys.stderr)
    finally:
        server.server_close()
    return 0
