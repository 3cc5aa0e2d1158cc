"""What stands behind the body: a linear layer, and what the model makes of its output.

Some families scale or cap their logits after the output layer. Their configs name the numbers
under different keys, and one key is a factor in one family and a divisor in another; so the
candidates are read from the config, and the model itself says which one it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel

from alignzoo.contract.errors import PluginError

CAPS = ("final_logit_softcapping", "logits_soft_cap")
SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
PROBE_IDS = 16  # tokens of the sequence on which a model's head is checked
WIDEST = 256.0  # logits up to this size are tried
CLOSE = 1e-4  # of float32 logits that are computed twice


@dataclass(frozen=True)
class Transform:
    """cap * tanh(x * factor / divisor / cap), without the parts that are None."""

    factor: float | None = None
    divisor: float | None = None
    cap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """Same shape; the very tensor when there is nothing to do."""
        if self.factor is not None:
            logits = logits * self.factor
        if self.divisor is not None:
            logits = logits / self.divisor
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


PLAIN = Transform()


@dataclass(frozen=True)
class Head:
    """The layer between the body's hidden states and the logits or values."""

    linear: nn.Linear
    transform: Transform = PLAIN
    still: bool = False  # no gradient goes into it, though the layer may learn

    @property
    def width(self) -> int:
        """V of a language model, 1 of a scalar head."""
        return self.linear.out_features

    def __call__(self, hidden: Tensor) -> Tensor:
        """[n, V] or [n, 1] in at least float32, whatever the inputs.

        Rounding logits to bfloat16 costs AlignDistil 5-23 % of gradient accuracy, because alpha
        multiplies their difference; so inputs are widened before the product.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.still):
            return self.transform(product(self.linear, hidden))

    def widened(self) -> Widened:
        """The same function for many calls without gradient, as long as the weights stay."""
        weight, bias = self.linear.weight.detach(), self.linear.bias
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return Widened(weight.to(dtype), None if bias is None else bias.to(dtype), self.transform)


@dataclass(frozen=True)
class Widened:
    """A head whose weights have been widened once."""

    weight: Tensor
    bias: Tensor | None
    transform: Transform

    def __call__(self, hidden: Tensor) -> Tensor:
        """[n, V] in at least float32."""
        hidden = hidden.to(self.weight.dtype)
        if not torch.is_autocast_enabled(hidden.device.type):
            return self.transform(functional.linear(hidden, self.weight, self.bias))
        with torch.autocast(hidden.device.type, enabled=False):
            return self.transform(functional.linear(hidden, self.weight, self.bias))


def product(linear: nn.Linear, hidden: Tensor) -> Tensor:
    """A linear layer in at least float32, outside any autocast."""
    weight, bias = linear.weight, linear.bias
    dtype = torch.promote_types(weight.dtype, torch.float32)
    with torch.autocast(hidden.device.type, enabled=False):
        wide = None if bias is None else bias.to(dtype)
        return functional.linear(hidden.to(dtype), weight.to(dtype), wide)


def head_of(model: PreTrainedModel) -> Head:
    """The scalar head of a sequence classifier, or the output layer with what follows it.

    Raises PluginError when the model's logits are not a known function of its output layer.
    """
    score = getattr(model, "score", None)
    if score is not None:
        return Head(cast(nn.Linear, score))
    linear = _output_layer(model)
    possible = _candidates(model.config.get_text_config())
    if len(possible) == 1:  # what `check_head` has verified needs no second trial
        return Head(linear)
    tried = torch.linspace(-WIDEST, WIDEST, linear.out_features, device=linear.weight.device)
    made = _logits(model, probe_ids(model)[:, :1], lambda hidden: tried.expand(1, 1, -1))[0, 0]
    for transform in possible:
        expected = transform(tried)
        if made.shape == expected.shape and _distance(made, expected) <= CLOSE:
            return Head(linear, transform)
    raise _unknown(model)


def body_of(model: PreTrainedModel) -> nn.Module:
    """The part that makes the head's hidden states; some families do not say which it is."""
    if model.base_model is not model:
        return model.base_model
    decoder = model.get_decoder()
    if decoder is not model:
        return body_of(decoder)
    inner = [part for part in model.children() if isinstance(part, PreTrainedModel)]
    return body_of(inner[0]) if len(inner) == 1 else model


