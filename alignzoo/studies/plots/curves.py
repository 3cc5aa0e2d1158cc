"""From the folders of runs to curves: one metric of every training stage that logged it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import yaml

from alignzoo.contract.errors import DataError, UsageError, counted, suggest
from alignzoo.store.files import read_json
from alignzoo.store.folders import runs_in

APART = ("seed", "parallel", "threads", "trackers")  # keys that make no other recipe
SHOWN = "log_samples"  # nor does this one of a stage
Row = Mapping[str, float]
Figures = Sequence[float | None]


@dataclass(frozen=True)
class Log:
    """What one training stage of a run logged, and who it is."""

    run: Path
    stage: str
    folder: Path
    recipe: Mapping[str, Any]
    rows: tuple[Row, ...]

    @property
    def seed(self) -> int:
        """The recipe's seed."""
        return int(self.recipe.get("seed", 0))

    @property
    def block(self) -> Mapping[str, Any]:
        """The stage's own part of the recipe."""
        return next((s for s in self.recipe.get("stages", ()) if s["name"] == self.stage), {})

    @property
    def kin(self) -> str:
        """What stages that differ in their seed alone have in common."""
        rest = {key: x for key, x in self.recipe.items() if key not in (*APART, "stages")}
        stages = [{k: x for k, x in s.items() if k != SHOWN} for s in self.recipe["stages"]]
        return json.dumps([self.stage, stages, rest], sort_keys=True)


