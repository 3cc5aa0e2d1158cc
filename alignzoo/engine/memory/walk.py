"""Two optimiser steps of a stage, with every live tensor counted: memory as it really is taken.

There is no formula for activations: the real models, scorer, loss and optimiser do their work, on
tensors that have a shape and no data, so that a model of any size takes seconds and no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel

from alignzoo.contract.groups import GroupBatch
from alignzoo.contract.types import Batch, Item, Signal, TextBatch, Tokens
from alignzoo.engine.layout.base import Layout
from alignzoo.engine.layout.optim import FUSED, Optim, build_optimizer
from alignzoo.engine.layout.replicated import Replicated
from alignzoo.engine.memory.fakes import forget
from alignzoo.engine.memory.live import COPIES, Live, Peak
from alignzoo.engine.memory.sampling import Decoding, sample
from alignzoo.engine.memory.spread import (
    GRADIENTS,
    MOMENTS,
    PASSING,
    SCRATCH,
    WEIGHTS,
    held_by,
    views_of,
)
from alignzoo.engine.parallel.ranks import Ranks, steady_attention
from alignzoo.engine.scoring import snapshots
from alignzoo.engine.scoring.fused import Fused
from alignzoo.engine.scoring.scorer import ScoringModule
from alignzoo.engine.train.balance import balance_of
from alignzoo.engine.train.build import module_of
from alignzoo.engine.train.guard import prepared_by
from alignzoo.engine.train.job import Job
from alignzoo.engine.train.step import Stepper
from alignzoo.engine.train.world import BufferWorld
from alignzoo.ops import value

TRAINING, UPDATE, PASS = "forward and backward", "optimiser step", "passes without gradient"
GPU = "cuda"
SHORT = 8  # tokens of a response whose size does not matter


@dataclass(frozen=True)
class Stage:
    """A training stage as far as its memory goes."""

    job: Job  # its items are not read
    mode: FakeTensorMode  # whose tensors the models are of
    prompt: int  # tokens of the longest row that are prompt
    response: int  # and response
    view: int  # tokens of the prompt of the longest view, for roles that see one
    gpu: bool  # fused attention in bf16 and the multi-tensor optimiser, as on an accelerator
    decoding: Decoding | None = None  # how the built-in engine samples
    rewards: tuple[PreTrainedModel, ...] = ()  # scalar heads that score what was sampled
    memory: float | None = None  # bytes of a device, where it is known


@dataclass(frozen=True)
class Alone:
    """One process on a CPU, without the global state that Accelerate keeps."""

    mixed_precision: str
    process_index: int = 0
    num_processes: int = 1
    is_main_process: bool = True

    @property
    def device(self) -> torch.device:
        """Where tensors without data say that they are."""
        return torch.device("cpu")

    def autocast(self) -> AbstractContextManager[Any]:
        """As the accelerator of a run."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.mixed_precision == "bf16")

    def backward(self, value: Tensor) -> None:
        """As the accelerator of a run."""
        value.backward()

    def no_sync(self, module: torch.nn.Module) -> AbstractContextManager[None]:
        """Nobody to exchange with."""
        return nullcontext()


class Whole(Replicated):
    """Everything on one device, where it is: tensors without data are not moved."""

    def __init__(self, ranks: Ranks, scoring: ScoringModule, optim: Optim) -> None:
        Layout.__init__(self, ranks, scoring)
        self.optimizer = build_optimizer(optim, self.trained)
        self.module = scoring


def peaks(stage: Stage, n: int = 1) -> Mapping[str, Peak]:
    """The peak of one of n devices under each strategy.

    The batch is the worst that the stage may meet: `micro_batch_size` items of the longest rows.
    """
    live = Live()
    with ExitStack() as around:
        if stage.job.ranks.accelerator.mixed_precision == "bf16" and not stage.gpu:
            around.enter_context(steady_attention("cpu"))
        around.enter_context(live)
        _Walk(stage, live, n).steps()
    return live.peaks


