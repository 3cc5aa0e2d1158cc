"""The contract of a stage that a plug-in adds: a step with its own control flow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from alignzoo.contract.algorithm import Role
from alignzoo.contract.types import Sample


@dataclass(frozen=True)
class ModelRef:
    """A model by name: a folder, a hub name, or a name that a plug-in's `load_model` knows."""

    name: str
    seed: int = 0
    revision: str | None = None
    attn_implementation: str | None = None  # in transformers' words; None: the model's default

    @property
    def path(self) -> Path:
        """The name as a path; it may not exist."""
        return Path(self.name)

    @property
    def names_folder(self) -> bool:
        """Whether only a folder can be called so, and no model of the hub."""
        return self.name.startswith((".", "/", "~")) or self.name.count("/") > 1


@dataclass(frozen=True)
class StageInputs:
    """What a stage gets: its models and data as the recipe bound them, and a folder to fill.

    A model goes to `folder/"model"` (transformers layout), samples to `folder/"data.jsonl"`.
    """

    folder: Path
    models: Mapping[str, ModelRef]
    data: Iterable[Sample]
    seed: int
    log: Callable[[Mapping[str, float]], None]


class Stage:
    """Base of plug-in stages: a frozen dataclass of options.

    Use it for methods whose control flow does not fit `Algorithm.loss` (search, self-play).

    A stage that declares what it reads is checked before anything is loaded: every model of
    `reads_models` must be bound in the recipe and no other, and its data must be of the kinds in
    `reads_data` ((): it takes none). None, the default, promises nothing.
    """

    name: ClassVar[str]
    reads_models: ClassVar[Mapping[str, Role] | None] = None  # by its name under `models:`
    reads_data: ClassVar[tuple[type[Sample], ...] | None] = None
    example_options: ClassVar[Mapping[str, Any]] = {}

    def run(self, inputs: StageInputs) -> None:
        """Do the work and leave the result in `inputs.folder`."""
        raise TypeError(f"{type(self).__name__} defines no run")
