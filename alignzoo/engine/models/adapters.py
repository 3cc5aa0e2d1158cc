"""LoRA: a role as a small adapter over a base whose weights other roles hold too.

A linear layer W x becomes W x + (alpha / r) B A x with A [r, in] and B [out, r]; B begins at 0, so
the adapter begins as the base. Source: arXiv:2106.09685 Eq. 3; the layers are those of peft.

Each role is a module of its own with one adapter that is always on, and only the base's tensors are
held together. So nothing is ever switched: an activation that is recomputed in the backward pass
meets the adapter of its forward pass, and nobody's `requires_grad` changes under a sibling.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from alignzoo.contract.errors import AlignzooError
from alignzoo.contract.rollout import sample_key
from alignzoo.engine.models.heads import body_of, called_in
from alignzoo.engine.models.tensors import open_to_readers

NAME = "default"  # of the only adapter of a model, as peft calls it
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # of peft
PREFIX = "base_model.model."  # of names in a file of peft
BASE, A, B = ".base_layer.", f".lora_A.{NAME}.", f".lora_B.{NAME}."


@dataclass(frozen=True)
class Lora:
    """A new adapter; `targets` are ends of layers' names, none stand for every linear layer."""

    r: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adapted:
    """A role that is a base and what lies over it; one with neither adapter is the base itself."""

    base: str  # content hash: roles with the same one hold its tensors together
    folder: Path | None = None  # of a finished adapter
    new: Lora | None = None  # one that learns


def worth_taking_apart(possible: Mapping[str, Adapted]) -> dict[str, Adapted]:
    """The roles whose base others hold too, unless all of these are the base itself; and new
    adapters, which are always apart.
    """

    def saves(part: Adapted) -> bool:
        kin = [other for other in possible.values() if other.base == part.base]
        return len(kin) > 1 and any(other.new or other.folder for other in kin)

    return {role: part for role, part in possible.items() if part.new or saves(part)}


def dressed(base: PreTrainedModel, role: Adapted, seed: int) -> PreTrainedModel:
    """The base, now frozen, with the role's adapter over it.

    Raises AlignzooError when there is no layer under a target's name, or the folder's adapter does
    not fit the base.
    """
    base.requires_grad_(False)
    if role.new is not None:
        _inject(base, _config(base, role.new), seed)
    if role.folder is not None:
        _attach(base, role.folder)
    return base


def base_of(model: PreTrainedModel) -> PreTrainedModel:
    """A model of its own that holds the same tensors, without the adapter."""
    held: dict[int, Any] = {id(x): x for x in (*model.parameters(), *model.buffers())}
    found = copy.deepcopy(model, held)
    for name, layer in _layers(found).items():
        found.set_submodule(name, layer.base_layer)
    vars(found).pop("peft_config", None)
    return found


def is_adapted(model: nn.Module) -> bool:
    """Whether there is an adapter in a model."""
    return bool(_layers(model))


@torch.no_grad()
def merged(model: PreTrainedModel) -> PreTrainedModel:
    """A plain model that computes the same: W + (alpha / r) B A, in tensors of its own."""
    plain = base_of(model)
    own = dict(plain.named_parameters())
    for name, x in plain_weights(model, model.named_parameters()):
        if x is not own[name]:
            owner, _, last = name.rpartition(".")
            setattr(plain.get_submodule(owner), last, nn.Parameter(x, requires_grad=False))
    return plain


@torch.no_grad()
def plain_weights(
    model: nn.Module, tensors: Iterable[tuple[str, Tensor]]
) -> Iterator[tuple[str, Tensor]]:
    """The named parameters of a model as those of `merged`, one at a time and in their order.

    Where there is no adapter they are as they come.
    """
    layers, base, rows = _layers(model), dict[str, Tensor](), torch.empty(0)
    for name, x in tensors:
        if A in name:
            rows = x
        elif B in name:
            layer = layers[name.partition(B)[0]]
            delta = (x @ rows) * layer.scaling[NAME]
            for own, w in base.items():
                adds = own.endswith(".weight")
                yield own, w + (delta.T if layer.fan_in_fan_out else delta) if adds else w
            base = {}
        elif BASE in name and layers:
            base[name.replace(BASE, ".")] = x
        else:
            yield name, x


