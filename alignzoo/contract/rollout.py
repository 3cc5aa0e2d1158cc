"""The contract of a rollout engine: prompts in, sampled tokens out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from alignzoo.contract.errors import DataError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

COLD = 1e-30  # below this temperature logits / temperature overflow in float32


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled. Token ids in, token ids out; text is made elsewhere."""

    max_new_tokens: int = 64
    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    min_new_tokens: int = 0  # before a stop token, which does not count
    stop_ids: tuple[int, ...] = ()  # any of them ends a response and is its last token

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken: at 0, and where nothing could tell it from 0."""
        return self.temperature < COLD


@dataclass(frozen=True)
class Completion:
    """One sampled response."""

    ids: tuple[int, ...]  # stop token included when there is one
    log_probs: tuple[float, ...]  # full vocabulary, temperature 1, as the engine saw it; under the
    # mixture where it samples from one
    ended: bool  # a stop token was sampled within the limit


def sample_key(*parts: int | str) -> int:
    """A 64-bit key from (seed, step, prompt, sample): the only source of sampling noise.

    A sample depends on its key and its prompt, not on batch layout, rank or micro-batch.
    """
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def check_request(
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    vocabulary: int,
    context: int | None,
    why: str = "",
) -> None:
    """Raise DataError for what a model cannot be asked, before anything is sampled.

    `vocabulary` is its number of ids, `context` the tokens that prompt and response may have
    together, None: any number; `why` says behind it why it is not the one that the model states.
    """
    belongs = "use the tokenizer that belongs to the model"
    for i, prompt in enumerate(prompts):
        need = len(prompt) + sampling.max_new_tokens
        if not prompt:
            raise DataError(f"prompt {i}: no tokens; a prompt needs at least one")
        if max(prompt) >= vocabulary:
            raise DataError(
                f"prompt {i}: holds id {max(prompt)}, but the model's vocabulary has "
                f"{vocabulary}; {belongs}"
            )
        if context is not None and need > context:
            raise DataError(
                f"prompt {i}: {len(prompt)} tokens and max_new_tokens={sampling.max_new_tokens} "
                f"make {need}, but the model's context is {context}{why}; "
                "shorten the prompt or lower max_new_tokens"
            )
    unknown = [token for token in sampling.stop_ids if not 0 <= token < vocabulary]
    if unknown:
        raise DataError(
            f"sampling.stop_ids: {unknown} are not in the model's vocabulary of "
            f"{vocabulary}; {belongs}"
        )


class RolloutEngine:
    """Base of rollout engines: a frozen dataclass of options.

    `start` is called once with the policy as the trainer holds it, `sync` after the trainer has
    changed the weights, `generate` in between. An engine in the trainer's process may sample from
    the module it was started with, and then has nothing to copy in `sync`. Names in `sync` are
    those of that module's parameters.

    A policy that learns an adapter is given as a plain model with the adapter merged, which is kept
    up to date; with `in_place` it is the trainer's very module, so that no second copy is held.
    """

    name: ClassVar[str]
    in_place: ClassVar[bool] = False  # samples from the module it was started with, whatever it is
    mixes: ClassVar[bool] = False  # samples from several models at once: it has `start_mixed`
    example_options: ClassVar[Mapping[str, Any]] = {}

    def identity(self) -> Mapping[str, Any]:
        """What decides the samples beside the plug-in's code: the options, unless a subclass knows
        better, and the version of whatever computes them. Never an address, an interpreter's path
        or a deadline. JSON-able. Asked often, and where nothing can be sampled: it starts nothing.
        """
        return asdict(self) if is_dataclass(self) else {}

    def check_here(self) -> None:
        """Raise AlignzooError for what keeps it from sampling on this machine; by default nothing.

        Asked by `plan`, and by `run` before anything trains: it starts nothing and asks no server.
        """

    def start(self, model: PreTrainedModel) -> RolloutSession:
        """Get ready to sample from this model."""
        raise TypeError(f"{type(self).__name__} defines no start")

    def start_mixed(self, models: Mapping[str, PreTrainedModel], mixture: Any) -> RolloutSession:
        """Get ready to sample from several models by role, one of them "policy", all kept by the
        caller; `mixture.logits({role: [n, V]})` are the logits [n, V] that tokens are drawn from.
        """
        raise TypeError(f"{type(self).__name__} defines no start_mixed")


class RolloutSession:
    """A started engine."""

    @property
    def remark(self) -> str:
        """What a stage tells once about how it samples; usually nothing."""
        return ""

    def sync(self, weights: Iterator[tuple[str, torch.Tensor]], version: int) -> None:
        """Take over the trainer's weights; returns when `generate` uses version `version`."""
        raise TypeError(f"{type(self).__name__} defines no sync")

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        """One completion per prompt, in order; row i is sampled with the noise of keys[i]."""
        raise TypeError(f"{type(self).__name__} defines no generate")

    def close(self) -> None:
        """Give back memory and processes; the default holds none."""
