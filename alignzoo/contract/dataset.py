"""The contract of a dataset that a plug-in provides; files and hub names are read by the core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from alignzoo.contract.types import Sample


class Dataset:
    """Base of plug-in datasets: a frozen dataclass of options made with `option(...)`.

    `name` is what a recipe writes under `data:`; equal options and seed give equal samples. One
    that defines `__len__`, its number of samples, lets `alignzoo plan` count steps.
    """

    name: ClassVar[str]
    example_options: ClassVar[Mapping[str, Any]] = {}

    def samples(self, seed: int) -> Iterable[Sample]:
        """The samples, in a fixed order that depends on the options and the seed alone."""
        raise TypeError(f"{type(self).__name__} defines no samples")
