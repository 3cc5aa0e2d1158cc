"""Judges: an OpenAI-compatible endpoint, a local model, recorded replies, your function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignzoo import hookimpl
from alignzoo_judges.endpoint import Endpoint
from alignzoo_judges.function import Function
from alignzoo_judges.local import LocalModel
from alignzoo_judges.replay import Replay

if TYPE_CHECKING:
    from alignzoo import Judge


@hookimpl
def register_judges() -> list[type[Judge]]:
    """Three judges that are asked in words, and one that scores."""
    return [Endpoint, LocalModel, Replay, Function]
