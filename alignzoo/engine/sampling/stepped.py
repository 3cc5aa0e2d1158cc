"""Sampling step by step from a decoder, and whether a model can be sampled so exactly."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import GenerationMixin, PreTrainedModel

from alignzoo.contract.errors import PluginError
from alignzoo.contract.rollout import Completion, Sampling
from alignzoo.engine.models.heads import body_of, head_of
from alignzoo.engine.sampling import picker as drawing
from alignzoo.engine.sampling.cache import other_layers
from alignzoo.engine.sampling.decoder import Decoder, Reader
from alignzoo.engine.sampling.replay import Replayed
from alignzoo.engine.sampling.rows import completions


@dataclass(frozen=True)
class Stepped:
    """Samples batches, each from a new decoder; rows that have finished leave it."""

    decoder: Callable[[], Decoder]
    sampling: Sampling
    device: torch.device

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Sequence[int]], keys: Sequence[int]) -> list[Completion]:
        """One completion per prompt; row i is sampled with the noise of keys[i]."""
        limit, stops = self.sampling.max_new_tokens, self.sampling.stop_ids
        noise = drawing.uniform(keys, limit, self.device)  # [B, limit]
        rows = _Rows(self.decoder(), drawing.Picker.of(self.sampling, self.device), noise)
        rows.begin(prompts)
        for step in range(1, limit):
            done = int(rows.finished.sum()) if stops else 0
            if done == len(rows.finished):
                break
            if done and rows.decoder.pays(done, len(rows.finished)):
                rows.take((~rows.finished).nonzero()[:, 0])
            rows.step(step)
        return completions(rows.whole.tokens, rows.whole.log_probs, stops)


@dataclass(frozen=True)
class _Grid:
    """What was sampled."""

    tokens: Tensor  # [B, limit] int64, 0 behind the last
    log_probs: Tensor  # [B, limit] float32

    @classmethod
    def like(cls, noise: Tensor) -> _Grid:
        """Empty."""
        tokens = torch.zeros_like(noise, dtype=torch.int64)
        return cls(tokens, torch.zeros_like(noise, dtype=torch.float32))

    def write(self, rows: Tensor, grid: _Grid) -> None:
        """Those rows."""
        self.tokens[rows], self.log_probs[rows] = grid.tokens, grid.log_probs

    def at(self, rows: Tensor) -> _Grid:
        """A copy of those rows."""
        return _Grid(self.tokens[rows], self.log_probs[rows])


class _Rows:
    """Rows [L] that are still being sampled, in places that every step reads and writes."""

    def __init__(self, decoder: Decoder, picker: drawing.Picker, noise: Tensor) -> None:
        self.decoder, self.picker, self.noise = decoder, picker, noise
        self.rows = torch.arange(len(noise), device=noise.device)
        self.every, self.grid = _Grid.like(noise), _Grid.like(noise)
        self.tokens = torch.zeros_like(self.rows)
        self.finished = torch.zeros_like(self.rows, dtype=torch.bool)
        self.column = self.rows.new_zeros(1)  # that is sampled next
        self.turn: Replayed | None = None
        self.room: int | None = 0

    def begin(self, prompts: Sequence[Sequence[int]]) -> None:
        """Read the prompts, and sample a token of each."""
        self._draw(self.decoder.begin(prompts), 0)
        self.room = self.decoder.room

    def take(self, rows: Tensor) -> None:
        """Go on with only these."""
        self.turn = None  # so that what it held is free
        self.every.write(self.rows, self.grid)
        self.decoder.take(rows)
        self.grid, self.rows, self.noise = self.grid.at(rows), self.rows[rows], self.noise[rows]
        self.tokens, self.finished = self.tokens[rows], self.finished[rows]
        self.room = self.decoder.room

    def step(self, number: int) -> None:
        """Sample one more token of each."""
        if self.room is None:
            self._step(number)
            return
        if self.room == 0:
            self.take(torch.arange(len(self.rows), device=self.rows.device))
        if self.turn is None or number == self.picker.sampling.min_new_tokens:
            self.turn = Replayed(self.rows.device)
        self.room -= 1
        self.turn(partial(self._step, number))

    @property
    def whole(self) -> _Grid:
        """All that was sampled."""
        self.every.write(self.rows, self.grid)
        return self.every

    def _step(self, number: int) -> None:
        self._draw(self.decoder.next(self.tokens), number)

    def _draw(self, logits: Tensor, number: int) -> None:
        noise = self.noise.index_select(1, self.column)[:, 0]
        tokens, log_probs = self.picker(logits, noise, number)
        self.tokens.copy_(tokens)
        if len(self.picker.stops):
            self.finished.logical_or_(self.picker.finished(tokens))
        self.grid.tokens.index_copy_(1, self.column, tokens[:, None])
        self.grid.log_probs.index_copy_(1, self.column, log_probs.float()[:, None])
        self.column.add_(1)


def why_not(model: PreTrainedModel) -> str:
    """What keeps a model from being sampled step by step, in words that follow 'because'; or ''.

    Its class says what its cache holds and what its body takes. Whether it then computes what it
    computes of whole rows is tried by `trial`.
    """
    accepted = inspect.signature(body_of(model).forward).parameters
    missing = {"attention_mask", "position_ids", "use_cache"} - accepted.keys()
    if kinds := other_layers(model.config):
        return f"its cache has layers of kind {kinds}"
    if missing:
        return f"its body takes no {min(missing)}"
    for method in ("generate", "prepare_inputs_for_generation"):
        if getattr(type(model), method) is not getattr(GenerationMixin, method):
            return f"{type(model).__name__} has a `{method}` of its own"
    try:
        head_of(model)
    except PluginError as error:
        return str(error)
    return ""


@torch.no_grad()
def trial(model: PreTrainedModel, decoder: Reader, steps: int) -> float:
    """Largest error of a decoder's logits against full forwards, as a share of 1 + max |logit|.

    The rows are padded, share a prompt, and one of them leaves at half time.
    """
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    a, b = vocabulary // 3, vocabulary // 2
    rows = [[a, b], [a, b, a], [a, b, a]]
    found = [decoder.begin(rows)]
    for step in range(steps):
        if step == steps // 2:
            decoder.take(torch.tensor([1, 0], device=model.device))
            rows, found = [rows[1], rows[0]], [x[[1, 0]] for x in found]
        tokens = found[-1].argmax(-1)
        rows = [[*row, token] for row, token in zip(rows, tokens.tolist(), strict=True)]
        found.append(decoder.next(tokens))
    return max(_error(model, row, torch.stack(found, 1)[n]) for n, row in enumerate(rows))


def _error(model: PreTrainedModel, row: Sequence[int], found: Tensor) -> float:
    """Of the last logits [n, V] of one row."""
    ids = torch.tensor([row], device=model.device)
    full = model(input_ids=ids, use_cache=False).logits[0, -len(found) :].float()
    return float((full - found).abs().max() / (1 + full.abs().max()))
