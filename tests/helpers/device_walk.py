"""Training as on an accelerator, on a pretended one or on that of WALK_ON; prints JSON.

In a process of its own: a device that is there once is there to the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pretend_device import begin

REAL = os.environ.get("WALK_ON")
# Before any backward pass: queues of devices are made by the first.
DEVICE = torch.device(REAL) if REAL else begin()

from alignzoo_bandit import Bandit  # noqa: E402
from alignzoo_dpo import DPO  # noqa: E402
from alignzoo_gkd import GKD  # noqa: E402
from alignzoo_grpo import GRPO  # noqa: E402
from alignzoo_orpo import ORPO  # noqa: E402
from alignzoo_reinforce import Reinforce  # noqa: E402
from alignzoo_reward_model import RewardModel  # noqa: E402
from alignzoo_rloo import RLOO  # noqa: E402
from alignzoo_rto import RTO  # noqa: E402
from engine_jobs import job, rollout  # noqa: E402
from method_settings import METHODS  # noqa: E402

from alignzoo.contract.types import RolloutBatch  # noqa: E402
from alignzoo.engine.memory.walk import Alone  # noqa: E402
from alignzoo.engine.models.adapters import Adapted, Lora  # noqa: E402
from alignzoo.engine.parallel.ranks import Ranks  # noqa: E402
from alignzoo.engine.scoring import measure  # noqa: E402
from alignzoo.engine.train.job import Validation  # noqa: E402
from alignzoo.engine.train.loop import train  # noqa: E402
from alignzoo.engine.train.rails import Rails  # noqa: E402
from alignzoo.testing import tiny_model, toy_items  # noqa: E402

SAMPLED = {
    "grpo": GRPO(),
    "rloo": RLOO(),
    "rto": RTO(),
    "reinforce": Reinforce(baseline=0.5),
    "bandit": Bandit(),
}
VARIANTS = ("sft-per-sequence", "dpo-smoothed", "ppo-token-mean")  # as others, to a device
ALL = {**METHODS, "gkd": GKD(), "orpo": ORPO(), "reward_model": RewardModel(), **SAMPLED}
EVERY = {name: method for name, method in ALL.items() if name not in VARIANTS}
STEPS = 3


@dataclass(frozen=True)
class OnDevice(Alone):
    """One process on the device."""

    @property
    def device(self) -> torch.device:
        """Not the CPU."""
        return DEVICE

    def autocast(self) -> AbstractContextManager[Any]:
        """In bf16 where the recipe says so."""
        mixed = self.mixed_precision == "bf16"
        return torch.autocast(DEVICE.type, torch.bfloat16, enabled=mixed)

    def prepare(self, module: torch.nn.Module) -> torch.nn.Module:
        """It is there already."""
        return module


def losses(
    name: str, there: bool, mixed: str = "no", folder: Path | None = None, **more: Any
) -> Any:
    """What the steps of a method log."""
    algorithm = EVERY[name]
    if issubclass(algorithm.batch, RolloutBatch):
        more = {"rollout": rollout(), **more}
    if there:
        more = {"ranks": Ranks(OnDevice(mixed)), **more}
    place = folder or Path(tempfile.mkdtemp())
    train(job(place, algorithm, steps=STEPS, **more))
    rows = (place / "metrics.jsonl").read_text().splitlines()
    return [json.loads(row)["loss"] for row in rows]


def pair(name: str, **more: Any) -> Any:
    """The same training here and there."""
    return [losses(name, False, **more), losses(name, True, **more)]


def validated() -> Any:
    """With held-out data, a look at the drift, recomputed activations and the largest metrics."""
    base = job(Path(tempfile.mkdtemp()), DPO()).optim
    held = Validation(toy_items(DPO.batch, 5, seed=3), 2, "loss", -1)
    more = {
        "validation": held,
        "optim": replace(base, gradient_checkpointing=True, scorer="dense"),
        "rails": Rails(max_kl=1e9, say=lambda text: None),
    }
    return pair("dpo", **more)


class StopError(Exception):
    """What ends a run in its third step."""


def _stop(step: int, *_: Any) -> None:
    if step == 3:
        raise StopError


def resumed() -> Any:
    """Stopped in the third step; then the rest from the checkpoint of the second."""
    folder = Path(tempfile.mkdtemp())
    with contextlib.suppress(StopError):
        losses("dpo", True, folder=folder, on_step=_stop)
    return [losses("dpo", False), losses("dpo", True, folder=folder)]


def repeated() -> Any:
    """The same training twice there, and once more from a checkpoint: equal to the last bit."""
    folder = Path(tempfile.mkdtemp())
    with contextlib.suppress(StopError):
        losses("ppo", True, folder=folder, on_step=_stop)
    return [losses("ppo", True), losses("ppo", True), losses("ppo", True, folder=folder)]


def adapted() -> Any:
    """A policy as an adapter over the model of another role."""
    return pair(
        "aligndistil", adapted={"policy": Adapted("b", new=Lora(2)), "anchor": Adapted("b")}
    )


def measured() -> Any:
    """What evaluation asks of finished models."""
    rows = [item.rows[0] for item in toy_items(METHODS["sft"].batch, 4)]
    found = []
    for device in ("cpu", DEVICE):
        one, other, scalar = tiny_model(1), tiny_model(2), tiny_model(3, "scalar")
        for model in (one, other, scalar):
            model.to(device)
        values = measure.sequence_values(scalar, rows, 0)
        found.append([*measure.sequence_kl(one, other, rows, 0), *values])
    return found


def broken() -> Any:
    """A weight that is no number: the offending item is found, and said."""
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")
    said = []
    for there in (False, True):
        try:
            losses("sft", there, load=lambda role: model)
        except Exception as error:
            said.append(str(error).partition(" (/")[0])
    return said


SCENARIOS: dict[str, Callable[[], Any]] = {
    **{name: lambda name=name: pair(name) for name in EVERY},
    "bf16": lambda: [losses(name, True, "bf16") for name in ("dpo", "aligndistil", "ppo")],
    "validated": validated,
    "resumed": resumed,
    "repeated": repeated,
    "adapted": adapted,
    "measured": measured,
    "broken": broken,
}


def main() -> None:
    """One line of JSON: scenario -> what it gave, or its traceback."""
    out = {}
    for name in sys.argv[1:] or SCENARIOS:
        try:
            out[name] = SCENARIOS[name]()
        except Exception:
            out[name] = traceback.format_exc()
    print(json.dumps(out))


if __name__ == "__main__":
    main()
