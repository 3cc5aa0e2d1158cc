"""Keys of a data block that a stage does not read: asked for, and without any effect."""

from __future__ import annotations

from collections.abc import Iterator

from alignzoo.recipe.blocks import (
    DataSpec,
    EvaluateSpec,
    GenerateSpec,
    LabelSpec,
    PluginStageSpec,
    StageSpec,
    TrainSpec,
)
from alignzoo.recipe.faults import Fault
from alignzoo.recipe.mixing import placed

ANSWERS = ("max_equal", "template_cuts")  # of given answers
# Of models that answer prompts; a benchmark of rewards reads given pairs.
OF_ANSWERS = ("models", "baseline", "kl_to", "partial", "samples", "sampling", "engine", "limit")
LENGTHS = ("max_length", "max_prompt_length", "too_long")
UNREAD = {
    GenerateSpec: (*LENGTHS, *ANSWERS, "learn"),
    LabelSpec: (*LENGTHS, *ANSWERS, "learn", "special"),
    PluginStageSpec: (*LENGTHS, *ANSWERS, "learn", "special"),
}


def unmeasured_faults(spec: EvaluateSpec, *, several: bool) -> Iterator[Fault]:
    """What a measurement on given pairs lacks, and keys of blocks whose models answer prompts.

    `several`: a second file may stand in `data`, which names the generators of the first.
    """
    for key in ("data", "rewards"):
        if not getattr(spec, key):
            what = f"{spec.benchmark} reads what rewards say of pairs; add `{key}:`"
            yield Fault(("benchmark",), what)
    if spec.data is not None and len(spec.data.sources) > 1 + several:
        yield Fault(("data",), "a list is for the data of a train stage; name one source")
    for key in OF_ANSWERS[:-1] if several else OF_ANSWERS:
        if getattr(spec, key) != EvaluateSpec.model_fields[key].default:
            what = f"has no effect with {spec.benchmark}, where nothing is sampled; take it out"
            yield Fault((key,), what, at_key=True)


def unread_faults(spec: StageSpec) -> Iterator[Fault]:
    """Every key that is set to something else than its default and would do nothing."""
    data: DataSpec | None = getattr(spec, "data", None)
    names = UNREAD.get(type(spec), ())
    if isinstance(spec, TrainSpec) and spec.rollout is not None and spec.rollout.share == 1:
        names = ANSWERS
    for part, path in placed(data, ("data",)) if data is not None else ():
        for name in names:
            if getattr(part, name) != DataSpec.model_fields[name].default:
                what = "has no effect here, because this stage does not read it; take it out"
                yield Fault((*path, name), what)
