"""Promises of what only some methods use: groups of answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.types import Batch, GroupBatch
from alignzoo.testing.checks import Trial, require
from alignzoo.testing.toys import gradients

TOLERANCE = 1e-9  # of float64 losses and gradients


def extra_trials(algorithm: Algorithm[Any], batch: Batch) -> Iterator[tuple[str, Trial]]:
    """The promises that apply, and how each is tried."""
    if isinstance(batch, GroupBatch):
        yield "the order of a group's answers changes nothing", lambda: _order(algorithm, batch)


def _order(algorithm: Algorithm[Any], batch: GroupBatch) -> str:
    rows = torch.arange(len(batch.ids)).view(batch.rows_per_item, -1).roll(1, 0).flatten()
    own = {f.name: getattr(batch, f.name) for f in fields(batch)}
    turned = replace(batch, **{n: x[rows] if len(x) == len(rows) else x for n, x in own.items()})
    distance = gradients(algorithm, batch).distance(gradients(algorithm, turned))
    remedy = "`batch.by_group` puts the answers to one prompt side by side"
    require(distance <= TOLERANCE, f"loss or gradient differs by {distance:.3g}; {remedy}")
    return f"largest difference {distance:.1e}"
