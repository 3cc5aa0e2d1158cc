"""The rows of AlignDistil and the gradient of its KL by formula, a few positions at a time.

With q = softmax(z*/T) and p = softmax(z/T): KL = E_p log(p/q), d KL / d z = p (log(p/q) - KL) / T.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from alignzoo import Outputs, Scratch, ops

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class How:
    """The options that the rows depend on."""

    alpha: Callable[[Tensor], Tensor]  # TVD [b] -> weight [b]
    beta0: float
    contrastive: bool  # the teacher reaches beyond the DPO model; else from the anchor
    temperature: float


def derived(
    how: How, labels: Tensor, scratch: Scratch, wanted: Collection[str]
) -> tuple[dict[str, Tensor], Outputs]:
    """Rows [b], and the gradient [b, V] of the first."""
    logits = [scratch.logits(role) for role in ("policy", "teacher", "anchor")]
    if how.temperature == 1 and ops.kernels.serve(*logits):
        return _by_kernel(how, labels, scratch, wanted)
    rows = _seen(how, labels, scratch)
    t = how.temperature
    p, log_p = scratch.probs("policy", t), scratch.log_probs("policy", t)
    products = torch.sub(log_p, _target(how, rows["alpha"], scratch), out=scratch.empty("x", log_p))
    kl = ops.expected(p, products, products)
    rows = {"kl": kl, **rows}
    if "policy" not in wanted:
        return rows, {}
    gradient = ops.expected_gradient(p, products, kl, scratch.gradient("policy"))
    return rows, {"policy": gradient if t == 1 else gradient.div_(t)}


def _by_kernel(
    how: How, labels: Tensor, scratch: Scratch, wanted: Collection[str]
) -> tuple[dict[str, Tensor], Outputs]:
    p, dpo, anchor = (scratch.logits(role) for role in ("policy", "teacher", "anchor"))
    seen = ops.kernels.compare(p, dpo, anchor, labels)
    alpha = how.alpha(seen.total_variation)
    found = {"policy": scratch.rounded_gradient("policy")} if "policy" in wanted else {}
    beyond = alpha if how.contrastive else alpha - 1  # from the DPO model
    rows = {
        "kl": seen.kl_beyond(beyond, found.get("policy")),
        "tvd": seen.total_variation,
        "alpha": alpha,
        "beta_t": how.beta0 / alpha,
        "kl_dpo": seen.kl_to_first,
        "kl_anchor": seen.kl_to_second,
        "reward": how.beta0 * seen.ratio_of_label,
        "expected": how.beta0 * seen.expected_ratio,
    }
    return rows, found


def _seen(how: How, labels: Tensor, scratch: Scratch) -> dict[str, Tensor]:
    """The rows without gradient. log(dpo/anchor) [b, V] is left in "reward"."""
    p, student = scratch.probs("policy"), scratch.log_probs("policy")
    dpo, anchor = scratch.log_probs("teacher"), scratch.log_probs("anchor")
    x, reward = scratch.empty("x", dpo), scratch.empty("reward", dpo)
    tvd = 0.5 * ops.absolute_sum(scratch.probs("teacher"), scratch.probs("anchor"), x)
    alpha = how.alpha(tvd)
    torch.sub(dpo, anchor, out=reward)
    torch.sub(student, dpo, out=x)
    kl_dpo = ops.expected(p, x, x)
    torch.sub(student, anchor, out=x)
    return {
        "tvd": tvd,
        "alpha": alpha,
        "beta_t": how.beta0 / alpha,
        "kl_dpo": kl_dpo,
        "kl_anchor": ops.expected(p, x, x),
        "reward": how.beta0 * reward.gather(-1, labels[:, None]).squeeze(-1),
        "expected": how.beta0 * ops.expected(p, reward, x),
    }


def _target(how: How, alpha: Tensor, scratch: Scratch) -> Tensor:
    """[b, V] log softmax(z*/T) in the place of "reward"; the names in there are `_seen`'s."""
    start = scratch.log_probs("teacher" if how.contrastive else "anchor")
    reward = scratch.empty("reward", start)
    target = torch.addcmul(start, alpha[:, None], reward, out=reward)
    if how.temperature != 1:
        target.div_(how.temperature)
    return ops.normalised(target, scratch.empty("x", start))
