"""Rollouts from vLLM: a server of its own, started beside the trainer or reached at an address."""

from __future__ import annotations

from alignzoo import RolloutEngine, hookimpl
from alignzoo_vllm.engine import VLLM


@hookimpl
def register_rollout_engines() -> list[type[RolloutEngine]]:
    """One engine, which needs no vLLM in the trainer's own environment."""
    return [VLLM]
