"""A stage that a plug-in provides: bind its inputs and let it run."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from alignzoo.contract.errors import DataError, PluginError
from alignzoo.contract.stage import Stage, StageInputs
from alignzoo.contract.types import Sample
from alignzoo.recipe.blocks import PluginStageSpec
from alignzoo.recipe.options import build_options
from alignzoo.recipe.reading import names
from alignzoo.stages.context import StageContext
from alignzoo.stages.reading import read_samples


def run_plugin(spec: PluginStageSpec, context: StageContext) -> None:
    """Run the plug-in's stage in the stage's folder.

    Raises PluginError when it leaves neither a model nor samples there.
    """
    stage: Stage = build_options(context.registry.find("stage", spec.stage), spec.with_)
    steps = count(1)

    def log(metrics: Mapping[str, float]) -> None:
        context.log(metrics)
        context.step(next(steps), 0, metrics)

    data = _samples(spec, type(stage), context)
    models = {part: context.model(name) for part, name in spec.models.items()}
    stage.run(StageInputs(context.folder, models, data, context.seed, log))
    if not any((context.folder / name).exists() for name in ("model", "data.jsonl")):
        raise PluginError(
            f"stage '{spec.stage}' left neither model/ nor data.jsonl in {context.folder}; "
            "its plug-in must write one of them"
        )


def _samples(spec: PluginStageSpec, cls: type[Stage], context: StageContext) -> tuple[Sample, ...]:
    """The stage's data; DataError when a sample is of a kind that the stage does not read."""
    if spec.data is None:
        return ()
    loaded = read_samples(spec.data, context)
    for sample, place in zip(loaded.samples, loaded.places, strict=True):
        if cls.reads_data is not None and not isinstance(sample, cls.reads_data):
            found, wanted = type(sample).__name__, names(cls.reads_data)
            raise DataError(f"{place}: a {found}, but stage '{spec.stage}' reads {wanted}")
    return loaded.samples
