"""What a method may say beside its loss; most say nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from alignzoo.contract.moving import Follow
from alignzoo.contract.types import Outputs, PromptText, Signals
from alignzoo.contract.views import Case

if TYPE_CHECKING:
    from torch import Tensor


class Further:
    """Other prompts for some roles, roles that move, and what people are shown."""

    units: ClassVar[Mapping[str, str]] = {}  # of per-token values that people see, by their name
    example_meta: ClassVar[Mapping[str, Any]] = {}  # of a row that `check` asks `view` about

    def view(self, name: str, case: Case) -> PromptText:
        """The prompt before an answer for the roles that see this view; pure."""
        raise TypeError(f"{type(self).__name__} makes no view '{name}'")

    def moving(self) -> Mapping[str, Follow]:
        """Which roles that do not learn follow one that does, and how."""
        return {}

    def shown(self, signals: Signals) -> Signals:
        """Per-token values [B, S] made of signals, for `alignzoo lens` alone; no loss sees them."""
        return {}

    def distributions(self, outputs: Outputs) -> Mapping[str, Tensor]:
        """Logits [n, V] of distributions made of the roles' own, such as a teacher's; shown alone.

        `outputs` holds every role with a language model.
        """
        return {}
