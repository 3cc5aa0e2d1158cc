"""The load-balancing loss of routers beside a method's own loss, where the recipe asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import TrainingError
from alignzoo.contract.types import Batch, Loss, Signals, Term
from alignzoo.engine.scoring.scorer import ROUTER, ScoringModule, read_rows

OWN = "method"  # what the only, unnamed term of a method is called beside a router's


@dataclass(frozen=True)
class Balance:
    """L = L_method + sum over roles of c * mean over tokens of the router's loss.

    The router's loss is that of the forward pass a token was in, padding left out: it is not linear
    in tokens, so its mean depends on how micro-batches and ranks cut a batch, as it does elsewhere.
    """

    coefficients: Mapping[str, float] = field(default_factory=dict)  # role -> c

    @property
    def roles(self) -> frozenset[str]:
        """Whose routers are balanced."""
        return frozenset(self.coefficients)

    @property
    def names(self) -> Mapping[str, str]:
        """Term -> its role."""
        alone = len(self.coefficients) == 1
        return {"router" if alone else f"router/{role}": role for role in self.coefficients}

    def add(self, algorithm: Algorithm[Any], loss: Loss, batch: Batch, signals: Signals) -> Loss:
        """A method's loss with the routers' terms; itself when there are none."""
        if not self.coefficients:
            return loss
        own = {OWN if name == "loss" else name: term for name, term in loss.named.items()}
        return Loss({**own, **self._terms(algorithm, batch, signals)}, loss.metrics)

    def _terms(
        self, algorithm: Algorithm[Any], batch: Batch, signals: Signals
    ) -> Mapping[str, Term]:
        found = {}
        for name, role in self.names.items():
            counted = batch.attention & read_rows(batch, algorithm.signals(), role)[:, None]
            found[name] = Term(signals[ROUTER + role], counted, self.coefficients[role])
        return found


def balance_of(
    algorithm: Algorithm[Any], module: ScoringModule, asked: bool
) -> tuple[Balance, str]:
    """What to add, and a sentence when there is something that is not added.

    Raises TrainingError when it is asked for and no model that learns has a router.
    """
    kinds = algorithm.roles
    roles = [r for r in sorted(module.trainable) if kinds[r].head == "lm" and r in module.routers]
    found = {role: module.routers[role].coefficient for role in roles}
    if asked and not found:
        raise TrainingError(
            "train.aux_loss: true, but no model that learns has a router whose loss transformers "
            "knows; remove it"
        )
    if asked or not found:
        return Balance(found), ""
    listed = ", ".join(f"{c:g}" for c in found.values())
    return Balance(), (
        f"the load-balancing loss of the router (coefficient {listed} in its config) is off; "
        "train.aux_loss: true adds it"
    )
