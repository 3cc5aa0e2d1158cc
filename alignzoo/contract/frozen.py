"""Roles whose weights stay as they are, and what a method reads of them again in every epoch."""

from __future__ import annotations

from typing import Any

from alignzoo.contract.moving import moving_of
from alignzoo.contract.types import Signal


def changing_in(algorithm: Any) -> frozenset[str]:
    """Roles whose weights do not stay: those that learn, and those that follow them."""
    learn = {name for name, role in algorithm.roles.items() if role.trainable}
    return frozenset(learn | moving_of(algorithm).keys())


def is_cacheable(signal: Signal, changing: frozenset[str]) -> bool:
    """A known computation on models that stay as they are, at the default positions."""
    frozen = not changing.intersection(signal.roles)
    return signal.key is not None and frozen and signal.positions is None


def reread(algorithm: Any) -> list[str]:
    """Roles that stay as they are and yet are read in every epoch: no value per token is kept."""
    changing = changing_in(algorithm)
    again = [s for s in algorithm.snapshots().values() if not is_cacheable(s, changing)]
    again += algorithm.signals().values()
    return sorted({role for signal in again for role in signal.roles} - changing)
