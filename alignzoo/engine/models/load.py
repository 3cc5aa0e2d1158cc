"""Names to models: load, check, save. Safetensors only, and no remote code, ever."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pluggy
import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from alignzoo.contract.algorithm import Role
from alignzoo.contract.errors import AlignzooError, PluginError, counted
from alignzoo.contract.rollout import sample_key
from alignzoo.contract.stage import ModelRef
from alignzoo.engine.models.families import class_for, freeze_other_parts, set_attention
from alignzoo.engine.models.heads import check_head, head_of
from alignzoo.engine.models.hooked import Listener, plugin_model, plugin_saved
from alignzoo.engine.models.padding import padded_apart
from alignzoo.engine.models.quiet import own_config, silence
from alignzoo.engine.models.tensors import open_to_readers

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
SCALAR_HEAD = "score.weight"
SILENT = Listener()


def load_model(
    hooks: pluggy.HookRelay,
    ref: ModelRef,
    role: Role,
    listener: Listener = SILENT,
) -> PreTrainedModel:
    """The model a name stands for in float32, with the head a role needs.

    Whatever is random in training is switched off, see `quiet`. A scalar head that the checkpoint
    lacks is drawn from a generator keyed by the seed if the role is trained. Raises AlignzooError
    when the name leads nowhere or to a model with another head, PluginError when the model's logits
    are not head(body(x)): then chunked scoring would train another model than the one that
    generates.
    """
    torch.manual_seed(sample_key(ref.seed, "head", role.head) % 2**63)
    made = plugin_model(hooks, ref, role)
    found = _from_pretrained(ref, role, listener) if made is None else made
    silence(found)  # references, rollouts and policy must be one function
    model: PreTrainedModel = found.to(torch.float32)  # type: ignore[arg-type]
    set_attention(model, ref)
    freeze_other_parts(model)
    if role.head == "lm":
        _check_head(model, ref)
    elif not isinstance(head_of(model).linear, torch.nn.Linear):
        raise PluginError(
            f"{ref.name}: a {type(model).__name__} does not score by a linear layer on the last "
            "token; take a causal model with a scalar head"
        )
    if made is not None:
        listener.plugged(model)
    return model


def load_tokenizer(hooks: pluggy.HookRelay, ref: ModelRef) -> PreTrainedTokenizerBase:
    """The tokenizer that goes with a model."""
    tokenizer: PreTrainedTokenizerBase | None = hooks.load_tokenizer(ref=ref)
    if tokenizer is None:
        tokenizer = _loaded(AutoTokenizer, ref, {"trust_remote_code": False})
    if tokenizer.eos_token_id is None:
        raise AlignzooError(f"{ref.name}: the tokenizer has no end-of-sequence token; set one")
    return tokenizer


def pad_id_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that fills rows up. It is never read, but it needs a row in the embedding, which
    the tokenizer's own padding may lack; what ends answers has one.
    """
    return int(tokenizer.eos_token_id)


def save_model(
    hooks: pluggy.HookRelay,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    ends: Sequence[int],
) -> None:
    """A plain transformers folder, or what a plug-in's `save_model` writes, and the tokenizer.

    Plain `generate` stops at `ends`, as every part of a recipe does. A scalar head is saved so
    that plain transformers reads it at the last token, where it was trained. Raises PluginError if
    it would come back with another tokenizer: some model types force their own tokenizer class on
    whatever the folder holds.
    """
    if isinstance(getattr(model, "score", None), torch.nn.Linear):
        tokenizer = padded_apart(model, tokenizer, ends)
    generation = getattr(model, "generation_config", None)  # a scalar head generates nothing
    if generation is not None:
        generation.eos_token_id = ends[0] if len(ends) == 1 else list(ends)
    with own_config(model):
        if not plugin_saved(hooks, model, folder):
            model.save_pretrained(folder)
    open_to_readers(*folder.glob("*.safetensors"))
    tokenizer.save_pretrained(folder)
    probe = str(tokenizer.decode(list(range(min(len(tokenizer), 200)))))
    again = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if _ids(again, probe) != _ids(tokenizer, probe):
        raise PluginError(
            f"{folder}: a {type(tokenizer).__name__} beside a {model.config.model_type} model "
            f"comes back as a {type(again).__name__} with other ids; use a model type that leaves "
            "the tokenizer alone (llama does)"
        )


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, verbose=False).input_ids)


