"""DPO with the hinge loss of SLiC, arXiv:2305.10425."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from alignzoo_dpo.algorithm import DPO


@dataclass(frozen=True)
class HingeDPO(DPO):
    """L = max(0, 1 - beta D), mean over pairs, D as in DPO: no gradient beyond the margin.

    Source: the calibration loss of SLiC-HF, arXiv:2305.10425, with margin 1 and on the log-ratios
    of DPO, as in arXiv:2309.06657. `label_smoothing` has no meaning here and changes nothing.
    """

    name = "hinge_dpo"

    def at_start(self) -> Mapping[str, float]:
        """Without a preference the whole margin lacks."""
        return {**super().at_start(), "loss": 1.0}

    def pair_loss(self, delta: torch.Tensor) -> torch.Tensor:
        """[I] what D [I] lacks to the margin 1 / beta, in units of it."""
        return (1 - self.beta * delta).clamp(min=0)
