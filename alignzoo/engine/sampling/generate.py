"""The rollout engine on transformers: samples in the trainer's own process.

Models of plain attention are sampled by our own steps (`stepped`), all others by `generate`.

Importing this module does not import transformers, so that planning a recipe stays fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby, product
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from alignzoo.contract.algorithm import option
from alignzoo.contract.errors import TrainingError
from alignzoo.contract.rollout import (
    Completion,
    RolloutEngine,
    RolloutSession,
    Sampling,
    check_request,
)
from alignzoo.engine.models.context import context_of, why_context
from alignzoo.engine.sampling.rows import completions, left_pad
from alignzoo.engine.sampling.ways import Way, cache_of, grow, sampling_mode, stepping_mode, way_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alignzoo.engine.sampling.decoder import ModelDecoder
    from alignzoo.engine.sampling.mixtures import Mixture
    from alignzoo.engine.sampling.picker import TokenPicker


@dataclass(frozen=True)
class TransformersEngine(RolloutEngine):
    """Samples in the trainer's process with a KV cache; finished rows leave the batch."""

    name: ClassVar[str] = "transformers"
    in_place: ClassVar[bool] = True
    mixes: ClassVar[bool] = True
    batch_size: int = option(256, "sequences sampled side by side", gt=0)

    def start(self, model: PreTrainedModel) -> TransformersSession:
        """Sample from this very module; weights that lie elsewhere come in by `sync`."""
        return TransformersSession(model, self.batch_size, way_of(model))

    def start_mixed(self, models: Mapping[str, PreTrainedModel], mixture: Mixture) -> MixedSession:
        """Sample from several models side by side, each with a cache of its own.

        Raises TrainingError for one that cannot be stepped, or whose vocabulary has another size.
        """
        ways = {role: way_of(model) for role, model in models.items()}
        for role, way in ways.items():
            if not way.stepped:
                raise TrainingError(
                    f"rollout.sampler: '{role}' cannot be sampled from token by token, because "
                    f"{way.because}; leave `sampler` out, or take a model of plain attention"
                )
        _same_vocabulary(models)
        policy = models["policy"] if "policy" in models else next(iter(models.values()))
        way = Way(
            stepped=True,
            captured=all(way.captured for way in ways.values()),
            because=next((way.because for way in ways.values() if way.because), ""),
        )
        return MixedSession(policy, self.batch_size, way, 0, models, mixture)


