"""What a model's folder says about itself without being loaded: its head, its size, its ids."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignzoo.data.vocabulary import Vocabulary, vocabulary_in
from alignzoo.store.files import read_json

Head = Literal["lm", "scalar"]
SCALAR_HEAD = "score.weight"
SPEAKERS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")  # ends of class names
WIDTHS = ("hidden_size", "n_embd", "d_model")  # as configs call H
LONGEST_HEADER = 100_000_000  # bytes; the format allows no longer one


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder; None is what it does not tell."""

    kind: str  # the class of its config.json, such as "LlamaForCausalLM"
    head: Head | None
    outputs: int | None  # of the scalar head
    rows: int | None  # ids that the embedding holds
    vocabulary: Vocabulary | None
    quantized: bool = False
    hidden: int | None = None  # H of the states before its head


def checkpoint_in(folder: Path) -> Checkpoint | None:
    """What a folder holds; None when there is no config.json in it."""
    if not (folder / "config.json").is_file():
        return None
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return _read(folder.resolve(), tuple((p.name, p.stat().st_mtime_ns) for p in files))


@functools.lru_cache(maxsize=16)
def _read(folder: Path, _state: tuple[tuple[str, int], ...]) -> Checkpoint:
    """`_state` is here for the memory only: a folder that changed is read again."""
    config = read_json(folder / "config.json")
    kinds = config.get("architectures") or [""]
    shapes = tensor_shapes(folder)
    score = shapes.get(SCALAR_HEAD) if shapes else None
    return Checkpoint(
        kind=str(kinds[0]),
        head=_head(str(kinds[0]), shapes),
        outputs=int(score[0]) if score else None,
        rows=_number(config, ("vocab_size",)),
        vocabulary=vocabulary_in(folder),
        quantized=bool(config.get("quantization_config")),
        hidden=_number(config, WIDTHS),
    )


def head_in(folder: Path) -> Head | None:
    """Which head the model in a folder has; None when the folder does not tell."""
    kinds = read_json(folder / "config.json").get("architectures") or [""]
    return _head(str(kinds[0]), tensor_shapes(folder))


def loader_of(folder: Path) -> str:
    """The class of transformers that loads the model in a folder."""
    scalar = head_in(folder) == "scalar"
    return "AutoModelForSequenceClassification" if scalar else "AutoModelForCausalLM"


def _head(kind: str, shapes: Mapping[str, list[int]] | None) -> Head | None:
    """A scalar head is a tensor; a language model's may be the embedding, under no name."""
    if shapes is not None and SCALAR_HEAD in shapes:
        return "scalar"
    return "lm" if kind.endswith(SPEAKERS) else None


def _number(config: Mapping[str, Any], names: Sequence[str]) -> int | None:
    """The first of some keys that is there, of the part that reads text before the whole."""
    blocks = [x for x in (config.get("text_config"), config) if isinstance(x, dict)]
    found = (block.get(name) for block in blocks for name in names)
    return next((x for x in found if isinstance(x, int)), None)


def tensor_shapes(folder: Path) -> dict[str, list[int]] | None:
    """The shape of every tensor, from the headers of the safetensors files; None without any."""
    files = sorted(folder.glob("*.safetensors"))
    try:
        headers = [_header(path) for path in files]
    except (OSError, ValueError, RecursionError):
        return None  # loading it says what is wrong
    found = {
        name: entry["shape"]
        for header in headers
        for name, entry in header.items()
        if name != "__metadata__" and isinstance(entry, dict) and "shape" in entry
    }
    return found or None


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > LONGEST_HEADER:
            raise ValueError(f"{path}: no safetensors file")
        header = json.loads(file.read(size))
    return header if isinstance(header, dict) else {}
