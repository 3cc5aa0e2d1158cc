"""The promises of a dataset."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch

from alignzoo.contract.dataset import Dataset
from alignzoo.contract.types import Sample
from alignzoo.data.rows import row_from_sample, sample_from_row
from alignzoo.testing.checks import (
    Check,
    Trial,
    documented,
    explained,
    raise_broken,
    require,
    survive_yaml,
    try_all,
)

READ = 50  # samples that are looked at; a dataset may be endless


def check_dataset(dataset: Dataset) -> None:
    """Raise PluginError with every promise of the contract that a dataset breaks."""
    raise_broken(dataset.name, run_dataset_checks(dataset))


def run_dataset_checks(dataset: Dataset) -> list[Check]:
    """Try the first samples of a dataset."""
    return try_all(_promises(dataset), dataset, "samples")


def _promises(dataset: Dataset) -> Iterator[tuple[str, Trial]]:
    yield "docstring", lambda: documented(dataset)
    yield "options are frozen and survive YAML", lambda: survive_yaml(dataset)
    yield "options are explained", lambda: explained(dataset)
    yield "it yields samples", lambda: _samples(dataset)
    yield "equal seeds give equal samples, whatever else is random", lambda: _repeat(dataset)
    yield "a sample survives being written and read", lambda: _written(dataset)


def _first(dataset: Dataset, noise: int = 0) -> list[Sample]:
    """The first samples of seed 0, while every other source of randomness stands elsewhere."""
    random.seed(noise)
    np.random.seed(noise)
    torch.manual_seed(noise)
    return list(islice(dataset.samples(0), READ))


def _samples(dataset: Dataset) -> str:
    found = _first(dataset)
    require(bool(found), "no samples")
    odd = [sample for sample in found if not isinstance(sample, Sample)]
    require(not odd, f"{odd[:1]!r:.60} is no sample")
    return ", ".join(sorted({type(sample).__name__ for sample in found}))


def _repeat(dataset: Dataset) -> str:
    one, two = _first(dataset, 1), _first(dataset, 2)
    require(bool(two), "a second call gives no samples")
    require(one == two, "a second call gives other samples")
    return ""


def _written(dataset: Dataset) -> str:
    for number, sample in enumerate(_first(dataset), 1):
        again = sample_from_row(json.loads(json.dumps(row_from_sample(sample))))
        require(again == sample, f"sample {number} comes back as {again!r:.80}")
    return ""
