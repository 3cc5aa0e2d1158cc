"""The contract an algorithm fills in: a frozen dataclass that declares what it needs.

The engine owns everything else: loop, forwards, memory, devices, checkpoints. A whole method:

    @dataclass(frozen=True)
    class DPO(Algorithm[PairBatch]):
        '''L = -log sigmoid(beta * (ratio_w - ratio_l)), arXiv:2305.18290 Eq. 7.'''

        name = "dpo"
        roles = {"policy": Role(trainable=True), "reference": Role(like="policy")}
        beta: float = option(0.1, "strength of the KL constraint", gt=0)

        def signals(self):
            return {"policy": log_prob("policy")}

        def snapshots(self):
            return {"reference": log_prob("reference")}

        def loss(self, batch, signals, state):
            ratio = sequence_sum(signals["policy"] - signals["reference"], batch.mask)  # [B]
            margin = self.beta * (ratio[batch.chosen] - ratio[batch.rejected])  # [I]
            return Loss(Term(-log_sigmoid(margin)))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from alignzoo.contract.further import Further
from alignzoo.contract.types import Batch, Loss, PairBatch, Signal, Signals, State, World

B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class Role:
    """A model's part in an algorithm; the recipe says which checkpoint plays it.

    `like` names the role whose starting checkpoint this one uses when the recipe binds nothing.
    A role that is neither bound nor `like` another is an error before anything is loaded.
    `sees` names a view: it reads the same answers behind the prompts of `Algorithm.view`.
    """

    trainable: bool = False
    head: Literal["lm", "scalar"] = "lm"
    like: str | None = None
    doc: str = ""
    sees: str | None = None


@dataclass(frozen=True)
class Metric:
    """A number the method logs: what it is, in which unit, and where it is healthy."""

    doc: str
    unit: str = ""
    low: float | None = None
    high: float | None = None


def option(
    default: Any = dataclasses.MISSING,
    doc: str = "",
    *,
    gt: float | None = None,
    ge: float | None = None,
    le: float | None = None,
) -> Any:
    """A hyper-parameter: default (none: the recipe must set it), meaning, allowed range."""
    bounds = {key: x for key, x in (("gt", gt), ("ge", ge), ("le", le)) if x is not None}
    return dataclasses.field(default=default, metadata={"doc": doc, **bounds})


class Algorithm(Further, Generic[B]):
    """Base of every method. Subclasses are frozen dataclasses whose fields are the options.

    Signals arrive in `loss` under one namespace: live ones (with gradient), snapshots and prepared
    ones, each [B, S], zero outside its positions. `loss` must not average, move or communicate.
    """

    name: ClassVar[str]
    batch: ClassVar[type[Batch]] = PairBatch
    roles: ClassVar[Mapping[str, Role]] = {"policy": Role(trainable=True)}
    metrics: ClassVar[Mapping[str, Metric]] = {}
    least_samples: ClassVar[int] = 1  # per prompt; 2 or more: answers to a prompt are compared
    least_items: ClassVar[int] = 1  # in a batch; a smaller rest joins the batch before it
    example_options: ClassVar[Mapping[str, Any]] = {}  # for `check`, where a default is not enough
    single_update: ClassVar[bool] = False  # no importance ratio: a rollout buffer serves one update
    assumes_policy_samples: ClassVar[bool] = False  # the gradient is an expectation over them

    @property
    def takes_wins(self) -> bool | None:
        """Whether its scores are shares of wins (`reward: {by: wins}`); None: as they come."""
        return None

    def signals(self) -> Mapping[str, Signal]:
        """What to read from the models with gradient, in every micro-batch."""
        return {}

    def snapshots(self) -> Mapping[str, Signal]:
        """What to read without gradient, once per batch or rollout buffer, at its start."""
        return {}

    def prepare(self, batch: B, signals: Signals, world: World) -> Signals:
        """From a whole buffer and its snapshots, values the loss needs (advantages, baselines)."""
        return {}

    def loss(self, batch: B, signals: Signals, state: State) -> Loss:
        """Per-item values of the loss and metrics for some items of the buffer."""
        raise TypeError(f"{type(self).__name__} defines no loss")

    def at_start(self) -> Mapping[str, float]:
        """Metrics that are known at the first step if every role starts where its `like` does."""
        return {}

    def init_state(self) -> State:
        """Running quantities beside the weights (adaptive coefficients, moving averages)."""
        return {}

    def next_state(self, state: State, metrics: Mapping[str, float]) -> State:
        """The state after an optimiser step; pure."""
        return state
