"""What self-distillation methods share: a teacher that is the policy and knows more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from alignzoo import Follow, PromptText, Role, option
from alignzoo_gkd.algorithm import B, Distillation


@dataclass(frozen=True)
class SelfDistillation(Distillation[B]):
    """L = mean_b 1/n_b sum_t D(pi_teacher(.|hint, s_t), pi(.|s_t)), the teacher a former self."""

    roles = {
        "policy": Role(trainable=True, doc="the model that learns, without the hint"),
        "teacher": Role(like="policy", sees="told", doc="the same model behind the hint"),
    }

    follow: float = option(
        0.05,
        "share of the policy that the teacher takes on after a step; 0: it stays, 1: it is the "
        "policy of the moment",
        ge=0,
        le=1,
    )
    template: str = option("{hint}\n\n{prompt}", "what the teacher reads for the last message")

    def __post_init__(self) -> None:
        """The template has room for both."""
        super().__post_init__()
        if missing := [x for x in ("{hint}", "{prompt}") if x not in self.template]:
            raise ValueError(f"template has no {' and no '.join(missing)}: it needs both, once")

    def moving(self) -> Mapping[str, Follow]:
        """The teacher follows the policy, unless it stays."""
        return {"teacher": Follow("policy", mix=self.follow)} if self.follow else {}

    def told(self, prompt: PromptText, hint: str) -> PromptText:
        """The prompt with the hint; of a chat, its last message."""
        if not isinstance(prompt, str):
            *before, last = prompt
            return (*before, {**last, "content": self.told(last["content"], hint)})
        parts = {"{hint}": hint, "{prompt}": prompt}
        return re.sub(r"\{hint\}|\{prompt\}", lambda found: parts[found[0]], self.template)
