"""Closed forms: a signal's rows and their gradient by formula, without a graph over the vocabulary.

Optional, and for speed alone: `reduce` says what a signal is. A form is given a block: a few rows
[b, V] of every role's logits, cut by the engine so that what a form makes stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import torch

if TYPE_CHECKING:
    from torch import Tensor

# Row or rows [b], and {role: d row / d logits [b, V]} of the row with gradient.
Derived: TypeAlias = tuple[Union["Tensor", Mapping[str, "Tensor"]], Mapping[str, "Tensor"]]


class Scratch:
    """What the forms of one block share: storage that is used again, and distributions made once.

    Fresh memory costs as much as the arithmetic on it, so nothing [b, V] is made twice.
    """

    def __init__(self) -> None:
        self._storage: dict[tuple[Any, ...], Tensor] = {}
        self._outputs: Mapping[str, Tensor] = {}
        self._apart: Collection[str] = ()
        self._rounded: Collection[str] = ()
        self._scaled: dict[tuple[str, float], Scaled] = {}
        self.asked = False  # for storage, since the block began

    def begin(
        self,
        outputs: Mapping[str, Tensor],
        apart: Collection[str] = (),
        rounded: Collection[str] = (),
    ) -> None:
        """The next block: {role: [b, V]} in storage that may be written over.

        Of the roles in `apart` several forms make a gradient, so none may be written over logits.
        The gradients of those in `rounded` are next multiplied in bfloat16.
        """
        self._outputs, self._apart, self.asked = outputs, apart, False
        self._rounded = rounded
        self._scaled.clear()

    def empty(self, name: str, like: Tensor) -> Tensor:
        """Storage of the shape of `like` [b, V] with anything in it; always the same of a name."""
        self.asked = True
        key = (name, *like.shape[1:], like.dtype, like.device)
        kept = self._storage.get(key)
        if kept is None or len(kept) < len(like):
            kept = self._storage[key] = torch.empty_like(
                like, memory_format=torch.contiguous_format
            )
        return kept[: len(like)]

    def logits(self, role: str) -> Tensor:
        """[b, V] up to a constant per row: some form may have left log-probabilities there."""
        return self._outputs[role]

    def probs(self, role: str, temperature: float = 1.0) -> Tensor:
        """[b, V] softmax(logits / temperature); to be read only."""
        return self._of(role, temperature).probs

    def log_probs(self, role: str, temperature: float = 1.0) -> Tensor:
        """[b, V] log softmax(logits / temperature); to be read only.

        At temperature 1 it takes the place of the logits.
        """
        return self._of(role, temperature).log_probs()

    def label_log_prob(self, role: str, labels: Tensor) -> Tensor:
        """[b] log p(label)."""
        return self._of(role, 1.0).label_log_prob(labels)

    def gradient(self, role: str) -> Tensor:
        """[b, V] where d row / d logits of a role is to be written, last of all.

        It may be the storage of the logits and log-probabilities: read none of them afterwards.
        """
        logits = self._outputs[role]
        return self.empty(f"gradient of {role}", logits) if role in self._apart else logits

    def rounded_gradient(self, role: str) -> Tensor:
        """As `gradient`, for a form that may write bfloat16: that needs no pass of its own later.

        It lies over the first half of the same row of logits: read a token before its place is
        written, in rising order.
        """
        if role not in self._rounded or role in self._apart:
            return self.gradient(role)
        logits = self._outputs[role]
        return logits.view(torch.bfloat16)[:, : logits.shape[1]]

    def _of(self, role: str, temperature: float) -> Scaled:
        found = self._scaled.get((role, temperature))
        if found is None:
            logits, suffix = self._outputs[role], f"{role} at {temperature}"
            if temperature != 1.0:
                logits = torch.div(logits, temperature, out=self.empty(suffix, logits))
            found = Scaled(logits, self.empty(f"probs of {suffix}", logits))
            self._scaled[role, temperature] = found
        return found


class Scaled:
    """Logits [b, V], their softmax, and when asked for, in their place, their log-probabilities."""

    def __init__(self, logits: Tensor, probs: Tensor) -> None:
        """Fill `probs`.

        The softmax of float32 is off by up to 6e-6, because its sum is taken term by term; so it
        is divided once more by a sum in pairs. log p = z - max z + log max p, whatever the size of
        the logits.
        """
        torch.softmax(logits, -1, out=probs)
        probs.mul_(probs.sum(-1, keepdim=True).reciprocal_())
        self.logits, self.probs = logits, probs
        self._peak = logits.amax(-1, keepdim=True)
        self._log_top = probs.amax(-1, keepdim=True).log_()
        self._normalised = False

    def log_probs(self) -> Tensor:
        """[b, V] in the storage of the logits."""
        if not self._normalised:
            self.logits.sub_(self._peak).add_(self._log_top)
            self._normalised = True
        return self.logits

    def label_log_prob(self, labels: Tensor) -> Tensor:
        """[b] log p(label)."""
        picked = self.logits.gather(-1, labels[:, None])
        if not self._normalised:
            picked = picked.sub_(self._peak).add_(self._log_top)
        return picked.squeeze(-1)


# (outputs of a block, labels [b], scratch, roles whose gradient is wanted)
Closed: TypeAlias = Callable[[Mapping[str, "Tensor"], "Tensor", Scratch, Collection[str]], Derived]


@dataclass(frozen=True)
class Bound:
    """A form and the `reduce` that it is the form of: of another one it would be a wrong number."""

    form: Closed
    reduce: Callable[..., Any]

    def __call__(
        self,
        outputs: Mapping[str, Tensor],
        labels: Tensor,
        scratch: Scratch,
        wanted: Collection[str],
    ) -> Derived:
        """What the form gives."""
        return self.form(outputs, labels, scratch, wanted)


def bound(form: Closed | None, reduce: Callable[..., Any]) -> Bound | None:
    """The form, if it is that of `reduce`.

    It is not where `reduce` was replaced in a signal that had a form, nor where a class has a
    `reduce` of its own and inherits the form.
    """
    if form is None:
        return None
    if isinstance(form, Bound):
        return form if form.reduce == reduce else None
    return None if _older(form, reduce) else Bound(form, reduce)


@dataclass(frozen=True)
class Own:
    """A `reduce` that is all this package's, and its form, which is too."""

    compute: Callable[..., Any]
    form: Closed | None

    def __call__(self, outputs: Mapping[str, Tensor], labels: Tensor) -> Any:
        """What it computes."""
        return self.compute(outputs, labels)


def is_own(reduce: Callable[..., Any], form: Closed | None) -> bool:
    """Whether no code but this package's makes a signal's values, so that methods may share them.

    A signal that was given another `reduce` or form is not, whatever module these say they are of.
    """
    return isinstance(reduce, Own) and form in (None, bound(reduce.form, reduce))


def _older(form: Closed, reduce: Callable[..., Any]) -> bool:
    """Whether two methods of one object come from a class and, the second, from a later one."""
    if not (isinstance(form, MethodType) and isinstance(reduce, MethodType)):
        return False
    if form.__self__ is not reduce.__self__:
        return False
    order = [vars(cls) for cls in type(form.__self__).__mro__]
    first = [next(n for n, x in enumerate(order) if m.__name__ in x) for m in (form, reduce)]
    return first[0] > first[1]
