"""Roles that follow one that learns: whose turn it is, and whether they can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import TrainingError
from alignzoo.contract.moving import Follow, moving_of
from alignzoo.contract.views import seen_by
from alignzoo.engine.models.adapters import plain_weights
from alignzoo.engine.scoring.scorer import Special


def special_of(algorithm: Algorithm[Any]) -> Special:
    """What the scoring module must know of a method's roles."""
    moving = moving_of(algorithm)
    shared = {role: rule.of for role, rule in moving.items() if rule.shares}
    return Special(shared, sorted(copies(moving)), seen_by(algorithm))


def copies(moving: Mapping[str, Follow]) -> dict[str, Follow]:
    """The roles that have weights of their own."""
    return {role: rule for role, rule in moving.items() if not rule.shares}


def turn_of(moving: Mapping[str, Follow], done: int, *, buffers: bool) -> dict[str, Follow]:
    """The roles that move after so many optimiser steps, or buffers."""
    return {
        role: rule
        for role, rule in copies(moving).items()
        if rule.buffers == buffers and done % rule.every == 0
    }


def check_alike(models: Mapping[str, PreTrainedModel], moving: Mapping[str, Follow]) -> None:
    """Raise TrainingError unless every copy has the weights that it is to take over."""
    for role, rule in copies(moving).items():
        own, of = _shapes(models[role]), _shapes(models[rule.of])
        odd = sorted(own.items() ^ of.items())
        if odd:
            raise TrainingError(
                f"role '{role}' follows '{rule.of}', but {odd[0][0]} is not alike in both; start "
                "both from models of one architecture"
            )


def _shapes(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    """Of every parameter, as it is without an adapter."""
    plain = plain_weights(model, model.named_parameters())
    return {name: tuple(x.shape) for name, x in plain}
