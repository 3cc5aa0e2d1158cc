"""DPO whose reference follows the policy, arXiv:2404.09656."""

from collections.abc import Mapping
from dataclasses import dataclass

from alignzoo import Follow, Role, option
from alignzoo_dpo.algorithm import DPO


@dataclass(frozen=True)
class TRDPO(DPO):
    """L = -log sigmoid(beta D), mean over pairs, and w_ref <- w_ref + alpha (w_pi - w_ref).

    D as in DPO, against the reference of the moment, which moves every `tau` optimiser steps.
    Source: TR-DPO, arXiv:2404.09656: the soft update is alpha < 1 with tau 1, the hard one alpha 1
    with tau > 1. Deviation: both may be set together. With alpha 1 and tau 1 the reference is the
    policy, D is 0, and the loss stays at log 2. `label_smoothing` is that of DPO.
    """

    name = "tr_dpo"
    roles = {
        **DPO.roles,
        "reference": Role(like="policy", doc="follows the policy from where it starts"),
    }

    alpha: float = option(0.6, "share of the policy that the reference takes on", gt=0, le=1)
    tau: int = option(1, "optimiser steps between two moves of the reference", ge=1)

    def moving(self) -> Mapping[str, Follow]:
        """The reference follows the policy."""
        return {"reference": Follow("policy", mix=self.alpha, every=self.tau)}
