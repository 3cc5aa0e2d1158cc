"""Which roles of a train stage are adapters of one base, so that its weights are held once."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from transformers import AutoConfig

from alignzoo.contract.algorithm import Role
from alignzoo.contract.errors import AlignzooError, DataError
from alignzoo.contract.stage import ModelRef
from alignzoo.engine.models.adapters import Adapted, Lora, worth_taking_apart
from alignzoo.recipe.blocks import TrainSpec
from alignzoo.recipe.parallel import WITHOUT_ADAPTERS
from alignzoo.recipe.training import peft_version
from alignzoo.stages.context import StageContext
from alignzoo.store.adapters import adapter_beside
from alignzoo.store.identity import model_digest
from alignzoo.store.inputs import INITIAL


@dataclass(frozen=True)
class Models:
    """What a stage binds to its roles."""

    kinds: Mapping[str, Role]
    main: str
    refs: Mapping[str, ModelRef]
    digests: Mapping[str, str]  # role -> content hash
    moving: Container[str] = ()  # roles whose own weights change: these are never taken apart


@dataclass(frozen=True)
class Parts:
    """What the engine loads for each role."""

    refs: Mapping[str, ModelRef]  # role -> its model, or the base of its adapter
    digests: Mapping[str, str]  # role -> content hash of all that it is made of
    adapted: Mapping[str, Adapted]


def parts_of(models: Models, spec: TrainSpec, context: StageContext) -> Parts:
    """The roles, with results of adapter stages taken apart where that saves memory.

    It does where two roles or more have one base. A role taken apart has a digest of its own,
    because it rounds differently than the merged model; so a role that starts as the main one does
    is left whole: the two must be equal bit for bit.

    Raises AlignzooError when the base of a new adapter is quantised.
    """
    if spec.adapter is not None:
        _refuse_quantized(models.refs[models.main])
    possible = dict(_possible(models, spec, context))
    bases = dict(_bases(models, context)) if any(p.folder for p in possible.values()) else {}
    adapted = {
        role: part
        for role, part in worth_taking_apart(possible).items()
        if part.folder is None or part.base in bases
    }
    refs, digests = dict(models.refs), dict(models.digests)
    for role, part in adapted.items():
        if part.folder is not None:
            refs[role] = bases[part.base]
            digests[role] = f"{digests[role]} over {part.base}"
    return Parts(refs, digests, adapted)


def _possible(
    models: Models, spec: TrainSpec, context: StageContext
) -> Iterator[tuple[str, Adapted]]:
    """Every role that may be a base with or without an adapter."""
    start = models.digests[models.main]
    if spec.adapter is not None:
        lora = spec.adapter.lora
        yield models.main, Adapted(start, new=Lora(lora.r, lora.alpha, lora.ends))
    elif peft_version() is None or context.recipe.parallel.strategy in WITHOUT_ADAPTERS:
        return
    for role, kind in models.kinds.items():
        own = models.digests[role]
        stays = not kind.trainable and role not in models.moving
        if role == models.main or not stays or kind.head == "scalar":
            continue
        left = None if own == start else adapter_beside(models.refs[role].path)
        yield role, Adapted(own) if left is None else Adapted(left.base, left.folder)


def _bases(models: Models, context: StageContext) -> Iterator[tuple[str, ModelRef]]:
    """The models that an adapter may lie over, by content."""
    for name in (INITIAL, *context.outputs):
        with suppress(DataError):  # stages that leave no model
            digest = model_digest(name, context.recipe, context.registry, context.outputs)
            yield digest, context.model(name)
    yield from ((models.digests[role], ref) for role, ref in models.refs.items())


def _refuse_quantized(ref: ModelRef) -> None:
    """Raises AlignzooError when the weights of a model are stored in fewer bits."""
    try:
        config = AutoConfig.from_pretrained(ref.name, revision=ref.revision)
    except Exception:  # loading says what is wrong, or a plug-in knows the name
        return
    if getattr(config, "quantization_config", None):
        raise AlignzooError(
            f"{ref.name}: has quantised weights (quantization_config in its config.json), which an "
            "adapter cannot lie over yet; name the model as it was before"
        )
