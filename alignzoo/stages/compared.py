"""An engine's session whose first samples are compared with the model's own log-probs.

Rollouts are compared in every buffer by the training loop; `generate` stages and evaluations have
no loop, and a wrong sampler would go unseen there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from alignzoo.contract.errors import PluginError
from alignzoo.contract.evaluation import mean
from alignzoo.contract.rollout import Completion, RolloutEngine, RolloutSession, Sampling
from alignzoo.contract.types import Tokens
from alignzoo.engine.scoring.measure import sequence_log_probs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FEW = 2  # rows with short prompts, which are padded most, and of long responses
LIMITS = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # mean nats a token; bf16 rounds


def start_compared(
    engine: RolloutEngine, model: PreTrainedModel, say: Callable[[str], None] = lambda text: None
) -> RolloutSession:
    """The engine, started; it raises PluginError when it samples from another model than this.

    `say` is told what the engine remarks about how it samples.
    """
    session = engine.start(model)
    if session.remark:
        say(session.remark)
    return _Compared(session, model)


@dataclass
class _Compared(RolloutSession):
    """It has been compared once it has sampled something."""

    session: RolloutSession
    model: PreTrainedModel
    compared: bool = False

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        """As the engine's."""
        done = self.session.generate(prompts, sampling, keys)
        rows = [(Tokens(tuple(p), c.ids), c) for p, c in zip(prompts, done, strict=True) if c.ids]
        if rows and not self.compared:
            rows.sort(key=lambda row: len(row[0].prompt))
            longest = sorted(rows[FEW:], key=lambda row: -len(row[1].ids))
            self._compare([*rows[:FEW], *longest[:FEW]])
            self.compared = True
        return done

    def _compare(self, rows: Sequence[tuple[Tokens, Completion]]) -> None:
        scored = sequence_log_probs(self.model, [tokens for tokens, _ in rows], pad_id=0)
        gap = mean(
            [
                abs(ours - theirs)
                for values, (_, completion) in zip(scored, rows, strict=True)
                for ours, theirs in zip(values, completion.log_probs, strict=True)
            ]
        )
        rounds = torch.is_autocast_enabled(self.model.device.type)
        dtype = torch.bfloat16 if rounds else self.model.dtype
        limit = LIMITS.get(dtype, max(LIMITS.values()))
        if not gap <= limit:  # also when it is not a number
            raise PluginError(
                f"the samples of a {type(self.model).__name__} differ from its own log-probs by "
                f"{gap:.3g} nats per token (limit {limit:g}): the rollout engine does not sample "
                "from this model; use another engine, or another family of models"
            )

    def close(self) -> None:
        """Stop the engine."""
        self.session.close()