def _from_pretrained(ref: ModelRef, role: Role, listener: Listener) -> PreTrainedModel:
    extra = {"num_labels": 1} if role.head == "scalar" else {}
    config = _loaded(AutoConfig, ref, {"trust_remote_code": False, **extra})
    safe = {"use_safetensors": True, "trust_remote_code": False}
    kwargs = {"dtype": torch.float32, "config": config, **safe}
    auto = class_for(config, role, ref.name)
    loaded = _loaded(auto, ref, {**kwargs, "output_loading_info": True})
    model: PreTrainedModel = loaded[0]
    _refuse_other_head(ref, role, loaded[1])
    body = f"{model.base_model_prefix}."
    missing = loaded[1]["missing_keys"]
    lacking = [name for name in missing if role.head == "lm" or name.startswith(body)]
    if lacking:  # the library would draw them at random and go on
        raise AlignzooError(
            f"cannot load '{ref.name}': its weights lack {counted(len(lacking), 'tensor')} that "
            f"config.json asks for, such as {min(lacking)}; take weights and config.json of one "
            "model"
        )
    whole = role.head == "lm" and role.trainable  # what is left out here is not saved either
    unread = loaded[1]["unexpected_keys"]
    spare = [name for name in unread if whole or name.startswith(body)]
    if spare:  # the library would leave them out and go on
        raise AlignzooError(
            f"cannot load '{ref.name}': its weights hold {counted(len(spare), 'tensor')} that "
            f"config.json has no place for, such as {min(spare)}; take weights and config.json of "
            "one model"
        )
    for text in _load_notes(loaded[1], role):
        listener.note(f"{ref.name}: {text}")
    return model


def _refuse_other_head(ref: ModelRef, role: Role, info: dict[str, Any]) -> None:
    """A scalar head is no language model's, and one drawn at random scores nothing."""
    if role.head == "lm" and SCALAR_HEAD in info["unexpected_keys"]:
        raise AlignzooError(
            f"{ref.name}: has a scalar head, so it scores texts and gives no distribution over "
            "tokens; name a language model"
        )
    if role.head == "scalar" and not role.trainable and SCALAR_HEAD in info["missing_keys"]:
        raise AlignzooError(
            f"{ref.name}: has no scalar head ({SCALAR_HEAD}), and one drawn at random would score "
            "at random; name a reward model, or train one first"
        )


def _load_notes(found: Mapping[str, Iterable[str]], role: Role) -> Iterator[str]:
    """What a reader should know of a load report of the library, in a sentence each."""
    if missing := sorted(found["missing_keys"]):
        yield f"the checkpoint has no {', '.join(missing)}; drawn at random from the seed"
    spare = sorted(found["unexpected_keys"])
    if role.head == "scalar":
        spare = [name for name in spare if not name.startswith("lm_head.")]
    if spare:
        yield f"not used of the checkpoint: {counted(len(spare), 'tensor')}, such as {spare[0]}"


def _loaded(auto: Any, ref: ModelRef, kwargs: dict[str, Any]) -> Any:
    if ref.path.exists() and not ref.path.is_dir():
        raise AlignzooError(f"{ref.name}: a model is a folder, this is a file")
    try:
        return auto.from_pretrained(ref.name, revision=ref.revision, **kwargs)
    except Exception as error:  # a damaged folder makes the libraries raise anything
        if ref.names_folder and not ref.path.exists():
            raise AlignzooError(f"{ref.name}: no such folder, and no plug-in knows it") from error
        where = "folder" if ref.path.exists() else "hub name (no folder or plug-in of that name)"
        cause = _lacking(ref.path) or _first_line(error)
        raise AlignzooError(f"cannot load '{ref.name}' as a {where}: {cause}") from error


def _lacking(folder: Path) -> str:
    """Which part a model's folder does not have, or an empty string."""
    if not folder.is_dir():
        return ""
    if not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        hint = " but an adapter; name the merged model (beside it, `model`, where a stage left it)"
        return f"it has no config.json{hint if adapter else ''}"
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        hint = "; its pickled weights can run code, convert them" if pickled else ""
        return f"it has no weights as safetensors{hint}"
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return f"it has no tokenizer ({', '.join(TOKENIZER_FILES)})"
    return ""


def _first_line(error: Exception) -> str:
    """The cause, with the name of an error whose text alone says little ("'added_tokens'")."""
    text = next(iter(str(error).strip().splitlines()), "")
    if "ignore_mismatched_sizes" in text:
        return "the weights have other shapes than config.json says"
    return text if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {text}"


def _check_head(model: PreTrainedModel, ref: ModelRef) -> None:
    try:
        check_head(model)
    except PluginError as error:
        raise PluginError(f"{ref.name}: {error}") from error
    except Exception as error:  # models of other kinds want images, sound or a second input
        raise PluginError(
            f"{ref.name}: a {type(model).__name__} cannot be run on text alone "
            f"({_first_line(error)}); take a causal language model"
        ) from error
