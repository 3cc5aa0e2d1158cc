"""How a model can be sampled from exactly, found by trying it; and the call of `generate`.

Plain attention is stepped through a cache of our own (`stepped`); all else is the library's.

Importing this module does not import transformers, so that planning a recipe stays fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from alignzoo.engine.models.context import context_of

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

    from alignzoo.engine.sampling.decoder import Reader

BY_LIBRARY = "by transformers' `generate`"
TRIED = 16  # tokens that are sampled to see how
ROUNDING = {torch.float64: 1e-9, torch.float32: 2e-5, torch.bfloat16: 0.1}  # share of the largest


@dataclass(frozen=True)
class Way:
    """What of a fast way of sampling gives the samples that full forwards would give."""

    stepped: bool = False  # by our own loop
    captured: bool = False  # and its steps are replayed; what follows is of `generate`
    cached: bool = True  # False: the cache is not the library's own, or not all of the state
    continued: bool = True  # False: a call of `generate` cannot go on from a cache of other rows
    because: str = field(default="", compare=False)  # it is not stepped, or not replayed

    @property
    def remark(self) -> str:
        """What a stage says of it once; '' where there is nothing to say."""
        how = "in steps that are launched one by one" if self.stepped else BY_LIBRARY
        return f"sampled {how}, because {self.because}" if self.because else ""

    @property
    def padded(self) -> bool:
        """Whether prompts of different lengths may share a batch."""
        return self.cached

    @property
    def worth_dropping(self) -> float:
        """Share of finished rows that pays for one more call of `generate`."""
        from alignzoo.engine.sampling.picker import WORTH_DROPPING

        return WORTH_DROPPING if self.continued or not self.cached else 1.0


def way_of(model: PreTrainedModel) -> Way:
    """Step through a few tokens; where that is not exact, `generate` them.

    Activations on the modules themselves are a memory that belongs to no cache, and a cache of a
    family's own may hold more than its `reorder_cache` moves: such a model is sampled without a
    cache, prompts of one length at a time. Positions that modules keep hold for the rows of one
    call, and a cache that does not know its length, as of recurrent states, makes `generate` feed
    the whole sequence again: such a batch runs to its end. A family whose cached step is another
    function than its full forward is sampled without a cache too.
    """
    because = _why_not_stepped(model)
    if because:
        return _generated(model, because)
    if model.device.type != "cuda":
        return Way(stepped=True)
    because = _why_not_captured(model)
    return Way(stepped=True, captured=not because, because=because)


def _why_not_stepped(model: PreTrainedModel) -> str:
    """In words that follow 'because'; '' where steps give what full forwards give."""
    from alignzoo.engine.sampling.decoder import ModelDecoder
    from alignzoo.engine.sampling.stepped import why_not

    return why_not(model) or _fault(model, lambda steps: ModelDecoder(model))


def _why_not_captured(model: PreTrainedModel) -> str:
    """In words that follow 'because'; '' where replayed steps give what full forwards give."""
    from alignzoo.engine.sampling.static import Replaying, StaticDecoder, why_not_fixed

    if because := why_not_fixed(model):
        return because
    tried: list[Replaying] = []

    def decoder(steps: int) -> Replaying:
        tried.append(Replaying(StaticDecoder(model, steps + 1)))
        return tried[0]

    return _fault(model, decoder) or tried[0].refused


def _fault(model: PreTrainedModel, decoder: Callable[[int], Reader]) -> str:
    """What is wrong with the steps of a decoder for so many steps."""
    from alignzoo.engine.sampling.stepped import trial

    room, before = (context_of(model.config) or TRIED + 3) - 3, _ages(model)
    with sampling_mode(model):
        try:
            steps = max(1, min(TRIED, room))
            error = trial(model, decoder(steps), steps)
        except Exception as failure:  # whatever it is, `generate` knows the family's own way
            return f"{type(failure).__name__} came up when it was stepped"
    if not error <= _rounding(model):
        return f"steps through its cache differ from full forwards by {error:.1e}"
    return "its modules keep a memory of their own" if _new_states(model, before) else ""


def _generated(model: PreTrainedModel, because: str) -> Way:
    from transformers import DynamicCache

    before = _ages(model)
    config = model.config.get_text_config(decoder=True)
    ids = torch.tensor([[config.vocab_size // 3, config.vocab_size // 2]], device=model.device)
    room = (context_of(model.config) or TRIED + 2) - 2
    with sampling_mode(model):
        output = grow(
            model, ids, torch.ones_like(ids), None, max_new_tokens=max(1, min(TRIED, room))
        )
        new = _new_states(model, before)
        exact = _is_exact(model, output)
    cache = cache_of(output)
    if not exact or type(cache) is not DynamicCache or any(x.is_floating_point() for x in new):
        return Way(cached=False, because=because)
    continued = not new and _length(cache) == output.sequences.shape[1] - 1
    return Way(continued=continued, because=because)


@torch.no_grad()
def _is_exact(model: PreTrainedModel, output: Any) -> bool:
    """Whether the logits of cached steps are those of a full forward, up to rounding."""
    full = model(input_ids=output.sequences, use_cache=False).logits[0, 1:-1].float()
    steps = torch.cat(output.logits).float()
    error = (full - steps).abs().max() / (1 + full.abs().max())
    return bool(error <= _rounding(model))


def _rounding(model: PreTrainedModel) -> float:
    return ROUNDING.get(model.dtype, max(ROUNDING.values()))


def _ages(model: PreTrainedModel) -> dict[tuple[str, str], tuple[int, int]]:
    return {place: (id(x), age) for place, (x, age) in _states(model).items()}


def _new_states(
    model: PreTrainedModel, before: dict[tuple[str, str], tuple[int, int]]
) -> list[Tensor]:
    """Tensors that modules have written since."""
    found = _states(model).items()
    return [x for place, (x, age) in found if (id(x), age) != before.get(place)]


def _states(model: PreTrainedModel) -> dict[tuple[str, str], tuple[Tensor, int]]:
    """The tensors that modules hold beside their parameters and buffers, and how often written."""
    return {
        (name, key): (value, value._version)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, Tensor)
    }


def _length(cache: Any) -> int | None:
    try:
        return int(cache.get_seq_length())
    except (ValueError, AttributeError):  # a cache of recurrent states has no length
        return None


def grow(
    model: PreTrainedModel,
    ids: Tensor,
    attention: Tensor,
    cache: Any,
    *,
    use_cache: bool = True,
    max_new_tokens: int,
    **hooks: Any,
) -> Any:
    """Greedy `generate` from ids [L, S]; without hooks it takes the likeliest tokens."""
    config = _config(
        do_sample=False,  # a picker among the hooks has sampled already
        max_new_tokens=max_new_tokens,
        return_dict_in_generate=True,
        output_logits=not hooks,
        use_cache=use_cache,
    )
    from alignzoo.engine.sampling.cache import cache_word

    known = {} if cache is None else {cache_word(): cache}
    return cast(Any, model).generate(
        ids, attention_mask=attention, generation_config=config, **known, **hooks
    )


def cache_of(output: Any) -> Any:
    """The cache in what `generate` returned."""
    from alignzoo.engine.sampling.cache import cache_word

    return getattr(output, cache_word(), None)


@contextmanager
def sampling_mode(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode, neutral generation defaults and a wide head, all put back at the end.

    `generate` fills every unset option from the defaults in the model's folder, so a fresh
    config of our own does not suffice.
    """
    from alignzoo.engine.models.heads import product

    defaults = model.generation_config
    model.generation_config = _config()
    head = cast(Any, model.get_output_embeddings())
    own = {"forward": head.forward} if "forward" in vars(head) else {}
    head.forward = partial(product, head)  # never rounded to bf16, as in scoring
    try:
        with stepping_mode(model):
            yield
    finally:
        del head.forward
        vars(head).update(own)
        model.generation_config = defaults


@contextmanager
def stepping_mode(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode, put back at the end: all that our own steps need."""
    modules, was_training = list(model.modules()), model.training
    training = [module for module in modules if module.training]
    if training:
        cast(Any, model).eval()  # transformers leaves it untyped
    try:
        yield
    finally:
        if training:  # a frozen part may have been in evaluation mode before
            cast(Any, model).train(was_training)
            for module in modules:
                module.training = False
            for module in training:
                module.training = True
        for module in modules:
            _make_usable(module)


def _make_usable(module: torch.nn.Module) -> None:
    """What steps have left on a module cannot be trained with, because they ran in inference mode.

    A copy can.
    """
    for kept in (vars(module), module._buffers):
        for name, x in kept.items():
            if isinstance(x, Tensor) and x.is_inference():
                kept[name] = x.clone()


def _config(**options: Any) -> GenerationConfig:
    from transformers import GenerationConfig

    config: GenerationConfig = cast(Any, GenerationConfig)(**options)
    return config
