"""The load-balancing loss of a mixture of experts, exactly as transformers computes it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

COEFFICIENTS = ("router_aux_loss_coef", "aux_loss_coef")
PER_TOKEN = ("num_experts_per_tok", "top_k")


@dataclass(frozen=True)
class Router:
    """E sum_e f_e P_e over all layers: share of tokens and mean probability of expert e.

    arXiv:2101.03961 Eq. 4-6; `function` is the one in the model's own file.
    """

    coefficient: float  # of the model's config
    experts: int  # E
    per_token: int
    function: Callable[..., Tensor]

    def loss(self, logits: tuple[Tensor, ...], attention: Tensor) -> Tensor:
        """[] from the router logits of every layer and attention [n, S]; padding does not count."""
        mask = None if bool(attention.all()) else attention.long()
        return self.function(logits, self.experts, self.per_token, mask)


def router_of(model: PreTrainedModel) -> Router | None:
    """What balances the experts of a model; None: it has none, or transformers knows no loss."""
    places = (model, model.config.get_text_config())
    coefficient = _first(places, COEFFICIENTS)
    experts, per_token = _first(places, ("num_experts",)), _first(places, PER_TOKEN)
    function = next(_functions(model), None)
    if not (coefficient and experts and per_token and function):
        return None
    return Router(float(coefficient), int(experts), int(per_token), function)


def _functions(model: PreTrainedModel) -> Iterator[Callable[..., Tensor]]:
    for kind in type(model).__mro__:  # a subclass may live in another file
        function = getattr(sys.modules[kind.__module__], "load_balancing_loss_func", None)
        if function is not None:
            yield function


def _first(places: tuple[Any, ...], names: tuple[str, ...]) -> Any:
    found = (getattr(place, name, None) for place in places for name in names)
    return next((x for x in found if isinstance(x, (int, float))), None)