@dataclass(frozen=True)
class Curve:
    """One line: y over x, with the step of each point; `spread` is the half width of its band."""

    run: str
    stage: str
    steps: tuple[float, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    spread: tuple[float, ...] = ()
    seeds: int = 1


def read_logs(names: Iterable[str]) -> list[Log]:
    """The training logs of RUN, RUN/STAGE, or a folder of `run --seeds` or `--sweep`.

    Raises UsageError for what is no run and DataError for a damaged file.
    """
    found = [log for name in names for log in _logs(Path(name))]
    places = [log.folder.resolve() for log in found]
    return [log for n, log in enumerate(found) if places.index(places[n]) == n]


def curves(logs: Sequence[Log], x: str, y: str) -> list[tuple[Log, Curve]]:
    """A curve for every stage that logged y; x is "step", "flops", "kl" or a metric's name.

    Raises UsageError with what is nearest where no stage logged y or x.
    """
    those = [log for log in logs if any(y in row for row in log.rows)]
    if not those:
        known = sorted({name for log in logs for row in log.rows for name in row} - {"step"})
        there = f"; there are {', '.join(known)}" if known else "; nothing was logged there"
        raise UsageError(f"--y {y}: no stage logged it{suggest(y, known)}{there}")
    return [(log, _curve(log, x, y)) for log in those]


def _curve(log: Log, x: str, y: str) -> Curve:
    across = ACROSS[x](log) if x in ACROSS else _metric(log, x)
    points = [
        (float(row["step"]), at, float(row[y]))
        for row, at in zip(log.rows, across, strict=True)
        if y in row and at is not None
    ]
    if not points:
        raise UsageError(f"{log.run}/{log.stage}: no step has both {x} and {y}")
    steps, xs, ys = zip(*points, strict=True)
    return Curve(log.run.resolve().name, log.stage, steps, xs, ys)


# --- what stands on the x axis ---------------------------------------------------------------


def _steps(log: Log) -> Figures:
    return [row["step"] for row in log.rows]


def _kl(log: Log) -> Figures:
    """The one full-vocabulary KL that the method logs, else its one estimate."""
    names = list(dict.fromkeys(name for row in log.rows for name in row))
    kls = [name for name in names if name.startswith("kl") and not name.endswith("_token")]
    best = [name for name in kls if name.startswith("kl_full/")] or kls
    if len(best) != 1:
        several = f"name one of them: --x {' or '.join(best)}" if best else "it logs none"
        raise UsageError(f"--x kl: {log.run}/{log.stage} has {counted(len(best), 'KL')}; {several}")
    return _metric(log, best[0])


def _metric(log: Log, name: str) -> Figures:
    known = {key for row in log.rows for key in row}
    if name not in known:
        usual = [*ACROSS, *sorted(known)]
        raise UsageError(f"--x {name}: {log.run}/{log.stage} has no such figure"
                         f"{suggest(name, usual)}; there are {', '.join(usual)}")  # fmt: skip
    return [row.get(name) for row in log.rows]


def _flops(log: Log) -> Figures:
    """FLOPs of learning up to each step: 6 N D, the usual estimate (arXiv:2001.08361 section 2.1).

    D are the tokens of the optimiser batches so far, prompts included (`timing.jsonl`; of several
    processes those of the first, times their number); N are the parameters of every trained role
    as it was saved, with embeddings, which the source leaves out.
    2 N D are the forward and 4 N D the backward pass. Under an adapter the gradients of the base's
    own weights are not computed, which leaves 4 N D. Not counted: attention's quadratic part,
    frozen models, sampling and recomputed activations; so it is a lower bound, and near only for
    offline methods.
    """
    models = [*log.folder.glob("model/"), *log.folder.glob("model-*/")]
    size = sum(parameters(folder) for folder in models)
    if not size:
        raise UsageError(f"--x flops: {log.run}/{log.stage} has no saved model to count; "
                         "let its run end first")  # fmt: skip
    steps = (row for row in _lines(log.folder / "timing.jsonl") if "step" in row)
    tokens = {float(row["step"]): row["seconds"] * row["tokens_per_second"] for row in steps}
    missing = [row["step"] for row in log.rows if row["step"] not in tokens]
    if missing:
        raise DataError(f"{log.folder / 'timing.jsonl'}: step {missing[0]:g} is missing, so its "
                        "tokens are not known; plot over steps")  # fmt: skip
    each = (4 if log.block.get("adapter") else 6) * size
    done, found = 0.0, []
    for row in log.rows:
        done += each * round(tokens[row["step"]])
        found.append(done)
    return found


ACROSS: Mapping[str, Callable[[Log], Figures]] = {"step": _steps, "flops": _flops, "kl": _kl}


def parameters(folder: Path) -> int:
    """The parameters of a saved model, from the heads of its safetensors files."""
    return sum(_size(file) for file in sorted(folder.glob("*.safetensors")))


def _size(file: Path) -> int:
    with file.open("rb") as data:
        (length,) = struct.unpack("<Q", data.read(8))
        head = json.loads(data.read(length))
    return sum(prod(tensor["shape"]) for name, tensor in head.items() if name != "__metadata__")


# --- files -----------------------------------------------------------------------------------


def _logs(place: Path) -> Iterator[Log]:
    if (place / "run.json").is_file():
        yield from _stages(place, None)
    elif runs := runs_in(place):
        for run in runs:
            yield from _stages(run, None)
    elif (place.parent / "run.json").is_file():
        yield from _stages(place.parent, place.name)
    else:
        raise UsageError(
            f"{place}: neither a run nor RUN/STAGE nor a folder of `run --seeds` or `--sweep`"
        )


def _stages(run: Path, wanted: str | None) -> Iterator[Log]:
    """The training stages of a run that its own recipe names."""
    try:
        recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
        blocks = [(n, s) for n, s in enumerate(recipe["stages"], 1) if "algorithm" in s]
        names = [str(block["name"]) for _, block in blocks]
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError) as error:
        raise DataError(f"{run / 'recipe.yaml'}: cannot be read ({error})") from error
    if wanted is not None and wanted not in names:
        there = f"it has {', '.join(names)}" if names else "it has none"
        raise UsageError(f"{run}: no training stage '{wanted}' ({there}){suggest(wanted, names)}")
    for number, block in blocks:
        folder = run / "stages" / f"{number:02d}-{block['name']}"
        if wanted in (None, block["name"]) and (folder / "metrics.jsonl").is_file():
            rows = tuple(_rows(folder / "metrics.jsonl"))
            yield Log(run, str(block["name"]), folder, recipe, rows)


def _rows(file: Path) -> list[dict[str, float]]:
    """The steps of a log of metrics."""
    try:
        return [{n: float(x) for n, x in row.items()} for row in _lines(file) if row["step"]]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(file, error) from error


def _lines(file: Path) -> list[dict[str, Any]]:
    """The complete lines of a log; the last one may be in the making while its stage goes on."""
    done = read_json(file.parent / "stage.json").get("status") == "done"
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        if done and text and not text.endswith("\n"):
            raise ValueError("its end is missing")
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    except ValueError as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(f"{file}: damaged ({error}); run the recipe again to rewrite it")
