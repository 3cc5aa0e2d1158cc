"""Roles that do not learn and yet change: averages of a trained one, renewed references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignzoo.contract.errors import PluginError


@dataclass(frozen=True)
class Follow:
    """How an untrained role moves: after every `every` steps, w <- w + mix (w_of - w).

    With the defaults the role is the trained one at every moment, without gradient, and shares its
    memory; `like` must name it then, and no recipe can bind another model. Else it has weights of
    its own, in float32, that start as those of any role do. The change comes after an optimiser
    step, before validation, and is the same on any number of processes.
    """

    of: str
    mix: float = 1.0  # 1 copies
    every: int = 1  # optimiser steps
    buffers: bool = False  # `every` counts buffers: all updates on what was sampled together

    @property
    def shares(self) -> bool:
        """Whether the weights never differ."""
        return self.mix == 1 and self.every == 1 and not self.buffers

    @property
    def told(self) -> str:
        """In words."""
        if self.shares:
            return f"is {self.of} at every moment"
        unit = "buffer" if self.buffers else "step"
        often = f"after every {unit}" if self.every == 1 else f"every {self.every} {unit}s"
        return f"takes on {self.mix:g} of {self.of} {often}"


def moving_of(algorithm: Any) -> Mapping[str, Follow]:
    """Which roles of a method follow which; PluginError for what cannot be."""
    found: Mapping[str, Follow] = algorithm.moving()
    for role, rule in found.items():
        what = _wrong(role, rule, algorithm.roles)
        if what:
            raise PluginError(f"algorithm '{algorithm.name}', `moving`: role '{role}' {what}")
    return found


def anchors(algorithm: Any) -> list[str]:
    """Frozen language models that start where another role does, stay there, and read the same."""
    roles, moving = algorithm.roles, moving_of(algorithm)
    return [
        name
        for name, role in roles.items()
        if role.like and not role.trainable and name not in moving and not role.sees
        if role.head == roles[role.like].head == "lm"
    ]


def _wrong(role: str, rule: Follow, roles: Mapping[str, Any]) -> str:
    """What is wrong with a rule, in words; empty for nothing."""
    if role not in roles:
        return "is not declared in `roles`"
    if roles[role].trainable:
        return "learns, so it cannot follow another"
    if rule.of not in roles or not roles[rule.of].trainable:
        return f"follows '{rule.of}', which is no role that learns"
    return _unfit(rule, roles[role], roles[rule.of])


def _unfit(rule: Follow, own: Any, of: Any) -> str:
    if of.head != own.head:
        return f"has another head than '{rule.of}', which it follows"
    if not 0 < rule.mix <= 1 or rule.every < 1:
        return f"follows by mix {rule.mix:g} every {rule.every}; 0 < mix <= 1, and every >= 1"
    if rule.shares and own.like != rule.of:
        return f"is '{rule.of}' at every moment, so declare like='{rule.of}'"
    return ""
