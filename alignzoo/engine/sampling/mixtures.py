"""Distributions that mix the policy with frozen roles, token by token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from alignzoo.contract.types import Signal
from alignzoo.engine.sampling.decoder import Decoder


@dataclass(frozen=True)
class Mixture:
    """p(token) = sum_k w_k p_k(token), at every position anew.

    MiniLLM's teacher-mixed sampling (Gu et al. 2023, arXiv:2306.08543, section 2.2) with
    {teacher: alpha, policy: 1 - alpha}.
    """

    weights: Mapping[str, float]  # role -> its weight; together 1

    def logits(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Logits [n, V] of the mixture from those of the roles, each [n, V]."""
        if len(self.weights) == 1:
            return outputs[next(iter(self.weights))]
        return self._mixed({role: outputs[role].log_softmax(-1) for role in self.weights})

    def _mixed(self, log_p: Mapping[str, Tensor]) -> Tensor:
        return reduce(torch.logaddexp, (log_p[r] + math.log(w) for r, w in self.weights.items()))

    def log_prob(self) -> Signal:
        """[n] log p(label) under the mixture: what a sampled token's log-prob is."""

        def of_labels(outputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
            log_p = self.logits(outputs).log_softmax(-1)
            return log_p.gather(-1, labels[:, None])[:, 0]

        return Signal(tuple(self.weights), of_labels)


class GeometricMixture(Mixture):
    """p(token) proportional to prod_k p_k(token)^w_k, at every position anew.

    Nash-MD's (Munos et al. 2023, arXiv:2312.00886) with {policy: 1 - b, reference: b}.
    """

    def _mixed(self, log_p: Mapping[str, Tensor]) -> Tensor:
        return sum((w * log_p[r] for r, w in self.weights.items()), torch.zeros(()))


@dataclass(frozen=True)
class MixedDecoder:
    """The models of a mixture side by side; all of them read every token."""

    mixture: Mixture
    decoders: Mapping[str, Decoder]

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Logits [B, V] behind the prompts."""
        return self.mixture.logits({r: d.begin(prompts) for r, d in self.decoders.items()})

    def take(self, rows: Tensor) -> None:
        """Only these rows."""
        for decoder in self.decoders.values():
            decoder.take(rows)

    def next(self, tokens: Tensor) -> Tensor:
        """Logits [L, V] behind the tokens [L]."""
        return self.mixture.logits({r: d.next(tokens) for r, d in self.decoders.items()})

    def pays(self, done: int, rows: int) -> bool:
        """Whether so many finished ones of the rows are worth a `take` of the others."""
        return all(decoder.pays(done, rows) for decoder in self.decoders.values())

    @property
    def room(self) -> int | None:
        """Steps after a `take` that all of them may replay."""
        rooms = [decoder.room for decoder in self.decoders.values()]
        known = [room for room in rooms if room is not None]
        return min(known) if len(known) == len(rooms) else None
