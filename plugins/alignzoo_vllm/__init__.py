"""Rollouts from vLLM: a server of its own, started beside the trainer or reached at an address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo import hookimpl
from alignzoo_vllm.engine import VLLM

if TYPE_CHECKING:
    from alignzoo import RolloutEngine


@hookimpl
def register_rollout_engines() -> list[type[RolloutEngine]]:
    """One engine, which needs no vLLM in the trainer's own environment."""
    return [VLLM]
