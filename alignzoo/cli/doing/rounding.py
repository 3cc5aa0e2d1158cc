"""Weights of a transformers folder in another precision, without knowing its architecture."""

from __future__ import annotations

from pathlib import Path

from alignzoo.store.files import read_json, write_json

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}  # as recipes write them -> as config.json does


def round_weights(folder: Path, dtype: str) -> None:
    """Round every floating-point tensor of a transformers folder, and say so in its config.

    An adapter has no such config.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from alignzoo.engine.models.tensors import open_to_readers

    size = 0
    for file in sorted(folder.glob("*.safetensors")):
        tensors = {
            name: x.to(getattr(torch, dtype)) if x.is_floating_point() else x
            for name, x in load_file(file).items()
        }
        save_file(tensors, file, metadata={"format": "pt"})
        open_to_readers(file)
        size += sum(x.nbytes for x in tensors.values())
    if config := read_json(folder / "config.json"):
        for part in (config, *(x for x in config.values() if isinstance(x, dict) and "dtype" in x)):
            part["dtype"] = dtype
        write_json(folder / "config.json", config)
    if index := read_json(folder / "model.safetensors.index.json"):
        index["metadata"]["total_size"] = size
        write_json(folder / "model.safetensors.index.json", index)
