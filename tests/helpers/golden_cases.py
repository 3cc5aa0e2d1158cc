"""Golden vectors: finding the files, reading the cases, building batches, comparing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from shared_data import shared_folder
from torch import Tensor

from alignzoo import Batch, PairBatch, TextBatch
from alignzoo.contract.types import Item, Tokens

DTYPES = {"float64": torch.float64, "float32": torch.float32}


@dataclass(frozen=True)
class Case:
    """One case of one file, read in one precision."""

    file: str  # name without ".json"
    name: str
    inputs: Mapping[str, Any]
    expected: Mapping[str, Any]
    tolerance: Mapping[str, Any]
    dtype: torch.dtype = torch.float64

    @property
    def hparams(self) -> Mapping[str, Any]:
        return self.inputs["hparams"]

    def tensor(self, *keys: str) -> Tensor:
        """A floating-point input by its path."""
        return torch.tensor(_at(self.inputs, keys), dtype=self.dtype)

    def ints(self, *keys: str) -> Tensor:
        return torch.tensor(_at(self.inputs, keys), dtype=torch.int64)

    def bools(self, *keys: str) -> Tensor:
        return self.ints(*keys).bool()


def _at(tree: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        tree = tree[key]
    return tree


def golden_folder() -> Path:
    """Where the vectors lie: ALIGNZOO_GOLDEN, by default golden/ of the shared folder."""
    return Path(os.environ.get("ALIGNZOO_GOLDEN") or shared_folder() / "golden")


def golden_names() -> list[str]:
    """Names of the files that are there."""
    return sorted(path.stem for path in golden_folder().glob("*.json"))


def cases_of(file: str) -> Iterator[Case]:
    """The cases of a file; a case's own tolerance wins over the file's."""
    document = json.loads((golden_folder() / f"{file}.json").read_text(encoding="utf-8"))
    for case in document["cases"]:
        tolerance = case.get("tolerance", document["tolerance"])
        yield Case(file, case["name"], case["inputs"], case["expected"], tolerance)


# --- batches -----------------------------------------------------------------------------------


def tokens(ids: Tensor, attention: Tensor, prompt_len: int) -> Tokens:
    """One right-padded row as the tokeniser would have made it."""
    real = ids[: int(attention.sum())].tolist()
    return Tokens(tuple(real[:prompt_len]), tuple(real[prompt_len:]))


def text_batch(case: Case) -> TextBatch:
    """Prompt and response, collated from lengths."""
    rows = zip(
        case.ints("input_ids"), case.ints("attention_mask"), case.ints("prompt_lens"), strict=True
    )
    items = [Item((tokens(ids, attended, int(n)),)) for ids, attended, n in rows]
    return TextBatch.collate(items, pad_id=0)


def pair_batch(case: Case, first: str = "chosen", second: str = "rejected") -> PairBatch:
    """Pairs with the preferred side first."""
    sides = [
        zip(case.ints(s, "input_ids"), case.ints(s, "attention_mask"), strict=True)
        for s in (first, second)
    ]
    items = [
        Item(tuple(tokens(ids, attended, int(n)) for ids, attended in row))
        for n, *row in zip(case.ints("prompt_lens"), *sides, strict=True)
    ]
    return PairBatch.collate(items, pad_id=0)


def fit(x: Tensor, width: int) -> Tensor:
    """[B, S, ...] cut or padded with zeros to `width` columns."""
    out = x.new_zeros(x.shape[0], width, *x.shape[2:])
    kept = min(width, x.shape[1])
    out[:, :kept] = x[:, :kept]
    return out


def check_aligned(case: Case, batch: Batch, rows: slice, *side: str) -> None:
    """The mask and labels that the file gives are those the batch makes from lengths."""
    labels, mask = case.ints(*side, "aligned_labels"), case.bools(*side, "aligned_mask")
    width = mask.shape[1]
    assert torch.equal(fit(batch.mask[rows], width), mask)
    assert torch.equal(fit(batch.labels[rows], width) * mask, labels * mask)


# --- comparing ---------------------------------------------------------------------------------


def compare(case: Case, got: Mapping[str, Any]) -> None:
    """Every expected value, at the tolerance of the precision; an unknown one is a failure."""
    wrong = list(_differences(case, case.expected, got, ""))
    assert not wrong, f"{case.file}/{case.name}:\n" + "\n".join(wrong)


def _differences(case: Case, expected: Any, got: Any, path: str) -> Iterator[str]:
    if isinstance(expected, Mapping):
        for key, value in expected.items():
            if key in got:
                yield from _differences(case, value, got[key], f"{path}/{key}")
            else:
                yield f"no check for expected {path}/{key}"
        return
    bounds = case.tolerance if case.dtype == torch.float64 else case.tolerance["float32"]
    mine = torch.as_tensor(got).detach().double().numpy()
    theirs = numpy.asarray(expected, dtype=numpy.float64)
    if mine.shape != theirs.shape:
        yield f"{path}: shape {mine.shape}, not {theirs.shape}"
    elif not numpy.allclose(mine, theirs, bounds["rtol"], bounds["atol"]):
        yield f"{path}: off by {numpy.abs(mine - theirs).max():.3g}"


def known_keys(given: Mapping[str, Any], known: set[str], what: str) -> None:
    """An input that the check does not look at may change what is expected."""
    unknown = sorted(set(given) - known)
    assert not unknown, f"no check knows the {what} {unknown}"
