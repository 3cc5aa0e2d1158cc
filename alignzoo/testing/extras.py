"""Promises of what only some methods use: groups of answers, roles that move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.moving import moving_of
from alignzoo.contract.types import Batch, GroupBatch
from alignzoo.testing.checks import Trial, require
from alignzoo.testing.toys import gradients

TOLERANCE = 1e-9  # of float64 losses and gradients


def extra_trials(algorithm: Algorithm[Any], batch: Batch) -> Iterator[tuple[str, Trial]]:
    """The promises that apply, and how each is tried."""
    if isinstance(batch, GroupBatch):
        yield "the order of a group's answers changes nothing", lambda: _order(algorithm, batch)
    if type(algorithm).moving is not Algorithm.moving:
        yield "roles that move follow one that learns", lambda: _followers(algorithm)


def _order(algorithm: Algorithm[Any], batch: GroupBatch) -> str:
    rows = torch.arange(len(batch.ids)).view(batch.rows_per_item, -1).roll(1, 0).flatten()
    own = {f.name: getattr(batch, f.name) for f in fields(batch)}
    turned = replace(batch, **{n: x[rows] if len(x) == len(rows) else x for n, x in own.items()})
    distance = gradients(algorithm, batch).distance(gradients(algorithm, turned))
    remedy = "`batch.by_group` puts the answers to one prompt side by side"
    require(distance <= TOLERANCE, f"loss or gradient differs by {distance:.3g}; {remedy}")
    return f"largest difference {distance:.1e}"


def _followers(algorithm: Algorithm[Any]) -> str:
    """Rules are sound, the same at every call, and of roles that some signal reads."""
    moving = moving_of(algorithm)
    require(moving == moving_of(algorithm), "`moving` gives other rules in a second call")
    every = {**algorithm.signals(), **algorithm.snapshots()}
    read = {role for signal in every.values() for role in signal.roles}
    idle = sorted(moving.keys() - read)
    require(not idle, f"no signal reads {', '.join(idle)}, so moving it changes nothing")
    return ", ".join(f"{role} {rule.told}" for role, rule in moving.items())
