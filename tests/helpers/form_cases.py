"""Closed forms against autograd of the signals' own `reduce`, in whatever precision is asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from alignzoo_aligndistil import AlignDistil
from alignzoo_gkd import GKD
from alignzoo_gopd import GOPD, OPD2, NegativeAdvantage
from torch import Tensor

from alignzoo import Signal
from alignzoo.contract.closed import Scratch
from alignzoo.engine.scoring.forms import Forms, named
from alignzoo.ops import entropy, kl, log_prob, value, watched

Named = dict[str, Tensor]
Group = Mapping[str, Signal]

# Every form there is, each alone; the methods' in every option that their rows depend on.
ALONE: dict[str, Group] = {
    "log_prob": {"x": log_prob("policy")},
    "entropy": {"x": entropy("policy")},
    "value": {"x": value("policy")},
    "kl": {"x": kl("policy", "teacher")},
    "forward kl": {"x": kl("teacher", "policy")},
    "gopd": GOPD(reward_scale=0.3).signals(),
    "opd2": OPD2().signals(),
    "negative_advantage": NegativeAdvantage(below=0.15).signals(),
}
ALONE |= {
    f"gkd {divergence} {beta} {temperature}": GKD(
        divergence=divergence, beta=beta, temperature=temperature
    ).signals()
    for divergence, beta in (("forward", 0.5), ("reverse", 0.5), ("jsd", 0.5), ("jsd", 0.9))
    for temperature in (1.0, 0.7, 2.0)
}
ALONE |= {
    f"aligndistil {reward} {way} {tvd} {temperature} {cap}": AlignDistil(
        r=2.0,
        beta=0.05,
        reward=reward,
        extrapolation=way,
        tvd=tvd,
        temperature=temperature,
        alpha_max=cap,
    ).signals()
    for reward in ("contrastive", "vanilla")
    for way, tvd, cap in (
        ("adaptive", "half", None),
        ("adaptive", "half", 0.5),
        ("adaptive", "l1", None),
        ("constant", "half", None),
    )
    for temperature in (1.0, 0.7)
}
# Groups whose rows with gradient meet on one role, as in TDPO and REINFORCE.
TOGETHER: dict[str, Group] = {
    "tdpo": {"a": log_prob("policy"), "b": log_prob("teacher"), "c": kl("teacher", "policy")},
    "reinforce": {"a": log_prob("policy"), "b": log_prob("anchor"), "c": kl("policy", "teacher")},
    "watched": {"a": log_prob("policy"), "b": watched(kl("policy", "teacher"))},
    "many": {
        "a": log_prob("policy"),
        "b": entropy("policy"),
        "c": kl("policy", "teacher"),
        "d": kl("teacher", "policy"),
        "e": watched(entropy("policy")),
    },
}


@dataclass(frozen=True)
class Given:
    """Logits of each role [n, V], labels, and the roles that learn."""

    z: Named
    labels: Tensor
    live: Collection[str] = ("policy",)

    @classmethod
    def draw(
        cls, signals: Group, n: int = 9, width: int = 17, scale: float = 2.0, **more: object
    ) -> Given:
        """Random ones in float64; width 1 for a value."""
        chance = torch.Generator().manual_seed(n + width)
        roles = sorted({role for signal in signals.values() for role in signal.roles})
        if any(signal.key == "value" for signal in signals.values()):
            width = 1
        z = {r: torch.randn(n, width, generator=chance, dtype=torch.float64) for r in roles}
        labels = torch.randint(width, (n,), generator=chance)
        labels[0], labels[-1] = 0, width - 1
        return cls({r: scale * x for r, x in z.items()}, labels, **more)

    def copies(self) -> Named:
        return {role: x.clone() for role, x in self.z.items()}


@dataclass(frozen=True)
class Found:
    """Rows [n], and the gradient by the logits of every role that learns."""

    rows: Named
    gradients: Named

    def error(self, other: Found) -> float:
        """Largest difference, relative to the size of what is compared."""
        assert self.rows.keys() == other.rows.keys()
        assert self.gradients.keys() == other.gradients.keys() != set()
        pairs = [(x, other.rows[name]) for name, x in self.rows.items()]
        pairs += [(x, other.gradients[role]) for role, x in self.gradients.items()]
        return max(_error(*pair) for pair in pairs)


def _error(x: Tensor, y: Tensor) -> float:
    return ((x.double() - y.double()).abs().max() / y.double().abs().max().clamp(min=1)).item()


def by_autograd(signals: Group, given: Given, upstream: Named | None = None) -> Found:
    """What `reduce` and autograd say."""
    leaves = {r: x.clone().requires_grad_(r in given.live) for r, x in given.z.items()}
    rows: Named = {}
    for name, signal in signals.items():
        rows |= named(name, signal.reduce({r: leaves[r] for r in signal.roles}, given.labels))
    live = {name: x for name, x in rows.items() if x.requires_grad}
    up = upstream or {name: torch.ones_like(x) for name, x in live.items()}
    roles = [role for role in leaves if role in given.live]
    found = torch.autograd.grad(
        list(live.values()), [leaves[r] for r in roles], [up[name] for name in live]
    )
    return Found({n: x.detach() for n, x in rows.items()}, dict(zip(roles, found, strict=True)))


@torch.enable_grad()
def forms_of(signals: Group, given: Given) -> Forms:
    """As the engine makes them."""
    few = Given({r: x[:1] for r, x in given.z.items()}, given.labels[:1], given.live)
    leaves = {r: x.clone().requires_grad_(r in given.live) for r, x in few.z.items()}
    live: dict[str, bool] = {}
    for name, signal in signals.items():
        rows = named(name, signal.reduce({r: leaves[r] for r in signal.roles}, few.labels))
        live |= {row: x.requires_grad for row, x in rows.items()}
    found = Forms.of(signals, Scratch(), live, given.live)
    assert found is not None
    return found


@torch.no_grad()
def by_unit(signals: Group, given: Given) -> Found:
    """What the forms say when each role has one row with gradient."""
    z = given.copies()
    rows, row_of = forms_of(signals, given).unit(z, given.labels)
    return Found(rows, {role: z[role] for role in row_of})


@torch.no_grad()
def by_pull(signals: Group, given: Given, upstream: Named) -> Found:
    """What the forms say of known upstreams, after the rows were read of the same logits."""
    z, forms = given.copies(), forms_of(signals, given)
    rows = forms.rows(z, given.labels)
    forms.pull(z, given.labels, upstream)
    return Found(rows, {role: z[role] for role in forms.live})
