"""How long a text a model was made for. Importing this does not import transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo.contract.reach import context_and_why, reach_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def context_of(config: PretrainedConfig) -> int | None:
    """The longest sequence of a model, in tokens; None: no fixed context."""
    return _context(config)[0]


def why_context(config: PretrainedConfig) -> str:
    """Why that is not the length which the config states, for a message; '' where it is."""
    return _context(config)[1]


def longest_row(config: PretrainedConfig) -> int | None:
    """Tokens beyond which a row is read otherwise beside a longer one; None: never."""
    text = config.get_text_config(decoder=True)
    return reach_of(_stated(text), lambda name: getattr(text, name, None))


def _context(config: PretrainedConfig) -> tuple[int | None, str]:
    text = config.get_text_config(decoder=True)
    return context_and_why(_stated(text), lambda name: getattr(text, name, None))


def _stated(text: PretrainedConfig) -> int | None:
    found = getattr(text, "max_position_embeddings", None)
    return None if found is None else int(found)
