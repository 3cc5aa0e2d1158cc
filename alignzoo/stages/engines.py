"""The rollout engine that an `engine:` block names."""

from __future__ import annotations

from alignzoo.contract.rollout import RolloutEngine
from alignzoo.recipe.blocks import EngineSpec
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry
from alignzoo.store.inputs import BUILT_IN_ENGINE


def engine_of(spec: EngineSpec, batch_size: int, registry: Registry) -> RolloutEngine:
    """The engine with its options; `batch_size` concerns the built-in one.

    Raises PluginError for a name that no plug-in has, RecipeError for wrong options.
    """
    if spec.name in registry.engines or spec.name != BUILT_IN_ENGINE:
        plugged: RolloutEngine = build_options(registry.find("engine", spec.name), spec.with_)
        return plugged
    from alignzoo.engine.sampling.generate import TransformersEngine

    built: RolloutEngine = build_options(
        TransformersEngine, {"batch_size": batch_size, **spec.with_}
    )
    return built
