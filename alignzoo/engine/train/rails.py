"""Safety rails of the loop: what a method says must hold at the start, and what must not drift."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import TrainingError
from alignzoo.contract.moving import anchors
from alignzoo.contract.types import Batch, Signal
from alignzoo.ops import kl, sequence_sum

if TYPE_CHECKING:
    from torch import Tensor

KL = "kl_full/"  # full-vocabulary KL(trained || frozen), summed over a response, in nats
AUX = "/aux_loss"  # after a term's name: its value before the coefficient
WINDOW = 10  # steps whose mean has to be healthy
SLACK = 1e-6  # float noise of quantities that cannot be negative


@dataclass(frozen=True)
class Rails:
    """The `rails:` block, resolved. A breach is said once, or stops the stage."""

    stop: bool = False
    max_kl: float | None = None
    max_truncated: float | None = None
    tolerance: float = 2e-3  # of identities at the start
    say: Callable[[str], None] = print


class Watch:
    """Looks at the metrics of every step; holds what has been said and the last few values.

    Every limit is broken by a value that is no number, too.
    """

    def __init__(self, algorithm: Algorithm[Any], same_start: bool, rails: Rails) -> None:
        self.algorithm, self.same_start, self.rails = algorithm, same_start, rails
        self.guarded = frozenset(drift_signals(algorithm))
        self.recent: dict[str, list[float]] = defaultdict(list)
        self.said: set[str] = set()

    def see(self, step: int, metrics: Mapping[str, float]) -> None:
        """Check one step; raises TrainingError on a breach when the policy is `stop`."""
        if step == 1 and self.same_start:
            self._identities(metrics)
        self._limits(metrics)
        for name, metric in self.algorithm.metrics.items():
            if name in metrics:
                values = (self.recent[name] + [metrics[name]])[-WINDOW:]
                self.recent[name] = values
                if len(values) == WINDOW:
                    self._range(name, sum(values) / WINDOW, metric.low, metric.high)

    def recall(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Take up what a run that is gone on with has seen; nothing is said or stopped again."""
        rails, self.rails = self.rails, replace(self.rails, stop=False, say=lambda text: None)
        for row in rows:
            self.see(int(row["step"]), row)
        self.rails = rails

    def _identities(self, metrics: Mapping[str, float]) -> None:
        known = self.algorithm.at_start().items()
        router = routers_share(metrics)  # not the method's own
        for name, expected in ((n, x) for n, x in known if n in metrics):  # over nothing: absent
            actual = metrics[name] - (router if name == "loss" else 0.0)
            if not abs(actual - expected) <= self.rails.tolerance * max(1.0, abs(expected)):
                self._breach(
                    name,
                    f"{name} is {actual:.6g} at the first step, but must be {expected:.6g} while "
                    "policy and reference are equal: the data, the masks or a model is not what "
                    "it seems",
                )

    def _limits(self, metrics: Mapping[str, float]) -> None:
        truncated, limit = metrics.get("rollout/truncated"), self.rails.max_truncated
        if truncated is not None and limit is not None and not truncated <= limit:
            self._breach(
                "rollout/truncated",
                f"{truncated:.0%} of the rollouts hit max_new_tokens (limit {limit:.0%}): the "
                "model does not stop; allow more tokens, or train it to end",
            )
        most = self.rails.max_kl
        for name, value in metrics.items():
            if name in self.guarded and most is not None and not value <= most:
                self._breach(
                    name,
                    f"{name} reached {value:.3g} nats per response (limit max_kl "
                    f"{most:g}): a model that drifted this far makes a bad teacher, "
                    "anchor or policy; lower the learning rate or raise beta",
                )

    def _range(self, name: str, value: float, low: float | None, high: float | None) -> None:
        if low is not None and not value >= low - SLACK:
            self._breach(name, f"{name} is {value:.4g} over {WINDOW} steps, healthy is >= {low:g}")
        if high is not None and not value <= high + SLACK:
            self._breach(name, f"{name} is {value:.4g} over {WINDOW} steps, healthy is <= {high:g}")

    def _breach(self, name: str, sentence: str) -> None:
        if self.rails.stop:
            raise TrainingError(f"{sentence} (rails.on_breach: stop)")
        if name not in self.said:
            self.said.add(name)
            self.rails.say(f"warning: {sentence}")


def routers_share(metrics: Mapping[str, float]) -> float:
    """What the routers' terms add to the "loss" of a step."""
    names = [name.removesuffix(AUX) for name in metrics if name.endswith(AUX)]
    return sum(metrics[f"loss/{name}"] for name in names if name.split("/")[0] == "router")


def same_start(algorithm: Algorithm[Any], digests: Mapping[str, str]) -> bool:
    """Whether every role starts from the checkpoint of the role it is `like`."""
    pairs = [(name, role.like) for name, role in algorithm.roles.items() if role.like]
    return all(digests.get(name) == digests.get(like) for name, like in pairs)


def drift_signals(algorithm: Algorithm[Any]) -> dict[str, Signal]:
    """KL of each trained language model to the frozen roles that stay where it starts."""
    starts = {name: str(algorithm.roles[name].like) for name in anchors(algorithm)}
    return {f"{KL}{name}": kl(like, name) for name, like in starts.items()}


def drift(
    batch: Batch,
    signals: Mapping[str, Tensor],
    means: Callable[[Mapping[str, Tensor]], dict[str, float]],
) -> dict[str, float]:
    """Mean over responses of the KL rows [B, S] among the signals."""
    kls = {name: x for name, x in signals.items() if name.startswith(KL)}
    return means({name: sequence_sum(x, batch.mask) for name, x in kls.items()}) if kls else {}
