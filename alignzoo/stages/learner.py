"""How the model that learns reads text, and where its answers end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import DataError
from alignzoo.contract.stage import ModelRef
from alignzoo.data.ends import end_ids
from alignzoo.data.reader import Embedding, Reader
from alignzoo.engine.models.bounds import Bounds, bounds_by_name
from alignzoo.recipe.blocks import USUAL_LENGTH, DataSpec
from alignzoo.recipe.training import too_wide
from alignzoo.stages.reading import rules_of

if TYPE_CHECKING:
    from pluggy import HookRelay
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Learner:
    """How the model that learns reads text, and where its answers end."""

    tokenizer: PreTrainedTokenizerBase
    ends: tuple[int, ...]
    bounds: Mapping[ModelRef, Bounds]  # of all models that read the sequences
    embedding: Embedding

    @property
    def contexts(self) -> Mapping[str, int]:
        """Model -> the longest sequence it can read, in tokens, where it has a limit."""
        return {ref.name: b.context for ref, b in self.bounds.items() if b.context is not None}

    @property
    def context(self) -> int | None:
        """The longest sequence that every model can read; None: no limit."""
        return min(self.contexts.values(), default=None)

    def max_length(self, spec: DataSpec) -> int:
        """The longest sequence of a data source.

        Raises DataError when the recipe asks for more than a model's context.
        """
        for ref, bound in self.bounds.items():
            context = bound.context
            if spec.max_length is not None and context is not None and spec.max_length > context:
                wide = too_wide(spec.max_length, ref.name, f"{context}{bound.why}")
                raise DataError(f"data.max_length: {wide}; lower it, or leave it out")
        return spec.max_length or min(USUAL_LENGTH, self.context or USUAL_LENGTH)

    def reader(self, spec: DataSpec) -> Reader:
        """How it reads the data of a block."""
        return Reader(self.tokenizer, rules_of(spec), self.ends, self.embedding)


def learner_of(
    tokenizer: PreTrainedTokenizerBase,
    refs: Mapping[str, ModelRef],
    main: str,
    algorithm: Algorithm[Any],
    hooks: HookRelay,
) -> Learner:
    """What all roles together can read, and the ends of the main one."""
    roles = algorithm.roles
    kinds = {**{ref: roles[role] for role, ref in refs.items()}, refs[main]: roles[main]}
    bounds = {ref: bounds_by_name(hooks, ref, kind) for ref, kind in kinds.items()}
    own = bounds[refs[main]]
    embedding = Embedding(refs[main].name, own.ids)
    return Learner(tokenizer, end_ids(tokenizer, own.ends), bounds, embedding)