def save_adapter(model: PreTrainedModel, folder: Path, base: str | None) -> None:
    """Write the adapter as peft reads it over the base; `base` is its name on a hub, if any."""
    config = cast(Any, model).peft_config[NAME].to_dict()
    config["base_model_name_or_path"] = base
    config["task_type"], config["inference_mode"] = "CAUSAL_LM", True
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2, sort_keys=True, default=sorted)  # sets have no order
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    own = {name: p.detach().cpu().contiguous() for name, p in _parameters(model).items()}
    save_file(own, folder / WEIGHTS, metadata={"format": "pt"})
    open_to_readers(folder / WEIGHTS)


def holding_together(models: Mapping[str, nn.Module]) -> Iterator[tuple[list[str], float]]:
    """(roles that hold tensors together, all their weights over those that all of them hold)."""
    own = {role: {id(p): p.numel() for p in model.parameters()} for role, model in models.items()}
    left = list(own)
    while left:
        first = left[0]
        kin = [role for role in left if own[role].keys() & own[first].keys()]
        left = [role for role in left if role not in kin]
        if len(kin) > 1:
            every = {key: n for role in kin for key, n in own[role].items()}
            common = set.intersection(*(set(own[role]) for role in kin))
            yield kin, sum(every.values()) / sum(every[key] for key in common)


def _layers(model: nn.Module) -> dict[str, Any]:
    """The layers with an adapter, by the name that they have without it."""
    return {
        name: part
        for name, part in model.named_modules()
        if hasattr(part, "lora_A") and hasattr(part, "base_layer")
    }


def _parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The adapter's own, under the names of peft's files."""
    return {
        f"{PREFIX}{name.replace(f'.{NAME}.', '.')}": p
        for name, p in model.named_parameters()
        if A in name or B in name
    }


def _inject(model: PreTrainedModel, config: Any, seed: int) -> None:
    """Raises AlignzooError when peft does not wrap just the layers that the config names."""
    from peft import inject_adapter_in_model

    named = {n for n, _ in model.named_modules() if any(_ends(n, t) for t in config.target_modules)}
    torch.manual_seed(sample_key(seed, "adapter") % 2**63)
    try:
        inject_adapter_in_model(config, model, NAME)
    except ValueError as error:  # layers that peft knows it cannot adapt
        cause = str(error).splitlines()[0]
        raise AlignzooError(f"adapter.lora.targets: {cause}; list targets that it can") from error
    if lost := named - set(_layers(model)):  # experts that are one tensor
        kinds = ", ".join(sorted({name.rpartition(".")[2] for name in lost}))
        raise AlignzooError(
            f"adapter.lora.targets: peft takes {kinds} of a {type(model).__name__} for its "
            "experts, which are no linear layers; list targets without these"
        )


def _config(model: PreTrainedModel, lora: Lora) -> Any:
    from peft import LoraConfig

    able = _linear_layers(model)
    targets = lora.targets or _short(able, model)
    for target in targets:
        found = {name for name, _ in model.named_modules() if _ends(name, target)}
        if not found or found - set(able):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in able}))
            what = f"{min(found - set(able))} is no linear layer inside" if found else "unknown"
            raise AlignzooError(
                f"adapter.lora.targets: '{target}': {what} ({type(model).__name__} has: {known})"
            )
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=0.0,
        target_modules=list(targets),
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in able.values()),
    )


def _linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Those of the body that text goes through; of others it reads the weight past any adapter."""
    body = set(body_of(model).modules()) - {model.get_output_embeddings()}
    linear = {
        name: part
        for name, part in model.named_modules()
        if part in body and isinstance(part, nn.Linear | Conv1D)
    }
    called = {_place(name) for name in called_in(model, linear)}
    return {name: part for name, part in linear.items() if _place(name) in called}


def _place(name: str) -> str:
    """Alike in all layers and experts: a single expert may have had no token."""
    return re.sub(r"\d+", "*", name)


def _short(able: Mapping[str, nn.Module], model: nn.Module) -> tuple[str, ...]:
    """Names for all of these layers: the last parts, unless other modules have them too."""
    last = sorted({name.rpartition(".")[2] for name in able})
    every = {name for name, _ in model.named_modules() if any(_ends(name, x) for x in last)}
    return tuple(last) if every == set(able) else tuple(sorted(able))


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _attach(model: PreTrainedModel, folder: Path) -> None:
    """A finished adapter, frozen."""
    from peft import LoraConfig

    _inject(model, LoraConfig.from_pretrained(str(folder)), 0)
    found, own = load_file(folder / WEIGHTS), _parameters(model)
    if {name: x.shape for name, x in found.items()} != {name: p.shape for name, p in own.items()}:
        raise AlignzooError(f"{folder}: this adapter does not fit its base; train it again")
    with torch.no_grad():
        for name, p in own.items():
            p.copy_(found[name]).requires_grad_(False)
