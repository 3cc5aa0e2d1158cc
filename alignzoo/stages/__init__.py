"""The built-in stages. Each is a function of its block of the recipe and a StageContext."""

from __future__ import annotations

from functools import singledispatch

from alignzoo.recipe.blocks import GenerateSpec, LabelSpec, PluginStageSpec, StageSpec, TrainSpec
from alignzoo.stages.context import StageContext


@singledispatch
def run_stage(spec: StageSpec, context: StageContext) -> None:
    """Do a stage's work in `context.folder`. Heavy modules load with the stage that needs them."""
    raise TypeError(f"no stage is known for {type(spec).__name__}")


@run_stage.register
def _(spec: TrainSpec, context: StageContext) -> None:
    from alignzoo.stages.train import run_train

    run_train(spec, context)


@run_stage.register
def _(spec: GenerateSpec, context: StageContext) -> None:
    from alignzoo.stages.generate import run_generate

    run_generate(spec, context)


@run_stage.register
def _(spec: LabelSpec, context: StageContext) -> None:
    from alignzoo.stages.label import run_label

    run_label(spec, context)


@run_stage.register
def _(spec: PluginStageSpec, context: StageContext) -> None:
    from alignzoo.stages.plugin import run_plugin

    run_plugin(spec, context)
