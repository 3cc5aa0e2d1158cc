"""Identity preference optimisation, arXiv:2310.12036."""

from dataclasses import dataclass

from torch import Tensor

from alignzoo_dpo.algorithm import DPO


@dataclass(frozen=True)
class IPO(DPO):
    """L = (D - 1 / (2 beta))^2, mean over pairs, D as in DPO with summed log-probabilities.

    Source: arXiv:2310.12036 Eq. 17. Deviation: its authors average log-probabilities over the
    length; the sum is what the AlignDistil code and OpenRLHF use.
    """

    name = "ipo"

    def pair_loss(self, delta: Tensor) -> Tensor:
        """[I] squared distance of D [I] from the margin."""
        return (delta - 1 / (2 * self.beta)) ** 2
