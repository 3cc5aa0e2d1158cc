"""Other prompts before the same answers, for roles that know more than the one that learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alignzoo.contract.errors import PluginError
from alignzoo.contract.types import LabelledBatch, Response, Sample


@dataclass(frozen=True)
class Case:
    """What is known of an answer when the prompt of a view is asked for."""

    sample: Sample  # of the data; of a sampled answer its prompt alone, with the row's `meta`
    answer: int = 0  # its number: of a pair 0 is the chosen one, of samples the order of sampling
    sampled: tuple[Response, ...] = ()  # all answers of the policy to the prompt, where it samples
    scores: tuple[float, ...] = ()  # what each of them earned


def seen_by(algorithm: Any) -> dict[str, str]:
    """Role -> the view that it reads; PluginError for what cannot be."""
    found = {name: role.sees for name, role in algorithm.roles.items() if role.sees}
    for role in found:
        if algorithm.roles[role].trainable:
            raise PluginError(
                f"algorithm '{algorithm.name}': role '{role}' learns, and `sees` is for roles that "
                "do not; a role that learns reads the prompt itself"
            )
    if found and issubclass(algorithm.batch, LabelledBatch):
        raise PluginError(
            f"algorithm '{algorithm.name}': a {algorithm.batch.__name__} holds answers to other "
            "prompts, of which there are no views; take another batch"
        )
    return found
