"""Models that plug-ins make: what a hook may return, and that its result can be kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pluggy
import torch
from transformers import PreTrainedModel

from alignzoo.contract.algorithm import Role
from alignzoo.contract.errors import AlignzooError, PluginError, described
from alignzoo.contract.stage import ModelRef


@dataclass(frozen=True)
class Listener:
    """Who is told while a model is loaded."""

    plugged: Callable[[PreTrainedModel], None] = lambda model: None  # a plug-in made it
    note: Callable[[str], None] = lambda text: None


Save = Callable[[PreTrainedModel, Path], None]
Load = Callable[[ModelRef], PreTrainedModel]


def plugin_model(hooks: pluggy.HookRelay, ref: ModelRef, role: Role) -> PreTrainedModel | None:
    """The model that a plug-in's `load_model` returns; None: no plug-in knows the name.

    Raises PluginError when the hook fails or returns something that cannot be trained and saved.
    """
    try:
        model = hooks.load_model(ref=ref, role=role)
    except AlignzooError:
        raise
    except Exception as error:  # a stranger's code may raise anything
        what = f"{ref.name}: a plug-in's `load_model` failed: {described(error)}"
        raise PluginError(what) from error
    if model is None or isinstance(model, PreTrainedModel):
        return model
    advice = "return a PreTrainedModel"
    if hasattr(model, "merge_and_unload"):
        advice = (
            "return `model.merge_and_unload()`, and for few trained parameters a PreTrainedModel "
            "whose other parameters have requires_grad False"
        )
    raise PluginError(
        f"{ref.name}: a plug-in's `load_model` returned a {type(model).__name__}, whose body and "
        f"head cannot be read apart; {advice}"
    )


def plugin_saved(hooks: pluggy.HookRelay, model: PreTrainedModel, folder: Path) -> bool:
    """Whether a plug-in's `save_model` wrote the model."""
    return bool(hooks.save_model(model=model, folder=folder))


@torch.no_grad()
def prove_saving(model: PreTrainedModel, ref: ModelRef, save: Save, load: Load) -> None:
    """Save a plug-in's model to a temporary folder and load it again, before money is spent.

    Raises PluginError when that fails, or when what comes back answers differently.
    """
    with tempfile.TemporaryDirectory(prefix="alignzoo-") as name:
        folder = Path(name) / "model"
        folder.mkdir()
        try:
            save(model, folder)
            again = load(replace(ref, name=str(folder), revision=None))
        except Exception as error:  # whatever it is, it would come after training too
            raise PluginError(f"{_cannot(ref)}: {_first_line(error)}; {_ADVICE}") from error
        ours, theirs = _answers(model), _answers(again)
        if ours.shape != theirs.shape or not torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4):
            kinds = f"a {type(model).__name__} comes back as a {type(again).__name__}"
            raise PluginError(f"{_cannot(ref)}: {kinds} that answers differently; {_ADVICE}")


_ADVICE = "give the plug-in a `save_model(model, folder)` that its `load_model` can read again"


def _cannot(ref: ModelRef) -> str:
    return f"{ref.name}: the model that a plug-in made cannot be kept"


def _answers(model: PreTrainedModel) -> torch.Tensor:
    """The model's own logits on a few ids."""
    training = model.training
    model.eval()
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.arange(1, 6, device=model.device)[None] % vocabulary
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits.float().cpu()
    model.train(training)
    return logits


def _first_line(error: Exception) -> str:
    text = next(iter(str(error).strip().splitlines()), "")
    return text if isinstance(error, AlignzooError) else f"{type(error).__name__}: {text}"