class _Walk:
    """The models and the optimiser of a stage, and what is counted."""

    def __init__(self, stage: Stage, live: Live, n: int) -> None:
        self.stage, self.job, self.live = stage, _placed(stage), live
        scoring = module_of(self.job)
        for model in scoring.by_role.values():
            forget(model, stage.mode)  # adapters are made with data
        self.layout = Whole(self.job.ranks, scoring, self.job.optim)
        for group in self.layout.optimizer.param_groups:
            group["foreach"] = stage.gpu and self.job.optim.kind not in FUSED
        balance, _ = balance_of(self.job.algorithm, self.module, self.job.optim.aux_loss)
        self.stepper = Stepper(
            self.job.algorithm, self.layout, self.job.optim, self.job.ranks, balance
        )
        self.state = dict(self.job.algorithm.init_state())
        self.held = held_by(self.module, stage.decoding is not None)
        self._mark()
        live.begin(views_of(self.module, n))

    @property
    def module(self) -> ScoringModule:
        return self.layout.scoring

    def _mark(self) -> None:
        live = self.live
        live.widths = {h.width for h in self.module.heads.values() if h.width > 1}
        for role, model in self.module.models.items():
            live.mark([*model.parameters(), *model.buffers()], WEIGHTS + role)
            live.shapes |= {p.shape for p in model.parameters() if p.ndim > 1}
            for p in model.parameters():
                if p.requires_grad:
                    p.register_post_accumulate_grad_hook(self._made)

    def _made(self, p: Tensor) -> None:
        if p.grad is not None:
            self.live.mark([p.grad], GRADIENTS)

    def steps(self) -> None:
        """A small step makes the moments; the second one finds them in place.

        It finds gradients too, if a step has more than one micro-batch: a small one has left them.
        """
        with self.live.holding({k: n for k, n in self.held.items() if k not in PASSING}):
            self._gradients(*self._few)
            self._update()
            if self.stage.decoding is not None:
                mixed = self.job.rollout.mixed if self.job.rollout else ("policy",)
                models = {role: self.module.by_role[role] for role in sorted(mixed)}
                sample(models, self.stage.decoding, self.job.ranks, self.live)
                self._judge(self.stage.decoding.rows)
            optim = self.job.optim
            if optim.batch_size > optim.micro_batch_size:
                self._gradients(*self._few)
            self._gradients(optim.micro_batch_size, self.stage.prompt, self.stage.response)
            self._update()

    @property
    def _few(self) -> tuple[int, int, int]:
        return max(1, self.job.algorithm.least_items), 1, min(SHORT, self.stage.response)

    def _judge(self, rows: int) -> None:
        """As `sequence_values` does."""
        modules = [ScoringModule({"policy": x}, frozenset(), Fused()) for x in self.stage.rewards]
        for module in modules:
            self.live.mark([*module.parameters(), *module.buffers()], WEIGHTS + "reward")
        batch = worst_batch(TextBatch, min(rows, 64), self.stage.prompt, self.stage.response)
        for module in modules:
            with self.live.during(PASS), self.job.ranks.autocast():
                snapshots.score_buffer(module, batch, {"value": value("policy")}, batch.n_items)

    def _gradients(self, n_items: int, prompt: int, response: int) -> None:
        """What a buffer of so many items is scored for before, and its forwards and backwards."""
        view = prompt if response < self.stage.response else self.stage.view
        views = dict.fromkeys(self.job.special.sees.values(), view)
        batch = worst_batch(self.job.kind, n_items, prompt, response, views)
        narrow = {COPIES: self._narrow if self.stage.gpu else 0}
        with self.live.holding({k: self.held[k] for k in PASSING} | narrow):
            given, extra = self._given(batch)
            with self.live.during(TRAINING):
                self.stepper.gradients(batch, given, torch.arange(n_items), self.state, extra)

    @property
    def _narrow(self) -> int:
        """Bytes of bfloat16: heads, and the gradient of a chunk, as products take them on a GPU."""
        if self.job.ranks.accelerator.mixed_precision != "bf16":
            return 0
        heads = [h for h in self.module.heads.values() if h.width > 1]
        chunk = self.job.optim.chunk(GPU) // 8 // max(1, sum(h.width for h in heads))
        learns = {h.width for h in heads if h.linear.weight.requires_grad}
        return 2 * (sum(h.linear.weight.numel() for h in heads) + chunk * max(learns, default=0))

    def _update(self) -> None:
        with self.live.during(UPDATE, SCRATCH):
            self.layout.clip(self.job.optim.max_grad_norm)
            self.layout.optimizer.step()
            self.live.mark(_tensors(self.layout.optimizer.state.values()), MOMENTS)
            self.layout.optimizer.zero_grad(set_to_none=True)

    def _given(self, batch: Batch) -> tuple[dict[str, Tensor], Mapping[str, Signal]]:
        """Signals that a buffer has before its first update, and what that scores again."""
        job = self.job
        cached, scored = job.scored
        given = {name: torch.zeros(batch.ids.shape) for name in cached}
        extra = job.rollout.compared if job.rollout else {}
        given |= {name: torch.zeros(batch.ids.shape) for name in extra}
        size = job.optim.micro_batch_size * batch.rows_per_item
        with self.live.during(PASS), job.ranks.autocast():
            given |= snapshots.score_buffer(self.module, batch, scored, size)
            world = BufferWorld(job.ranks, batch, self.state)
            given |= prepared_by(job.algorithm, batch, given, world)
        return given, extra


def _placed(stage: Stage) -> Job:
    """With the chunks of the device that is planned for: the walk itself is on a CPU."""
    optim, device = stage.job.optim, GPU if stage.gpu else stage.job.ranks.device.type
    return replace(
        stage.job, optim=replace(optim, chunk_mb=optim.chunk(device, stage.memory) // 2**20)
    )


def worst_batch(
    kind: type[Batch],
    n_items: int,
    prompt: int,
    response: int,
    views: Mapping[str, int] = MappingProxyType({}),
) -> Batch:
    """Items whose rows are all as long as any may be; `views` has the prompts' lengths of those."""

    def rows(prompt: int) -> tuple[Tokens, ...]:
        return (Tokens((0,) * prompt, (0,) * response),) * kind.rows_per_item

    seen = {name: rows(n) for name, n in views.items()}
    items = [Item(rows(prompt), _numbers(kind, float(n % 2)), seen) for n in range(n_items)]
    return kind.collate(items, 0)


def _numbers(kind: type[Batch], x: float) -> dict[str, float | tuple[float, ...]]:
    """Something for every field of a kind of batch; those of a group's answers are one for each."""
    own = {f.name for f in fields(kind)} - {f.name for f in fields(Batch)}
    by_row = own & {f.name for f in fields(GroupBatch)} if issubclass(kind, GroupBatch) else ()
    return {name: (x,) * kind.rows_per_item if name in by_row else x for name in own}


def _tensors(states: Any) -> Iterator[Tensor]:
    for state in states:
        yield from (x for x in state.values() if isinstance(x, Tensor))
