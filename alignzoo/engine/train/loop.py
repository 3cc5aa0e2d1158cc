"""The only training loop: buffers -> snapshots -> prepare -> optimiser steps, offline or not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignzoo.contract.errors import Interrupted, TrainingError
from alignzoo.contract.types import Batch
from alignzoo.contract.verdicts import JudgeError
from alignzoo.engine.layout.base import Layout
from alignzoo.engine.layout.build import build_layout
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.scoring import snapshots
from alignzoo.engine.scoring.filed import filed
from alignzoo.engine.scoring.scorer import SCORERS, ScoringModule
from alignzoo.engine.train import checkpoint, faults, phases, rails, words
from alignzoo.engine.train.alike import check_alike
from alignzoo.engine.train.balance import balance_of
from alignzoo.engine.train.batches import permutation, seed_step, share_of_rank
from alignzoo.engine.train.build import buffers_of, module_of
from alignzoo.engine.train.checkpoint import Cursor
from alignzoo.engine.train.examples import FILE, Gallery
from alignzoo.engine.train.guard import prepared_by
from alignzoo.engine.train.job import Job, Validation
from alignzoo.engine.train.journal import (
    Asked,
    append_row,
    interrupts,
    keep_bytes,
    keep_until,
    rows_until,
)
from alignzoo.engine.train.moving import turn_of
from alignzoo.engine.train.optim import rate, set_rate
from alignzoo.engine.train.reference import stored_snapshots
from alignzoo.engine.train.saves import Saves
from alignzoo.engine.train.sources import (
    Buffer,
    Source,
    check_gap,
)
from alignzoo.engine.train.step import GAP, REDONE, NotFiniteError, Stepper, evaluate_loss
from alignzoo.engine.train.teachers import known_states
from alignzoo.engine.train.world import BufferWorld


def train(job: Job) -> dict[str, PreTrainedModel]:
    """Train; returns the trainable roles, on rank 0. Resumes from `folder/state` if there is one.

    Raises Interrupted after saving when SIGINT or SIGTERM arrives, TrainingError when a metric
    stops being finite, DataError when the ranks hold other data.
    """
    job.clock.lap()  # what was before is not the stage's training
    check_alike(job)
    with job.ranks.attention():
        with job.clock.during(phases.SNAPSHOTS):
            stored, known = stored_snapshots(job), known_states(job)
        module = module_of(job, known)
        for text in words.frozen({role: module.by_role[role] for role in sorted(job.trainable)}):
            job.rails.say(text)
        layout = build_layout(job.ranks, module, job.optim, job.strategy)
        with interrupts() as asked:
            loop = _Loop(job, layout, buffers_of(job, layout, stored), stored, asked)
            loop.run()
        found = {role: layout.result(role) for role in layout.trained}
        return {role: model for role, model in found.items() if model is not None}


class _Loop:
    """The state of one training run; everything that changes is on this object."""

    def __init__(
        self,
        job: Job,
        layout: Layout,
        source: Source,
        stored: Mapping[str, snapshots.Stored],
        asked: Asked,
    ) -> None:
        self.job, self.layout, self.source, self.asked = job, layout, source, asked
        balance, off = balance_of(job.algorithm, layout.scoring, job.optim.aux_loss)
        if off:
            job.rails.say(off)
        self.stepper = Stepper(job.algorithm, layout, job.optim, job.ranks, balance, job.clock)
        self.held_out = self._held_out(stored)
        self.state = dict(job.algorithm.init_state())
        self.cursor = Cursor()
        self.saves = Saves(job.optim.save_every)
        self.times = phases.Times(job.folder / "timing.jsonl", job.ranks.is_main)
        same = rails.same_start(job.algorithm, job.digests)
        self.watch = rails.Watch(job.algorithm, same, job.rails)
        self.gallery = Gallery(job.examples, layout, job.seed, job.folder / FILE, job.say)
        self.total = source.steps
        if job.optim.steps is not None:
            self.total = min(self.total, job.optim.steps)

    def run(self) -> None:
        """Train to the end, or raise; checkpoints are taken between buffers and at the end."""
        self._resume()
        if not self.cursor.step:
            self._show()
        self.times.note({"work": "start", **self.job.clock.lap()})
        try:
            while not self._is_over():
                with self.job.clock.during(phases.DATA):
                    buffer = self._buffer()
                self._train_on(buffer)
                self.cursor = replace(self.cursor, buffer=self.cursor.buffer + 1)
                self._follow(self.cursor.buffer, buffers=True)
                signal, due = self._decided()
                if signal or due:
                    self._save()
                if signal:
                    raise Interrupted(signal)
        finally:
            self.source.close()
        if self.saves.step != self.cursor.step:
            self._save()  # a kill while the model is written must not cost the training
        self._restore_best()
        self.times.note({"work": "end", **self.job.clock.lap()})
        self.times.close(self.job.say)

    def _buffer(self) -> Buffer:
        """The next one. Whoever stops while judges are asked stops on all ranks: work is kept."""
        try:
            return self.source.buffer(self.cursor.buffer)
        except (Interrupted, JudgeError):
            if self.cursor.step and self.saves.step != self.cursor.step:
                self._save()
            raise

    def _is_over(self) -> bool:
        """After the last step, or a validation that patience waited for in vain."""
        step, validation = self.cursor.step, self.job.validation
        early = validation is not None and validation.is_over(step, self.cursor.best_step)
        return early or step >= self.total

    def _decided(self) -> tuple[int, bool]:
        """(the signal that any rank got, whether rank 0's clock says to save), alike on all ranks:
        they must leave the loop, or write, at the same buffer.
        """
        due = self.job.ranks.is_main and self.saves.due(self.cursor.step)
        mine = torch.tensor([float(self.asked.number), float(due)])
        number, is_due = self.job.ranks.max(mine).tolist()
        return int(number), bool(is_due)

    def _train_on(self, buffer: Buffer) -> None:
        """All updates on one buffer."""
        job = self.job
        given, known = self._ready(buffer)
        compare = dict(buffer.compare)
        updates = list(self._updates(buffer))
        for number, share_of_update in enumerate(updates):
            if self._is_over():
                if self.cursor.step >= self.total:
                    job.rails.say(words.left_over(number, len(updates)))
                return
            # An idle rank lends an item: its forwards must match those of the others.
            items = share_of_update if len(share_of_update) else torch.zeros(1, dtype=torch.int64)
            ranks = job.ranks.resting(not len(share_of_update))
            stepper = replace(self.stepper, ranks=ranks).decided(
                self.cursor.ahead, buffer.batch, given, items, self.state
            )
            self.cursor = replace(self.cursor, ahead=stepper.separable)
            seed_step(ranks.device.type, job.seed, self.cursor.step)
            share = rate(job.optim, self.cursor.step, self.total)
            set_rate(self.layout.optimizer, share)
            tokens = int(buffer.batch.attention[buffer.batch.rows(items)].sum()) * ranks.size
            try:
                metrics = stepper(buffer.batch, given, items, self.state, compare)
            except NotFiniteError as error:
                mark = f"-rank{job.ranks.rank}" if job.ranks.size > 1 else ""
                file = job.folder / f"offending_batch{mark}.safetensors"
                faults.save_batch(buffer.batch, items, file)
                own = partial(faults.find, stepper, buffer, given, items, self.state)
                done, search = self.cursor.step, faults.everywhere(ranks, own, file)
                faults.refuse(error.metrics, done + 1, done, search, file)
            if job.rollout:
                check_gap(metrics.get(GAP, 0.0), job.rollout.max_gap)
            compare = {}
            metrics |= {"lr": share * job.optim.lr, **known}
            self._after_step(buffer, tokens, metrics)

    def _ready(self, buffer: Buffer) -> tuple[dict[str, Tensor], dict[str, float]]:
        """What is known of a buffer before its first update: signals, and figures to log."""
        ranks = self.job.ranks.resting(not len(buffer.positions))
        given = dict(buffer.given) | self._snapshots(buffer.batch)
        given |= self._prepared(buffer.batch, given, ranks, "buffer", self.cursor.buffer)
        known = {**buffer.metrics, **rails.drift(buffer.batch, given, ranks.means)}
        done = self.cursor.step
        search = faults.everywhere(ranks, partial(faults.odd_row, buffer, given))
        faults.refuse(known, done + 1, done, search)
        return given, known

    def _after_step(self, buffer: Buffer, tokens: int, metrics: dict[str, float]) -> None:
        self.state = dict(self.job.algorithm.next_state(self.state, dict(metrics)))
        self.cursor = replace(self.cursor, step=self.cursor.step + 1)
        if REDONE in metrics:  # on some rank: none of them tries again
            self.cursor = replace(self.cursor, ahead=False)
        self._follow(self.cursor.step, buffers=False)
        validation = self.job.validation
        at_end = self.cursor.step == self.total
        if validation and (at_end or self.cursor.step % validation.every == 0):
            with self.job.clock.during(phases.VALIDATION):
                metrics |= self._validate(validation)
            if not at_end and self._is_over():
                at_end = True
                self.job.rails.say(words.early(validation.patience, self.cursor, self.total))
        if at_end and self.job.rails.max_kl is not None and not self.job.on_policy:
            with self.job.clock.during(phases.SNAPSHOTS):
                metrics |= self._drift(buffer)
        self.watch.see(self.cursor.step, metrics)
        if self.job.ranks.is_main:
            append_row(self.job.folder / "metrics.jsonl", {"step": self.cursor.step, **metrics})
        spent = self.job.clock.lap()
        timing = {"seconds": spent["seconds"], "tokens_per_second": tokens / spent["seconds"]}
        self.times.note({"step": self.cursor.step, **timing, **spent})
        if self.job.ranks.is_main:
            self.job.on_step(self.cursor.step, self.total, metrics, timing)
        self._show()

    def _show(self) -> None:
        """Answers to a few prompts, where it is time for them."""
        with self.job.clock.during(phases.SAMPLING):
            self.gallery.show(self.cursor.step, self.total)

    def _follow(self, done: int, *, buffers: bool) -> None:
        """Move the roles whose turn it is."""
        for role, rule in turn_of(self.job.moving, done, buffers=buffers).items():
            self.layout.follow(role, rule.of, rule.mix)

    def _drift(self, buffer: Buffer) -> dict[str, float]:
        """KL to the frozen start on the last batch, measured once: cached references are gone."""
        job, signals = self.job, rails.drift_signals(self.job.algorithm)
        roles = {role for s in signals.values() for role in s.roles}
        known, device = self.layout.scoring.by_role, job.ranks.device
        there = {r: self.layout.plain(r, device) for r in sorted(roles) if r in known}
        models = job.models(sorted(roles), there)
        scorer = SCORERS[job.optim.scorer](job.optim.chunk(job.ranks.device.type))
        module = ScoringModule(models, job.trainable & roles, scorer).to(device)
        with job.ranks.autocast():
            rows = snapshots.score_buffer(module, buffer.batch, signals, job.optim.micro_batch_size)
        ranks = job.ranks.resting(not len(buffer.positions))
        found = rails.drift(buffer.batch, rows, ranks.means)
        step = self.cursor.step
        search = faults.everywhere(ranks, partial(faults.odd_row, buffer, rows))
        faults.refuse(found, step, step, search)
        return found

    def _snapshots(self, batch: Batch) -> dict[str, Tensor]:
        size = self.job.optim.micro_batch_size * batch.rows_per_item
        with self.job.clock.during(phases.SNAPSHOTS), self.job.ranks.autocast():
            return snapshots.score_buffer(
                self.layout.scoring, batch, self.job.scored[1], size, self.layout.forwards
            )

    def _prepared(
        self, batch: Batch, given: Mapping[str, Tensor], ranks: Ranks, *key: int | str
    ) -> dict[str, Tensor]:
        """`prepare` runs where the ranks can communicate, its results stay on CPU."""
        job, there = self.job, batch.to(ranks.device)
        moved = {name: x.to(ranks.device) for name, x in given.items()}
        world = BufferWorld(ranks, there, self.state, (job.seed, *key))
        prepared = prepared_by(job.algorithm, there, moved, world)
        clash = given.keys() & prepared.keys()
        if clash:
            raise TrainingError(f"`prepare` returns {sorted(clash)}, which exist already")
        return {name: x.cpu() for name, x in prepared.items()}

    def _updates(self, buffer: Buffer) -> Iterator[Tensor]:
        """The items of this rank in every update; a buffer of several is shuffled as a whole."""
        rollout, n = self.job.rollout, buffer.n_items
        every = torch.arange(len(buffer.positions))
        if rollout is None or self.job.cut.updates(n, rollout.epochs) == 1:
            yield every
            return
        here = torch.full((n,), -1).scatter(0, buffer.positions, every)
        for epoch in range(rollout.epochs):
            order = permutation(n, self.job.seed, "buffer", self.cursor.buffer, epoch)
            for part in self.job.cut.parts(order):
                mine = here[part]
                yield mine[mine >= 0]

    def _held_out(self, stored: Mapping[str, snapshots.Stored]) -> list[Buffer]:
        """Collated held-out batches; snapshots of frozen roles are made once, here."""
        if self.job.validation is None:
            return []
        items, ranks, found = self.job.validation.items, self.job.ranks, []
        kind = self.job.algorithm.batch
        known = {name: filed(s, items, kind) for name, s in stored.items()}
        # Even parts: every rank has items in each if it has any, and no part is a leftover.
        most = len(items) // max(ranks.size, self.job.cut.least)
        parts = max(1, min(-(-len(items) // self.job.optim.batch_size), most))
        for numbers in torch.arange(len(items)).tensor_split(parts):
            share = share_of_rank(torch.arange(len(numbers)), ranks.rank, ranks.size)
            mine = numbers[share] if len(share) else numbers[:1]
            some = [items[i] for i in mine.tolist()]
            batch = kind.collate(some, self.job.pad_id)
            given = {name: s.fill(mine, batch) for name, s in known.items()}
            place = partial(words.item, mine, "the validation data")
            found.append(Buffer(batch, len(numbers), share, given, place=place))
        return found

    def _validate(self, validation: Validation) -> dict[str, float]:
        buffers = []
        ranks = self.job.ranks.resting(self.job.ranks.rank >= len(validation.items))
        for held in self.held_out:
            given = {**held.given, **self._snapshots(held.batch)}
            given |= self._prepared(held.batch, given, ranks, "validation")
            buffers.append(replace(held, given=given))
        ready = [(x.batch, x.given) for x in buffers]
        metrics = evaluate_loss(replace(self.stepper, ranks=ranks), ready, self.state)
        self.layout.scoring.set_modes()
        step, search = self.cursor.step, partial(faults.find_in, self.stepper, buffers, self.state)
        faults.refuse(metrics, step, step, faults.everywhere(ranks, search))
        if validation.metric not in metrics:
            known = ", ".join(sorted(metrics))
            raise TrainingError(f"no validation metric '{validation.metric}'; there are: {known}")
        value = metrics[validation.metric]
        best = self.cursor.best
        if best is None or validation.sign * (value - best) > 0:
            self.cursor = replace(self.cursor, best=value, best_step=self.cursor.step)
            with self.job.clock.during(phases.CHECKPOINT):
                checkpoint.save_best(self.place, self.layout, self.cursor.step)
        self.job.rails.say(words.validated(validation.metric, value, self.cursor))
        return {f"validation/{name}": x for name, x in metrics.items()}

    def _restore_best(self) -> None:
        """With validation, the stage's result is the best checkpoint, not the last."""
        self.job.ranks.barrier()
        if self.job.validation is not None:
            self.job.rails.say(words.kept(self.job.validation.metric, self.cursor))
        if self.job.validation is not None and self.cursor.best_step != self.cursor.step:
            with self.job.clock.during(phases.CHECKPOINT):
                checkpoint.load_best(self.place, self.layout, self.cursor.best_step)

    @property
    def place(self) -> Path:
        """Where checkpoints are."""
        return self.job.folder / "state"

    def _save(self) -> None:
        started = time.monotonic()
        more = self.cursor.step < self.total
        with self.job.clock.during(phases.CHECKPOINT):
            checkpoint.save_checkpoint(self.place, self.layout, self.state, self.cursor, more)
            self.job.ranks.barrier()
        first, self.saves = self.saves.step is None, self.saves.saved(self.cursor.step, started)
        by_the_clock = self.saves.every is None and self.cursor.step < self.total
        if first and by_the_clock and self.job.ranks.is_main:
            self.job.say(self.saves.told())

    def _resume(self) -> None:
        """Go on from the newest checkpoint that is intact for every rank, else from the start."""
        found = self._intact()
        if found is not None:
            with self.job.clock.during(phases.CHECKPOINT):
                self.state, self.cursor = checkpoint.restore(found, self.layout)
            self.saves = self.saves.resumed(self.cursor.step)
            self.watch.recall(rows_until(self.job.folder / checkpoint.LOG, self.cursor.step))
        if self.job.ranks.is_main:
            keep_bytes(self.job.folder / checkpoint.LOG, found.log_bytes if found else 0)
            keep_until(self.times.file, self.cursor.step)
        self.gallery.resume(self.cursor.step if found else -1)

    def _intact(self) -> checkpoint.Checkpoint | None:
        ranks, say = self.job.ranks, self.job.say if self.job.ranks.is_main else _silent
        places = checkpoint.places(self.place)
        for place in places:
            found = checkpoint.read_checkpoint(place, say)
            if not ranks.max(torch.tensor(float(found is None))).item():
                return found
        if places:
            say("no checkpoint is intact: the stage begins anew")
        return None


def _silent(text: str) -> None:
    """What ranks other than the first say."""
