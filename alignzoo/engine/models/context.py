"""How long a text a model was made for. Importing this does not import transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def context_of(config: PretrainedConfig) -> int | None:
    """The longest sequence of a model, in tokens; None: no fixed context."""
    found = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return None if found is None else int(found)
