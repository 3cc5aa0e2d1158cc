"""What the policy answers to the same few prompts while it learns, for people to read.

Nothing that is learnt or measured depends on it: the noise has keys of its own, and the same ones
at every step, so that two answers to one prompt differ by what was learnt between them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignzoo.contract.errors import described
from alignzoo.contract.rollout import Completion, RolloutEngine, Sampling, sample_key
from alignzoo.engine.train.journal import keep_until

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alignzoo.engine.layout.base import Layout

FILE = "logged_samples.jsonl"
ROOM = 1.25  # times a copy's size that must be free on an accelerator before it is made


@dataclass(frozen=True)
class Examples:
    """The `log_samples:` block, resolved."""

    role: str
    prompts: Sequence[tuple[int, ...]]
    at: int  # moments, the first and the last step among them
    engine: RolloutEngine  # one that samples in this process
    sampling: Sampling
    row: Callable[[int, Completion], Mapping[str, Any]]  # prompt number, its answer -> JSON-able

    def due(self, step: int, total: int) -> bool:
        """Whether the policy answers after so many of all steps."""
        return any(step == round(k * total / (self.at - 1)) for k in range(self.at))


@dataclass(frozen=True)
class Gallery:
    """Where the answers of a training stage are written."""

    examples: Examples | None
    layout: Layout
    seed: int
    file: Path
    say: Callable[[str], None]

    def resume(self, step: int) -> None:
        """Drop what was written after a checkpoint: it will be written again."""
        if self.layout.ranks.is_main:
            keep_until(self.file, step)

    def show(self, step: int, total: int) -> None:
        """Write the policy's answers if it is time for them. Collective.

        A failure of the first rank is said and costs the answers alone; training goes on.
        """
        if self.examples is None or not self.examples.due(step, total):
            return
        if not self._has_room(self.examples.role):
            self._tell(step, "there is no room beside the training for a whole copy of the model")
            return
        model = self.layout.plain(self.examples.role, self.layout.ranks.device)
        if not self.layout.ranks.is_main:
            return
        try:
            self._write(self.examples, model, step)
        except Exception as error:  # whatever it is, the training was not its cause
            self._tell(step, described(error))

    def _write(self, examples: Examples, model: PreTrainedModel, step: int) -> None:
        keys = [sample_key(self.seed, "example", *prompt) for prompt in examples.prompts]
        with closing(examples.engine.start(model)) as session, self.layout.ranks.autocast():
            done = session.generate(examples.prompts, examples.sampling, keys)
        rows = ({"step": step, **examples.row(n, c)} for n, c in enumerate(done))
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(text)

    def _tell(self, step: int, why: str) -> None:
        self.say(f"no samples were logged at step {step}: {why}")

    def _has_room(self, role: str) -> bool:
        """Whether every accelerator can hold the copy that sliced weights need. Collective."""
        ranks, size = self.layout.ranks, self.layout.copied(role)
        if not size or ranks.device.type != "cuda":
            return True
        free = torch.cuda.mem_get_info(ranks.device)[0]
        free += torch.cuda.memory_reserved(ranks.device)
        free -= torch.cuda.memory_allocated(ranks.device)
        return not ranks.max(torch.tensor(float(free < ROOM * size))).item()
