"""The promise of closed forms: the rows and gradients of `reduce`, whatever the blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.closed import Closed, Scratch
from alignzoo.contract.types import Rows, Signal
from alignzoo.testing.checks import Trial, require

TOLERANCE = 1e-9  # of float64 rows and gradients, relative to the largest of them
WIDTH = {"lm": 13, "scalar": 1}
POSITIONS = 7

Named = dict[str, Tensor]


def form_trials(algorithm: Algorithm[Any]) -> Iterator[tuple[str, Trial]]:
    """One promise, of a method with a signal that has a form."""
    signals = {**algorithm.signals(), **algorithm.snapshots()}
    closed = {name: signal for name, signal in signals.items() if signal.closed is not None}
    if closed:
        yield "closed forms give what reduce gives", lambda: _forms(algorithm, closed)


def _forms(algorithm: Algorithm[Any], signals: Mapping[str, Signal]) -> str:
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for name, signal in signals.items():
        shapes = {r: (POSITIONS, WIDTH[algorithm.roles[r].head]) for r in signal.roles}
        outputs = {
            role: 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
            for role, shape in shapes.items()
        }
        learning = {role for role in signal.roles if algorithm.roles[role].trainable}
        labels = torch.randint(13, (POSITIONS,), generator=generator)
        expected = _by_autograd(name, signal, outputs, labels, learning)
        for size in (1, 3, POSITIONS):
            found = _by_form(signal, outputs, labels, expected.keys() & learning, size)
            worst = max(worst, _distance(name, expected, found))
    return f"{len(signals)} signals, largest difference {worst:.1e}"


def _by_autograd(
    name: str, signal: Signal, outputs: Named, labels: Tensor, learning: set[str]
) -> Named:
    """Every row of `reduce` [n], and the gradient [n, V] of the live one under its role's name."""
    leaves = {r: x.clone().requires_grad_(r in learning) for r, x in outputs.items()}
    rows = _named(signal.reduce(leaves, labels))
    live = [row for row, x in rows.items() if x.requires_grad]
    require(
        len(live) <= 1,
        f"rows {' and '.join(live)} of '{name}' have gradients, so its closed form is never used; "
        "give each a signal of its own",
    )
    found = {f"row {row}".strip(): x.detach() for row, x in rows.items()}
    if live:
        roles = [role for role in leaves if role in learning]
        grads = torch.autograd.grad(
            rows[live[0]].sum(), [leaves[r] for r in roles], allow_unused=True
        )
        found |= {r: g for r, g in zip(roles, grads, strict=True) if g is not None}
    return found


@torch.no_grad()
def _by_form(signal: Signal, outputs: Named, labels: Tensor, wanted: set[str], size: int) -> Named:
    """The same in blocks; logits are spoilt after each, as the engine does."""
    closed, scratch = signal.closed, Scratch()
    assert closed is not None
    parts: list[Named] = []
    for start in range(0, POSITIONS, size):
        at = slice(start, start + size)
        block = {role: x[at].clone() for role, x in outputs.items()}
        parts.append(_block(closed, block, labels[at], scratch, wanted))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _block(
    closed: Closed, block: Named, labels: Tensor, scratch: Scratch, wanted: set[str]
) -> Named:
    scratch.begin(block)
    rows, gradients = closed(block, labels, scratch, wanted)
    made = {role: x.clone() for role, x in gradients.items()}
    for logits in block.values():
        logits.fill_(torch.nan)
    return {f"row {row}".strip(): x for row, x in _named(rows).items()} | made


def _named(rows: Rows) -> Named:
    return {"": rows} if isinstance(rows, Tensor) else dict(rows)


def _distance(name: str, expected: Named, found: Named) -> float:
    """The largest difference; a broken promise where it is large or something is missing."""
    odd = sorted(expected.keys() ^ found.keys())
    require(not odd, f"signal '{name}': only one of `reduce` and `closed` has {', '.join(odd)}")
    far = {key: _apart(x, found[key]) for key, x in expected.items()}
    key = max(far, key=lambda k: far[k])
    what = key if key.partition(" ")[0] == "row" else f"the gradient by the logits of '{key}'"
    require(far[key] <= TOLERANCE, f"signal '{name}': {what} differs by {far[key]:.3g}")
    return far[key]


def _apart(expected: Tensor, found: Tensor) -> float:
    if expected.shape != found.shape:
        return torch.inf
    size = max(1.0, expected.abs().max().item())
    return (expected - found).abs().nan_to_num(torch.inf).max().item() / size