@torch.no_grad()
def check_head(model: PreTrainedModel) -> None:
    """The model's own logits on real ids must be head(body(x)); else PluginError.

    The output layer's product is taken in float32 on both sides, whatever the precision, so that
    rounding hides nothing; what follows the layer is tried on logits of every size.
    """
    linear = _output_layer(model)
    ids = probe_ids(model)
    own = _logits(model, ids, lambda hidden: product(linear, hidden))
    with evaluating(model):
        hidden = body_of(model)(input_ids=ids, use_cache=False).last_hidden_state
    head = head_of(model)
    ours = head(hidden.to(linear.weight.dtype))  # some bodies keep float32, which the layer rounds
    if own.shape != ours.shape or _distance(own, ours) > CLOSE:
        raise _unknown(model)
    tried = torch.linspace(-WIDEST, WIDEST, head.width, device=ids.device)
    made = _logits(model, ids[:, :1], lambda hidden: tried.expand(1, 1, -1))[0, 0]
    if _distance(made, head.transform(tried)) > CLOSE:
        raise _unknown(model)


@torch.no_grad()
def called_in(model: PreTrainedModel, parts: Mapping[str, nn.Module]) -> set[str]:
    """Which of these parts a pass of the body over a few ids calls for a tensor."""
    called: set[str] = set()

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            called.add(name)

    hooks = [part.register_forward_hook(partial(note, name)) for name, part in parts.items()]
    try:
        with evaluating(model):
            body_of(model)(input_ids=probe_ids(model), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return called


def _unknown(model: PreTrainedModel) -> PluginError:
    return PluginError(
        f"{type(model).__name__} changes its logits after the output layer in a way that is not "
        f"known; supported are a plain linear layer, soft-capping ({', '.join(CAPS)}) and scaling "
        f"({', '.join(SCALES)}) as its config names them"
    )


def _output_layer(model: PreTrainedModel) -> nn.Linear:
    layer = model.get_output_embeddings()
    if not isinstance(layer, nn.Linear):
        raise PluginError(
            f"{type(model).__name__} has no linear output layer; a language model needs one"
        )
    return layer


def _candidates(config: PreTrainedConfig) -> list[Transform]:
    """Everything that the config's numbers may mean, the most special first."""
    caps = [float(cap) for name in CAPS if (cap := getattr(config, name, None))]
    scales = [float(x) for name in SCALES if (x := getattr(config, name, None)) not in (None, 1)]
    scaled = [{kind: x} for x in scales for kind in ("factor", "divisor")]
    return [Transform(**s, cap=cap) for s in [*scaled, {}] for cap in [*caps, None]]


def probe_ids(model: PreTrainedModel) -> Tensor:
    """[1, n] ids from all over the vocabulary, without those that stand for images or sound."""
    config = model.config
    text = config.get_text_config()
    special = {
        value
        for part in (config, text)
        for name, value in vars(part).items()
        if name.endswith(("_token_id", "_token_index")) and isinstance(value, int)
    }
    usual = [i for i in range(text.vocab_size) if i not in special] or [0]
    chosen = [usual[k * (len(usual) - 1) // (PROBE_IDS - 1)] for k in range(PROBE_IDS)]
    return torch.tensor([chosen], device=model.device)


def _logits(model: PreTrainedModel, ids: Tensor, instead: Callable[[Tensor], Tensor]) -> Tensor:
    """The model's logits when its output layer computes `instead` of the hidden states."""

    def replaced(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return instead(inputs[0])

    hook = _output_layer(model).register_forward_hook(replaced)
    try:
        with torch.no_grad(), evaluating(model):
            logits: Tensor = model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
    return logits


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """A model without dropout and noise; afterwards its parts are in the modes that they had."""
    modes = [(module, module.training) for module in model.modules()]
    cast(Any, model).eval()  # transformers leaves it untyped
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _distance(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the largest entry."""
    return ((a.to(b) - b).abs().max() / (1 + b.abs().max())).item()