@dataclass
class TransformersSession(RolloutSession):
    """A model to sample from. It is in evaluation mode while it samples, and only then."""

    model: PreTrainedModel
    batch_size: int
    way: Way
    version: int = 0

    @property
    def remark(self) -> str:
        """Why it is slower than it could be, where it is."""
        return self.way.remark

    @torch.no_grad()
    def sync(self, weights: Iterator[tuple[str, Tensor]], version: int) -> None:
        """Copy what lies elsewhere; nothing does where the module is the trainer's own."""
        own = dict(self.model.named_parameters())
        for name, x in weights:
            if own[name].data_ptr() != x.data_ptr():
                own[name].copy_(x)
        self.version = version

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        """One completion per prompt, in order; row i is sampled with the noise of keys[i].

        Raises DataError before sampling if a prompt is empty or does not fit the context, and
        TrainingError if the model's logits are not finite.
        """
        if len(keys) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts need as many keys, not {len(keys)}")
        vocabulary = self.model.config.get_text_config(decoder=True).vocab_size
        known = {context_of(model.config): why_context(model.config) for model in self._models()}
        context = min((c for c in known if c is not None), default=None)
        check_request(prompts, sampling, vocabulary, context, known.get(context, ""))
        # Prompts of similar length share a batch; the longest come first to fail early on memory.
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        done: dict[int, Completion] = {}
        sampler = self._sampler(sampling)
        modes = [sampling_mode]
        if self.way.stepped:
            from alignzoo.engine.sampling.rounded import rounded

            modes = [stepping_mode, rounded]
        with ExitStack() as around:
            for model, mode in product(self._models(), modes):
                around.enter_context(mode(model))
            for rows in self._batches(order, [len(prompt) for prompt in prompts]):
                batch = [prompts[i] for i in rows], [keys[i] for i in rows]
                done.update(zip(rows, sampler(*batch), strict=True))
        _refuse_bad_numbers(done, self.version)
        return [done[i] for i in range(len(prompts))]

    def _models(self) -> Sequence[PreTrainedModel]:
        """All that are sampled from."""
        return [self.model]

    def _sampler(self, sampling: Sampling) -> Callable[..., list[Completion]]:
        if not self.way.stepped:
            return _Sampler(self.model, self.way, sampling)
        from alignzoo.engine.sampling.stepped import Stepped

        return Stepped(lambda: self._decoder(self.model, sampling), sampling, self.model.device)

    def _decoder(self, model: PreTrainedModel, sampling: Sampling) -> ModelDecoder:
        """A new one for every batch, so that nothing recorded outlives a change of weights."""
        from alignzoo.engine.sampling.decoder import ModelDecoder
        from alignzoo.engine.sampling.static import StaticDecoder

        if self.way.captured:
            return StaticDecoder(model, sampling.max_new_tokens)
        return ModelDecoder(model)

    def _batches(self, order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
        """Rows side by side; of one length only, where padding would change the samples."""
        for _, same in groupby(order, (lambda i: 0) if self.way.padded else lengths.__getitem__):
            rows = list(same)
            for start in range(0, len(rows), self.batch_size):
                yield rows[start : start + self.batch_size]


@dataclass
class MixedSession(TransformersSession):
    """Several models to sample from; `sync` and `version` are the policy's."""

    models: Mapping[str, PreTrainedModel] = field(default_factory=dict)
    mixture: Mixture | None = None

    def _models(self) -> Sequence[PreTrainedModel]:
        return list(self.models.values())

    def _sampler(self, sampling: Sampling) -> Callable[..., list[Completion]]:
        from alignzoo.engine.sampling.mixtures import MixedDecoder
        from alignzoo.engine.sampling.stepped import Stepped

        mixture = cast("Mixture", self.mixture)

        def decoder() -> MixedDecoder:
            own = {role: self._decoder(model, sampling) for role, model in self.models.items()}
            return MixedDecoder(mixture, own)

        return Stepped(decoder, sampling, self.model.device)


def _same_vocabulary(models: Mapping[str, PreTrainedModel]) -> None:
    from alignzoo.engine.models.heads import head_of

    widths = {role: head_of(model).width for role, model in models.items()}
    if len(set(widths.values())) > 1:
        shown = " and ".join(f"'{role}' has {width} entries" for role, width in widths.items())
        raise TrainingError(
            f"rollout.sampler: the vocabulary of {shown}; mix models of one vocabulary"
        )


def _refuse_bad_numbers(completions: dict[int, Completion], version: int) -> None:
    """Weights of version 0 have not been trained here."""
    bad = [i for i, done in completions.items() if not math.isfinite(sum(done.log_probs))]
    cure = "lower the learning rate" if version else "look at the weights it was loaded with"
    if bad:
        raise TrainingError(
            f"sampling: the model's logits are not finite for {len(bad)} of {len(completions)} "
            f"prompts (first: prompt {min(bad)}); {cure}"
        )


@dataclass(frozen=True)
class _Live:
    """Rows that are still being sampled."""

    rows: Tensor  # [L] int64: their numbers in the batch
    ids: Tensor  # [L, S] int64, left-padded
    attention: Tensor  # [L, S] int64: 0 on padding; generated tokens are 1
    cache: Any = None  # of the first S-1 columns; None: computed anew from ids

    def take(self, keep: Tensor) -> _Live:
        """Only the rows `keep` [k]."""
        if self.cache is not None:
            self.cache.reorder_cache(keep)  # in place; every kind of cache layer has it
        return _Live(self.rows[keep], self.ids[keep], self.attention[keep], self.cache)


@dataclass(frozen=True)
class _Sampler:
    """Samples one batch by segments of `generate`; finished rows are dropped between them."""

    model: PreTrainedModel
    way: Way
    sampling: Sampling

    def __call__(self, prompts: Sequence[Sequence[int]], keys: Sequence[int]) -> list[Completion]:
        from alignzoo.engine.sampling.picker import TokenPicker, uniform

        sampling, device = self.sampling, self.model.device
        limit = sampling.max_new_tokens
        noise = uniform(keys, limit, device)  # [B, limit]
        stops = torch.tensor(sampling.stop_ids, dtype=torch.int64, device=device)
        ids, attention = left_pad(prompts, device)
        live = _Live(torch.arange(len(prompts), device=device), ids, attention)
        tokens = live.ids.new_zeros(len(prompts), limit)
        log_probs = torch.zeros(len(prompts), limit, device=device)
        taken = 0
        while len(live.rows) and taken < limit:
            picker = TokenPicker(sampling, noise[live.rows], live.ids.shape[1] - taken)
            live, new = self._segment(live, picker, limit - taken)
            columns = slice(taken, taken + new.shape[1])
            tokens[live.rows, columns] = new
            log_probs[live.rows, columns] = torch.stack(picker.log_probs, 1)
            taken = columns.stop
            unfinished = ~torch.isin(new, stops).any(1)
            if taken < limit:
                live = live.take(unfinished.nonzero()[:, 0])
        return completions(tokens, log_probs, sampling.stop_ids)

    def _segment(self, live: _Live, picker: TokenPicker, limit: int) -> tuple[_Live, Tensor]:
        """Generate until enough rows have finished: the rows grown, their new tokens [L, n]."""
        from transformers import LogitsProcessorList, StoppingCriteriaList

        from alignzoo.engine.sampling.picker import EnoughFinished

        start = live.ids.shape[1]
        enough = EnoughFinished(self.sampling.stop_ids, start, self.way.worth_dropping)
        output = grow(
            self.model,
            live.ids,
            live.attention,
            live.cache,
            max_new_tokens=limit,  # no end token: EnoughFinished knows them all, and ends it
            use_cache=self.way.cached,
            logits_processor=LogitsProcessorList([picker]),
            stopping_criteria=StoppingCriteriaList([enough]),
        )
        ids: Tensor = output.sequences
        grown = torch.nn.functional.pad(live.attention, (0, ids.shape[1] - start), value=1)
        cache = cache_of(output) if self.way.continued else None
        return _Live(live.rows, ids, grown, cache), ids[:, start:]
