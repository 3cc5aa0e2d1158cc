"""Sampling step by step from a decoder, and whether a model can be sampled so exactly."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GenerationMixin, PreTrainedModel

from alignzoo.contract.errors import PluginError
from alignzoo.contract.rollout import Completion, Sampling
from alignzoo.engine.models.heads import body_of, head_of
from alignzoo.engine.sampling import picker as drawing
from alignzoo.engine.sampling.cache import other_layers
from alignzoo.engine.sampling.decoder import Decoder
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
        sampling, limit = self.sampling, self.sampling.max_new_tokens
        picker = drawing.Picker.of(sampling, self.device)
        noise = drawing.uniform(keys, limit, self.device)  # [B, limit]
        grid = _Grid(len(prompts), limit, self.device)
        decoder = self.decoder()
        logits = decoder.begin(prompts)
        finished = torch.zeros(len(prompts), dtype=torch.bool, device=self.device)  # [L]
        for step in range(limit):
            tokens, log_probs = picker(logits, noise[:, step], step)
            grid.add(tokens, log_probs)
            finished = finished | picker.finished(tokens) if sampling.stop_ids else finished
            done = int(finished.sum()) if sampling.stop_ids else 0
            if done == len(finished) or step == limit - 1:
                break
            if done and decoder.pays(done, len(finished)):
                keep = (~finished).nonzero()[:, 0]
                grid.keep(keep)
                decoder.take(keep)
                noise, finished, tokens = noise[keep], finished[keep], tokens[keep]
            logits = decoder.next(tokens)
        return completions(*grid.whole(), sampling.stop_ids)


class _Grid:
    """What was sampled, [B, limit], written whenever rows leave."""

    def __init__(self, n: int, limit: int, device: torch.device) -> None:
        self.tokens = torch.zeros(n, limit, dtype=torch.int64, device=device)
        self.log_probs = torch.zeros(n, limit, device=device)
        self.rows = torch.arange(n, device=device)  # [L] that are still being sampled
        self.new: list[tuple[Tensor, Tensor]] = []  # columns [L] that are not written yet
        self.written = 0

    def add(self, tokens: Tensor, log_probs: Tensor) -> None:
        """One token [L] of every row."""
        self.new.append((tokens, log_probs))

    def keep(self, rows: Tensor) -> None:
        """Go on with only these of the rows."""
        self.whole()
        self.rows = self.rows[rows]

    def whole(self) -> tuple[Tensor, Tensor]:
        """Tokens and log-probs so far, zeros behind them."""
        columns = slice(self.written, self.written + len(self.new))
        self.tokens[self.rows, columns] = torch.stack([tokens for tokens, _ in self.new], 1)
        self.log_probs[self.rows, columns] = torch.stack([x for _, x in self.new], 1)
        self.written, self.new = columns.stop, []
        return self.tokens, self.log_probs


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
def trial(model: PreTrainedModel, decoder: Decoder, steps: int) -> float:
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
        found.append(decoder.next(tokens).clone())
    return max(_error(model, row, torch.stack(found, 1)[n]) for n, row in enumerate(rows))


def _error(model: PreTrainedModel, row: Sequence[int], found: Tensor) -> float:
    """Of the last logits [n, V] of one row."""
    ids = torch.tensor([row], device=model.device)
    full = model(input_ids=ids, use_cache=False).logits[0, -len(found) :].float()
    return float((full - found).abs().max() / (1 + full.abs().max()))
