"""Closed forms of the signals of `ops`, and the parts that those of methods are built from.

All of them work on one block of logits [b, V] (`alignzoo.contract.closed`). Log-probabilities must
be finite: where a token is impossible the row is not finite, and the engine asks `reduce`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from alignzoo.closed import kernels
from alignzoo.contract.closed import Closed, Derived, Scaled, Scratch

if TYPE_CHECKING:
    from torch import Tensor

NONE: tuple[str, ...] = ()  # no role: rows alone


def expected(probs: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """[b] sum_v p(v) x(v); `out` [b, V] is left with the products, and may be x."""
    return torch.mul(probs, x, out=out).sum(-1)


def expected_gradient(probs: Tensor, products: Tensor, mean: Tensor, out: Tensor) -> Tensor:
    """[b, V] p (x - E_p x), from the products p x and their sum; `out` may be the products.

    It is d E_p x / d logits, also where x = a log p + c with c apart from the logits.
    """
    return torch.addcmul(products, probs, mean[:, None], value=-1, out=out)


def normalised(logits: Tensor, probs: Tensor) -> Tensor:
    """[b, V] log softmax(logits), in their place; `probs` is left with the softmax."""
    return Scaled(logits, probs).log_probs()


def absolute_sum(p: Tensor, q: Tensor, out: Tensor) -> Tensor:
    """[b] sum_v |p(v) - q(v)|; `out` [b, V] is left with the terms."""
    return torch.sub(p, q, out=out).abs_().sum(-1)


@dataclass(frozen=True)
class Between:
    """Divergences of two roles' distributions, each at softmax(logits / temperature)."""

    of: str
    to: str
    temperature: float = 1.0

    def kl(
        self, scratch: Scratch, wanted: Collection[str] = NONE
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """[b] KL(of || to) and its gradients [b, V]: p (log p/q - KL), and q - p."""
        if self.temperature == 1.0 and kernels.serve(*map(scratch.logits, (self.of, self.to))):
            return self._kl_by_kernel(scratch, wanted)
        t = self.temperature
        p, q = scratch.probs(self.of, t), scratch.probs(self.to, t)
        log_p, log_q = scratch.log_probs(self.of, t), scratch.log_probs(self.to, t)
        products = torch.sub(log_p, log_q, out=scratch.empty("ratio", log_p))
        row = expected(p, products, products)
        found = {}
        if self.of in wanted:
            place = scratch.gradient(self.of)
            found[self.of] = expected_gradient(p, products, row, place)
        if self.to in wanted:
            found[self.to] = torch.sub(q, p, out=scratch.gradient(self.to))
        return row, self._scaled(found)

    def _kl_by_kernel(
        self, scratch: Scratch, wanted: Collection[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        found = {x: scratch.rounded_gradient(x) for x in (self.of, self.to) if x in wanted}
        p, q = scratch.logits(self.of), scratch.logits(self.to)
        return kernels.kl(p, q, found.get(self.of), found.get(self.to)), found

    def jsd(
        self, beta: float, scratch: Scratch, wanted: Collection[str] = NONE
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """[b] beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q, of p = `of`.

        Its gradients [b, V] are beta p (log p/m - KL(p || m)), and the same of q.
        """
        t = self.temperature
        parts = ((self.of, beta), (self.to, 1 - beta))
        p, q = (scratch.probs(role, t) for role, _ in parts)
        mixture = torch.mul(p, beta, out=scratch.empty("mixture", p)).add_(q, alpha=1 - beta)
        mixture.clamp_(min=torch.finfo(p.dtype).tiny)  # where both are 0
        row, found = torch.zeros_like(p[:, 0]), {}
        for role, share in parts:
            p = scratch.probs(role, t)
            # Of p/m, because log p and log m would each be rounded as a whole.
            ratio = torch.div(p, mixture, out=scratch.empty("ratio", p))
            products = torch.xlogy(p, ratio, out=ratio)
            part = products.sum(-1)
            row += share * part
            if role in wanted:
                place = scratch.gradient(role)
                found[role] = expected_gradient(p, products, part, place).mul_(share)
        return row, self._scaled(found)

    def _scaled(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.temperature != 1.0:
            for gradient in found.values():
                gradient.div_(self.temperature)
        return found


# --- of the signals in `ops` -----------------------------------------------------------------


def log_prob(role: str) -> Closed:
    """Log p(label), whose gradient is [v = label] - p(v)."""

    def form(
        outputs: Mapping[str, Tensor], labels: Tensor, scratch: Scratch, wanted: Collection[str]
    ) -> Derived:
        if kernels.serve(scratch.logits(role)):
            place = scratch.rounded_gradient(role) if role in wanted else None
            row = kernels.log_prob(scratch.logits(role), labels, place)
            return row, {} if place is None else {role: place}
        row = scratch.label_log_prob(role, labels)
        if role not in wanted:
            return row, {}
        gradient = torch.neg(scratch.probs(role), out=scratch.gradient(role))
        at = labels[:, None]
        return row, {role: gradient.scatter_(1, at, gradient.gather(1, at) + 1)}

    return form


def entropy(role: str) -> Closed:
    """H = -E_p log p, whose gradient is -p (log p + H)."""

    def form(
        outputs: Mapping[str, Tensor], labels: Tensor, scratch: Scratch, wanted: Collection[str]
    ) -> Derived:
        p, log_p = scratch.probs(role), scratch.log_probs(role)
        products = scratch.empty("product", log_p)
        mean = expected(p, log_p, products)
        if role not in wanted:
            return -mean, {}
        place = scratch.gradient(role)
        return -mean, {role: expected_gradient(p, products, mean, place).neg_()}

    return form


def value(role: str) -> Closed:
    """The output itself, [b, 1]; a copy, because the gradient takes its place."""

    def form(
        outputs: Mapping[str, Tensor], labels: Tensor, scratch: Scratch, wanted: Collection[str]
    ) -> Derived:
        row = outputs[role].squeeze(-1).clone()
        return row, {role: scratch.gradient(role).fill_(1.0)} if role in wanted else {}

    return form


def kl(of: str, to: str) -> Closed | None:
    """KL(of || to) over the vocabulary; a role's distance from itself has no form."""

    def form(
        outputs: Mapping[str, Tensor], labels: Tensor, scratch: Scratch, wanted: Collection[str]
    ) -> Derived:
        return Between(of, to).kl(scratch, wanted)

    return None if of == to else form


def watched(closed: Closed) -> Closed:
    """The same rows without gradient."""

    def form(
        outputs: Mapping[str, Tensor], labels: Tensor, scratch: Scratch, wanted: Collection[str]
    ) -> Derived:
        return closed(outputs, labels, scratch, NONE)[0], {}

    return form
