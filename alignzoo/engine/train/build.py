"""What a stage trains on and with: its models in one module, and where its buffers come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from alignzoo.engine.layout.base import Layout
from alignzoo.engine.models.families import checkpoint_activations
from alignzoo.engine.scoring import snapshots
from alignzoo.engine.scoring.filed import filed
from alignzoo.engine.scoring.known import States
from alignzoo.engine.scoring.scorer import SCORERS, ScoringModule
from alignzoo.engine.train import words
from alignzoo.engine.train.cut import buffer_cut
from alignzoo.engine.train.job import Job
from alignzoo.engine.train.moving import check_alike
from alignzoo.engine.train.sources import OfflineSource, RolloutSource, Sampled, Source, schedule


def module_of(job: Job, known: Mapping[str, States] = MappingProxyType({})) -> ScoringModule:
    """Every model that stays loaded while a stage trains; of some the hidden states are known."""
    live = {**job.algorithm.signals(), **job.scored[1]}
    needed = {role for s in live.values() for role in s.roles} | job.changing
    if job.rollout:
        needed |= {"policy"} | job.rollout.mixed
    models = job.models(sorted(needed - job.special.shared.keys()))
    check_alike(models, job.moving)
    for role in job.special.moving:
        models[role].float()  # a small share of a difference is lost in half precision
    for text in words.shared(models):
        job.rails.say(text)
    if job.optim.gradient_checkpointing:
        for role in job.trainable:
            checkpoint_activations(models[role])
    scorer = SCORERS[job.optim.scorer](job.optim.chunk(job.ranks.device.type))
    return ScoringModule(models, job.trainable, scorer, replace(job.special, known=known))


def buffers_of(job: Job, layout: Layout, stored: Mapping[str, snapshots.Stored]) -> Source:
    """Given data, or what the policy samples."""
    optim, rollout = job.optim, job.rollout
    if rollout is None:
        if len(job.items) < optim.batch_size:
            job.rails.say(words.fewer(len(job.items), optim.batch_size))
        batches = schedule(len(job.items), job.cut, optim, job.seed)
        kind = job.algorithm.batch
        known = {name: filed(s, job.items, kind) for name, s in stored.items()}
        return OfflineSource(job.items, kind, batches, known, job.pad_id, job.ranks)
    each, n = rollout.items_per_prompt(job.kind), len(rollout.prompts)
    if n < rollout.prompts_per_buffer:
        job.rails.say(words.fewer_prompts(n, rollout.prompts_per_buffer))
    prompts = buffer_cut(job.cut, rollout.prompts_per_buffer, each)
    batches = schedule(
        n,
        prompts,
        optim,
        job.seed,
        lambda n: job.cut.updates(n * each, rollout.epochs),
    )
    sampled = Sampled.by(rollout, layout)
    if sampled.session.remark:
        job.rails.say(sampled.session.remark)
    return RolloutSource(
        rollout,
        job.kind,
        batches,
        job.cut,
        sampled,
        job.pad_id,
        job.seed,
        job.ranks,
        sorted(set(job.special.sees.values())),
        job.clock,
    )
