"""What is found out about signals before they are read: which rows learn, and by which way."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from alignzoo.contract.closed import Scratch
from alignzoo.contract.errors import PluginError
from alignzoo.engine.scoring.forming import ByFormula, Form, Generic, on_few
from alignzoo.engine.scoring.forms import Forms
from alignzoo.engine.scoring.rows import Named

NEAR = 1e-6  # of float64 numbers that two ways give, absolute and relative


@dataclass(frozen=True)
class Nature:
    """The rows of some signals, and how they are made."""

    learning: Mapping[str, bool]  # row -> whether a gradient goes through it
    generic: Generic
    form: Form

    @property
    def names(self) -> tuple[str, ...]:
        """Every row."""
        return tuple(self.learning)

    @property
    def learn(self) -> tuple[str, ...]:
        """Rows with a gradient."""
        return tuple(name for name, learns in self.learning.items() if learns)


def form_of(
    generic: Generic,
    learning: Mapping[str, bool],
    scratch: Scratch | None,
    rounded: Collection[str] = (),
) -> Form:
    """By formula where every signal with a gradient has one and no head caps its logits.

    Gradients of roles in `rounded` are next multiplied in bfloat16.
    """
    if scratch is None or any(head.transform.cap is not None for head in generic.heads.values()):
        return generic
    forms = Forms.of(generic.signals, scratch, learning, generic.live, rounded)
    return generic if forms is None else ByFormula(forms)


def check_form(form: Form, generic: Generic, z: Named, labels: Tensor) -> None:
    """Raise PluginError where formulas give other rows or gradients than `reduce`.

    They are tried on the logits [n, V] of some position in float64, where both are exact, with
    noise of each role's own: at the first step a policy is its reference, a divergence 0.
    """
    learn = [name for name, learns in generic.learning(labels).items() if learns]

    def compare(z: Named, labels: Tensor) -> None:
        source = torch.Generator().manual_seed(0)
        noise = {role: torch.randn(x.shape, generator=source).double() for role, x in z.items()}
        wide = {role: x.double() + noise[role].to(x.device) for role, x in z.items()}
        _compare(_seen(generic, wide, labels, learn), _seen(form, wide, labels, learn), generic)

    on_few(compare, z, labels)


def _seen(form: Form, z: Named, labels: Tensor, learn: list[str]) -> Named:
    """Rows, and gradients by role, for an upstream that differs from row to row."""
    own = {role: x.clone() for role, x in z.items()}
    if not learn:
        return form.rows(own, labels)
    upstream = {n: labels.new_full(labels.shape, k + 1).double() for k, n in enumerate(learn)}
    rows, gradient = form.both(own, labels, lambda _: upstream)
    times = {r: dz if u is None else dz * u[:, None] for r, (dz, u) in gradient.items()}
    return {name: x.clone() for name, x in rows.items()} | {f"d {r}": x for r, x in times.items()}


def _compare(right: Named, found: Named, generic: Generic) -> None:
    signals = ", ".join(f"'{name}'" for name in generic.signals)
    if right.keys() != found.keys():
        odd = sorted(right.keys() ^ found.keys())
        raise PluginError(f"signal {signals}: `closed` and `reduce` differ in having {odd[0]}")
    for name, x in right.items():
        other = found[name]
        close = other.isclose(x, rtol=NEAR, atol=NEAR, equal_nan=True) | ~other.isfinite()
        if not bool(close.all()):
            far = (other - x).abs().max().item()
            raise PluginError(
                f"signal {signals}: {name} by the closed form differs from that of `reduce` by "
                f"{far:.3g}; mend the form, or leave `closed` out"
            )
