"""Promises of what only some methods use: groups of answers, roles that move, views."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.groups import GroupBatch
from alignzoo.contract.moving import moving_of
from alignzoo.contract.types import (
    Batch,
    Message,
    PairBatch,
    PairSample,
    PromptSample,
    PromptText,
    Response,
    TextBatch,
    TextSample,
)
from alignzoo.contract.views import Case, seen_by
from alignzoo.data.views import Views
from alignzoo.testing.checks import Trial, require
from alignzoo.testing.toys import gradients

TOLERANCE = 1e-9  # of float64 losses and gradients


def extra_trials(algorithm: Algorithm[Any], batch: Batch) -> Iterator[tuple[str, Trial]]:
    """The promises that apply, and how each is tried."""
    if isinstance(batch, GroupBatch):
        yield "the order of a group's answers changes nothing", lambda: _order(algorithm, batch)
    if type(algorithm).moving is not Algorithm.moving:
        yield "roles that move follow one that learns", lambda: _followers(algorithm)
    if batch.views:
        yield "views are prompts, and follow from their case", lambda: _views(algorithm)


def _order(algorithm: Algorithm[Any], batch: GroupBatch) -> str:
    rows = torch.arange(len(batch.ids)).view(batch.rows_per_item, -1).roll(1, 0).flatten()
    own = {n: x[rows] if len(x) == len(rows) else x for n, x in batch.tensors.items()}
    views = {name: view.take(rows) for name, view in batch.views.items()}
    turned = replace(batch, views=views, **own)
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


def _views(algorithm: Algorithm[Any]) -> str:
    """Of texts and of chats, given and sampled: the same in a second call, the case untouched."""
    views = Views(tuple(sorted({*seen_by(algorithm).values()})), algorithm.view, algorithm.name)
    for case in _cases(algorithm):
        before = copy.deepcopy(case)
        for name in views.names:
            first, second = (views.sample(name, case, "a toy row").prompt for _ in range(2))
            require(first == second, f"the view '{name}' is another prompt in a second call")
            require(bool(first), f"the view '{name}' is an empty prompt")
        require(case == before, "`view` changes the case that it is shown")
    return ", ".join(views.names)


def _cases(algorithm: Algorithm[Any]) -> Iterator[Case]:
    """An answer of each kind, to a text and in a chat."""
    one, two = Response("Blue."), Response("Green, I think.")
    chat: tuple[Message, ...] = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Which colour?"},
    )
    prompts: tuple[PromptText, ...] = ("Which colour?", chat)
    for prompt in prompts:
        meta = dict(algorithm.example_meta)
        if issubclass(algorithm.batch, PairBatch):
            yield from (Case(PairSample(prompt, one, two, meta), k) for k in range(2))
        elif issubclass(algorithm.batch, TextBatch):
            yield Case(TextSample(prompt, one, meta))
        sample = PromptSample(prompt, meta)
        yield from (Case(sample, k, (one, two), (1.0, 0.5)) for k in range(2))
