"""The options of the engine, and what is refused before a server is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from alignzoo import DataError, RolloutEngine, option

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alignzoo import RolloutSession


@dataclass(frozen=True)
class VLLM(RolloutEngine):
    """Samples from a vLLM server that is given the trainer's weights, and proves that it has them.

    Source: https://docs.vllm.ai, version 0.32. After every sync the server's log-probs of a few
    probe tokens must be those of a transformers forward with the weights that were handed over.
    Every process of the trainer has a server of its own.
    """

    name: ClassVar[str] = "vllm"
    python: str | None = option(None, "interpreter with vLLM; null: $ALIGNZOO_VLLM_PYTHON, or this")
    address: str | None = option(None, "a running server instead: http://HOST:PORT")
    folder: str | None = option(None, "where weights are handed over; null: shared memory")
    dtype: Literal["float32", "bfloat16"] = option("float32", "what the server computes in")
    max_model_len: int | None = option(None, "longest prompt plus answer; null: the context", gt=0)
    gpu_memory_utilization: float = option(0.3, "the server's share of the memory", gt=0, le=1)
    sleep: bool = option(False, "on a GPU: give its memory back after sampling (never run yet)")
    startup: float = option(600.0, "seconds until the server must be ready", gt=0)
    deadline: float = option(300.0, "seconds until a sync or an answer counts as lost", gt=0)
    concurrency: int = option(64, "requests under way at once", gt=0)
    arguments: str = option("", "further arguments of the server, as on its command line")

    def identity(self) -> Mapping[str, Any]:
        """What the server computes in, and how far; not where it is and how long it may take."""
        return {name: getattr(self, name) for name in ("dtype", "max_model_len", "arguments")}

    @property
    def interpreter(self) -> str:
        """The Python that runs the server."""
        return self.python or os.environ.get("ALIGNZOO_VLLM_PYTHON") or sys.executable

    def start(self, model: PreTrainedModel) -> RolloutSession:
        """A session, whose server is started with the first weights.

        Raises DataError for what can be seen not to work, TrainingError when nobody answers.
        """
        if self.sleep and model.device.type != "cuda":
            raise DataError("vllm: a server sleeps only on a GPU; leave `sleep` out")
        if self.address and os.environ.get("WORLD_SIZE", "1") != "1":
            raise DataError("vllm: several processes need a server each; leave `address` out")
        from alignzoo_vllm.session import Session

        return Session(self, model)
