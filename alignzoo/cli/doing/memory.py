"""`alignzoo plan --memory`: what each train stage takes of a device, and what would fit."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alignzoo.cli.terminal.names import find_recipe
from alignzoo.cli.terminal.screen import print_json, print_table
from alignzoo.contract.errors import AlignzooError, UsageError
from alignzoo.recipe.blocks import TrainSpec
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins

if TYPE_CHECKING:
    from alignzoo.plan.cures import Cure
    from alignzoo.plan.memory import Devices, Footprint, Predictor

GIGA = 1e9
COLUMNS = {  # title -> the categories that it adds up, or their first letters
    "weights": ("weights", "policy copy", "gathered layers", "flat weights"),
    "gradients": ("gradient", "bucket"),
    "optimiser": ("moments", "optimiser scratch"),
    "activations": ("activations", "copies"),
    "logits": ("logits",),
    "KV cache": ("KV cache",),
}


@dataclass(frozen=True)
class Wish:
    """What was typed; None: not."""

    gpus: int | None
    gpu_memory: str | None
    config: Path | None

    def refuse(self) -> None:
        """UsageError if something was typed that `plan` alone does not read."""
        for word, value in asdict(self).items():
            if value is not None:
                said = f"--{word.replace('_', '-')}"
                raise UsageError(f"{said}: it concerns the memory; add --memory")


def memory_command(name: str, overrides: Sequence[str], wish: Wish, *, as_json: bool) -> None:
    """Print the memory of every train stage; AlignzooError if one does not fit."""
    from alignzoo.plan.memory import Devices, Predictor, strategy_of

    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)  # we say it
    registry = load_plugins()
    recipe = load_recipe(find_recipe(name), registry, overrides)
    size = None if wish.gpu_memory is None else parse_size(wish.gpu_memory)
    on_gpu = wish.gpus is not None or size is not None
    devices = Devices(wish.gpus or 1, on_gpu, size, wish.config)
    strategy = strategy_of(recipe, devices.n)
    predictor = Predictor(recipe, registry, devices)
    specs = [stage for stage in recipe.stages if isinstance(stage, TrainSpec)]
    found = [(spec, predictor.footprint(spec)) for spec in specs]
    if as_json:
        print_json([asdict(footprint) for _, footprint in found])
    else:
        _print([footprint for _, footprint in found], devices, strategy)
    faults = [_fault(predictor, spec, footprint, strategy) for spec, footprint in found]
    if refused := [fault for fault in faults if fault]:
        raise AlignzooError("\n".join(refused))


def parse_size(text: str) -> float:
    """Bytes of 80G, 80GB (10^9) or 74.5GiB; UsageError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(G|GB|GiB)", text.strip())
    if found is None:
        raise UsageError(f"--gpu-memory {text}: not a size; write 80G, 80GB or 74.5GiB")
    return float(found[1]) * (2.0**30 if found[2] == "GiB" else GIGA)


def _print(footprints: Sequence[Footprint], devices: Devices, used: str) -> None:
    rows = [
        (
            footprint.stage if strategy == used else "",
            strategy if strategy == used else f"({strategy})",
            _shown(peak.total),
            *map(_shown, columns(peak.bytes)),
            peak.moment,
        )
        for footprint in footprints
        for strategy, peak in footprint.peaks.items()
    ]
    print_table(("stage", "strategy", "GB", *COLUMNS, "most is held in"), rows)
    where = f"each of {devices.n} GPUs" if devices.gpu else "the CPU, one process"
    print(f"peak of tensors on {where}, in GB (10^9 bytes), for the worst batch:")
    for footprint in footprints:
        print(f"  {footprint.stage}: {footprint.rows}")
    if devices.n > 1:
        print("strategies in parentheses are not what the recipe asks for")


def columns(held: Mapping[str, float]) -> list[float]:
    """Bytes under each of COLUMNS."""
    return [
        sum((n for kind, n in held.items() if kind.startswith(kinds)), 0.0)
        for kinds in COLUMNS.values()
    ]


def _shown(n: float) -> str:
    return f"{n / GIGA:.2f}" if n < 100 * GIGA else f"{n / GIGA:.0f}"


def _fault(predictor: Predictor, spec: TrainSpec, found: Footprint, strategy: str) -> str:
    """Why a stage cannot run on these devices, and what could; or an empty string."""
    from alignzoo.plan.cures import cures

    devices, need = predictor.devices, found.peaks[strategy].total
    if devices.holds(need):
        return ""
    tried = cures(predictor, spec, strategy)
    fits = [cure for cure in tried if devices.holds(cure.total)]
    said = (
        f"{spec.name}: {_shown(need)} GB are needed on each GPU in '{found.peaks[strategy].moment}'"
    )
    said += f", and of its {_shown(devices.memory or 0)} GB a tenth must stay free"
    if fits:
        return f"{said}; what would fit: {_listed(fits)}"
    return (
        f"{said}; nothing that was tried fits: {_listed(sorted(tried, key=lambda c: c.total)[:2])}"
    )


def _listed(found: Sequence[Cure]) -> str:
    return ", ".join(f"{cure.settings} ({_shown(cure.total)} GB)" for cure in found)
