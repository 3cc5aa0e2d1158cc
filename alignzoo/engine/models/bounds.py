"""What a model says about its texts: its ids, those that end an answer, and how long one may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pluggy
from transformers import AutoConfig, GenerationConfig, PreTrainedModel

from alignzoo.contract.algorithm import Role
from alignzoo.contract.stage import ModelRef
from alignzoo.engine.models.context import context_of, why_context
from alignzoo.engine.models.hooked import plugin_model
from alignzoo.engine.models.load import load_model


@dataclass(frozen=True)
class Bounds:
    """All come from the model's own files, as plain transformers reads them."""

    ends: tuple[int, ...]  # of its generation config, within its vocabulary
    context: int | None  # tokens; None: no fixed context
    ids: int  # of its vocabulary; those beyond cannot be emitted
    why: str = ""  # the context is not the stated one


def bounds_of(model: PreTrainedModel) -> Bounds:
    """The bounds of a loaded model."""
    return _bounds(model.config, getattr(model, "generation_config", None))


def bounds_by_name(hooks: pluggy.HookRelay, ref: ModelRef, role: Role) -> Bounds:
    """The bounds of a model that is not loaded yet: of a plug-in's own, if one knows the name, else
    of the model's files.
    """
    made = plugin_model(hooks, ref, role)
    if made is not None:
        return bounds_of(made)
    where = {"revision": ref.revision, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(ref.name, **where)
    except Exception:  # loading says what is wrong
        return bounds_of(load_model(hooks, ref, role))
    return _bounds(config, _generation(ref, config))


def _generation(ref: ModelRef, config: Any) -> GenerationConfig:
    try:
        return GenerationConfig.from_pretrained(ref.name, revision=ref.revision or "main")
    except OSError:  # the folder has none: plain transformers makes it of the config
        return GenerationConfig.from_model_config(config)


def _bounds(config: Any, generation: GenerationConfig | None) -> Bounds:
    text = config.get_text_config(decoder=True)
    named = getattr(generation, "eos_token_id", None)
    several = named if isinstance(named, list) else [named]
    known = [id_ for id_ in several if isinstance(id_, int) and 0 <= id_ < text.vocab_size]
    return Bounds(tuple(known), context_of(config), text.vocab_size, why_context(config))
