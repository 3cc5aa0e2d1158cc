"""`alignzoo bundle`: a run's results as one file to send; no weights, answers or places."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignzoo.cli.terminal.names import is_run, written_recipe
from alignzoo.cli.terminal.outputs import check_outputs
from alignzoo.contract.errors import DataError, UsageError, counted
from alignzoo.leaderboard import Bundle, bundle_text
from alignzoo.leaderboard.fold import readable
from alignzoo.store.files import read_json, write_text
from alignzoo.store.records import RECORD, changed_files

KEPT = ("answers.jsonl", "judgments.jsonl", "scores.json")  # files whose digests go along
# An absolute path, or one from home: its folders are this machine's, its last name is a name.
PLACE = re.compile(r"(?<![\w.~:/])~?/(?:[^\s/'\",;:()\[\]{}]+/)*([^\s/'\",;:()\[\]{}]+)")
ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\",;]+")


def bundle_command(run: Path, output: Path) -> None:
    """Write the bundle of a finished run.

    Raises UsageError for what is no finished run, DataError when its files are not what it wrote.
    """
    check_outputs({"--output": output})
    bundle = bundle_of(run)
    write_text(output, bundle_text(bundle))
    size = output.stat().st_size / 1e3
    print(f"{output}: {counted(len(bundle.scores), 'result')}, {size:.0f} kB")


def bundle_of(run: Path) -> Bundle:
    """What a run has to say to others."""
    record = read_json(run / "run.json")
    if not is_run(run) or not (run / "scores.jsonl").is_file():
        raise UsageError(f"{run}: no run that has evaluated; `alignzoo run` makes one")
    if record.get("status") != "done":
        raise UsageError(f"{run}: its last run has not ended well; run the recipe again first")
    recipe = written_recipe(run)
    with readable(run / "scores.jsonl"):
        lines = (run / "scores.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [dict(json.loads(line)) for line in lines]
    evaluations = _evaluations(run)
    for row in rows:
        _check(run, row, evaluations.get(str(row.get("identity"))))
    mine = {str(row["identity"]): evaluations[str(row["identity"])] for row in rows}
    shared = {str(row["section"]): read_json(mine[str(row["identity"])] / "scores.json")["section"]
              for row in rows}  # fmt: skip
    _check_sections(run, shared)
    return Bundle(
        run=run.resolve().name,
        seed=int(recipe["seed"]),
        started=str(record["started"]),
        versions=record["versions"],
        plugins=tuple(record["plugins"]),
        recipe=impersonal(recipe),
        scores=tuple(impersonal(row) for row in rows),
        sections=shared,
        files={impersonal(_named(folder)): _digests(folder) for folder in mine.values()},
    )


def _evaluations(run: Path) -> dict[str, Path]:
    """Identity -> folder of every finished evaluation."""
    folders = sorted(file.parent for file in run.glob(f"evaluations/*/*/{RECORD}"))
    return {str(read_json(folder / RECORD).get("identity")): folder for folder in folders}


def _check(run: Path, row: Mapping[str, Any], folder: Path | None) -> None:
    """A row must be that of an evaluation whose files are as they were written."""
    if folder is None:
        what = f"{run / 'scores.jsonl'}: '{row.get('model')}' is of no evaluation of this run"
        raise DataError(f"{what}; run the recipe again")
    if changed := changed_files(folder):
        raise DataError(f"{folder / changed[0]}: changed since it was written; run the recipe "
                        "again, which does that evaluation anew")  # fmt: skip
    own = read_json(folder / "scores.json").get("row", {})
    if differing := [key for key, x in own.items() if row.get(key) != x]:
        raise DataError(f"{run / 'scores.jsonl'}: {', '.join(differing)} of '{row.get('model')}' "
                        f"is not that of {folder}; run the recipe again")  # fmt: skip


def _check_sections(run: Path, shared: Mapping[str, Any]) -> None:
    """A section goes along word for word, or nobody could check its id."""
    for section in shared.values():
        if (told := impersonal(section)) != section:
            odd = ", ".join(key for key, x in section.items() if told[key] != x)
            raise UsageError(
                f"{run}: what the results share ({odd}) names a place of this machine, which "
                "others must not see and cannot match; give the model or file a name without one"
            )


def _named(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def _digests(folder: Path) -> dict[str, str]:
    files = read_json(folder / RECORD).get("files", {})
    return {name: str(files[name]) for name in KEPT if name in files}


def impersonal(value: Any) -> Any:
    """The same without folders and addresses of this machine: of a path, its last name is kept."""
    if isinstance(value, str):
        return PLACE.sub(r"\1", ADDRESS.sub("(address)", value))
    if isinstance(value, Mapping):
        return {impersonal(key): impersonal(x) for key, x in value.items()}
    if isinstance(value, list):
        return [impersonal(x) for x in value]
    return value
