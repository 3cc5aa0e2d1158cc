"""What the loop says to whoever watches, beside its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from alignzoo.contract.errors import counted
from alignzoo.engine.models.adapters import holding_together, is_adapted
from alignzoo.engine.train.checkpoint import Cursor


def frozen(trained: Mapping[str, nn.Module]) -> Iterator[str]:
    """What does not learn in a role that does."""
    for role, model in trained.items():
        still = sum(p.numel() for p in model.parameters() if not p.requires_grad)
        if still:
            every = sum(p.numel() for p in model.parameters())
            if is_adapted(model):
                yield f"{role}: learns an adapter of {every - still:,} parameters, {still:,} stay"
            else:
                yield f"{role}: {still:,} of {every:,} parameters were frozen when it was loaded"


def shared(models: Mapping[str, nn.Module]) -> Iterator[str]:
    """Which roles hold the weights of one base together, and what they weigh."""
    for roles, weight in holding_together(models):
        yield f"{', '.join(roles)}: adapters of one base, {weight:.2f} times its weights"


def left_over(done: int, updates: int) -> str:
    """A last buffer that serves fewer updates than it could."""
    return f"the last buffer served {done} of {updates} updates: train.steps ends there"


def fewer(n: int, wanted: int) -> str:
    """Data that do not fill one batch."""
    return f"{counted(n, 'item')}, fewer than train.batch_size = {wanted}: every batch has {n}"


def fewer_prompts(n: int, wanted: int) -> str:
    """Prompts that do not fill one buffer."""
    return f"{counted(n, 'prompt')}, fewer than rollout.prompts = {wanted}: every buffer has {n}"


def validated(metric: str, value: float, cursor: Cursor) -> str:
    """One validation; the cursor knows its best already."""
    at = cursor.best_step
    best = "the best so far" if at == cursor.step else f"the best was at step {at}"
    return f"step {cursor.step}: validation {metric} {value:.4g}, {best}"


def early(patience: int | None, cursor: Cursor, total: int) -> str:
    """Why training ends before its last step."""
    what = counted(patience or 0, "validation")
    return f"ends at step {cursor.step} of {total}: {what} without a better one (patience)"


def kept(metric: str, cursor: Cursor) -> str:
    """Which weights are the stage's result."""
    return (
        f"keeps the weights of step {cursor.best_step} of {cursor.step}, validation {metric} "
        f"{cursor.best:.4g}"
    )


def item(numbers: Tensor, of: str, at: int) -> str:
    """Where an item of a batch stands in its data."""
    return f"item {int(numbers[at]) + 1} of {of}"
