"""What a method must leave alone: the batch and the signals it is shown, and its own weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import PluginError, place_of
from alignzoo.contract.types import Batch, Loss, Signals, State


def guarded_loss(algorithm: Algorithm[Any], batch: Batch, signals: Signals, state: State) -> Loss:
    """`algorithm.loss`; PluginError when it changed what it was given."""
    seen = _Seen.of(batch, signals, state)
    loss = algorithm.loss(batch, signals, state)
    seen.check(algorithm, algorithm.loss)
    return loss


def prepared_by(
    algorithm: Algorithm[Any], batch: Batch, signals: Signals, world: Any
) -> dict[str, Tensor]:
    """`algorithm.prepare`; PluginError when it changed what it was given."""
    if type(algorithm).prepare is Algorithm.prepare:
        return {}
    seen = _Seen.of(batch, signals, world.state)
    prepared = dict(algorithm.prepare(batch, signals, world))
    seen.check(algorithm, algorithm.prepare)
    return prepared


@dataclass(frozen=True)
class _Seen:
    """What a method is shown, and copies of it as it was before."""

    shown: Sequence[tuple[str, str, Tensor]]  # where, its name
    before: Sequence[Tensor]

    @classmethod
    def of(cls, batch: Batch, signals: Signals, state: State) -> _Seen:
        """The batch with its views, the signals that are known, the state."""
        shown = [("batch.%s", name, x) for name, x in batch.tensors.items()]
        for view, seen in batch.views.items():
            shown += [(f"batch.views['{view}'].%s", name, x) for name, x in seen.tensors.items()]
        known: Mapping[str, Tensor] = getattr(signals, "signals", signals)  # of stand-ins
        shown += [("signals['%s']", name, x) for name, x in known.items()]
        shown += [("state %s", name, x) for name, x in state.items()]
        with torch.no_grad():
            return cls(shown, [x.clone() for _, _, x in shown])

    def check(self, algorithm: Algorithm[Any], member: Callable[..., Any]) -> None:
        """Raise PluginError where something is no longer what it was."""
        pairs = zip(self.shown, self.before, strict=True)
        changed = [of % name for (of, name, x), old in pairs if not _same(x, old)]
        if changed:
            at = place_of(member)
            raise PluginError(
                f"algorithm '{algorithm.name}': `{member.__name__}` changes {', '.join(changed)} "
                f"in place{f' ({at})' if at else ''}; these belong to the engine, so make a new "
                "tensor"
            )


def _same(x: Tensor, before: Tensor) -> bool:
    """Equal, NaN included."""
    if x.shape != before.shape:
        return False
    if torch.equal(x, before):
        return True
    x = x.detach()
    return bool(((x == before) | (x.isnan() & before.isnan())).all())
