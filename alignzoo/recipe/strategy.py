"""Whether the stages of a recipe can be trained under the strategy that it asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from alignzoo.recipe.blocks import TrainSpec
from alignzoo.recipe.check import Draft
from alignzoo.recipe.faults import Fault
from alignzoo.recipe.optimizing import optimizer_faults
from alignzoo.recipe.parallel import WITHOUT_ADAPTERS


def strategy_faults(strategy: str, stages: Iterable[Draft]) -> Iterator[Fault]:
    """A way to spread models that no stage would follow, or one of them cannot."""
    if strategy != "ddp" and all(d.kind not in ("train", None) for d in stages):
        what = "no train stage follows it, so it has no effect; take it out"
        yield Fault(("parallel", "strategy"), what)
    for draft in stages:
        if isinstance(draft.spec, TrainSpec):
            found = optimizer_faults(draft.spec.train, strategy)
            yield from (fault.under((*draft.path, "train")) for fault in found)
            if strategy != "ddp" and draft.spec.train.cache_teacher:
                what = f"is not tried under {strategy}; take ddp, or remove this"
                yield Fault((*draft.path, "train", "cache_teacher"), what, at_key=True)
        if strategy in WITHOUT_ADAPTERS and getattr(draft.spec, "adapter", None):
            what = f"is not tried under {strategy}; take fsdp2"
            yield Fault((*draft.path, "adapter"), what, at_key=True)
