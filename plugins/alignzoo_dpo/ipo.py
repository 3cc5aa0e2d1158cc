"""Identity preference optimisation, arXiv:2310.12036."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from alignzoo_dpo.algorithm import DPO


@dataclass(frozen=True)
class IPO(DPO):
    """L = (D - 1 / (2 beta))^2, mean over pairs, D as in DPO with summed log-probabilities.

    Source: arXiv:2310.12036 Eq. 17. Deviation: its authors average log-probabilities over the
    length; the sum is what the AlignDistil code and OpenRLHF use.
    """

    name = "ipo"

    def at_start(self) -> Mapping[str, float]:
        """Without a preference the whole margin lacks."""
        return {**super().at_start(), "loss": (1 / (2 * self.beta)) ** 2}

    def pair_loss(self, delta: torch.Tensor) -> torch.Tensor:
        """[I] squared distance of D [I] from the margin."""
        return (delta - 1 / (2 * self.beta)) ** 2
