"""The promises of a rollout engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property

import torch
from transformers import PreTrainedModel

from alignzoo.contract.rollout import (
    Completion,
    RolloutEngine,
    RolloutSession,
    Sampling,
    sample_key,
)
from alignzoo.contract.types import TextBatch
from alignzoo.testing.checks import Check, Trial, raise_broken, require, try_all
from alignzoo.testing.toys import tiny_model, toy_items, toy_sampling

CLOSE = 1e-3  # nats: engines may use other kernels than the trainer


def check_rollout_engine(engine: RolloutEngine) -> None:
    """Raise PluginError with every promise of the contract that an engine breaks."""
    raise_broken(engine.name, run_engine_checks(engine))


def run_engine_checks(engine: RolloutEngine) -> list[Check]:
    """Try an engine on a tiny model. It is started once, because a server may take a minute."""
    with closing(_Started(engine)) as started:
        return try_all(_promises(started), engine, "start")


def _promises(started: _Started) -> Iterator[tuple[str, Trial]]:
    yield "log-probs are the trainer's", lambda: _log_probs(started)
    yield "a stop token ends a response", lambda: _stops(started)
    yield "a sample depends on its key and prompt alone", lambda: _keys(started)
    yield "greedy sampling takes the likeliest token", lambda: _greedy(started)
    yield "sync brings in new weights", lambda: _sync(started)
    yield "no prompts, no completions", lambda: _none(started)


class _Started:
    """An engine with the trainer's module, whose weights are those of a seed."""

    def __init__(self, engine: RolloutEngine) -> None:
        self.engine, self.model = engine, _model(0)
        self.prompts = [item.rows[0].prompt for item in toy_items(TextBatch, 12)]
        self.keys = [sample_key(n) for n in range(len(self.prompts))]

    @cached_property
    def session(self) -> RolloutSession:
        self.engine.check_here()
        return self.engine.start(self.model)

    def sampled(self, sampling: Sampling | None = None) -> list[Completion]:
        return self.session.generate(self.prompts, sampling or toy_sampling(), self.keys)

    def sync(self, seed: int, version: int) -> None:
        """What the trainer does after a step."""
        self.model.load_state_dict(_model(seed).state_dict())
        self.session.sync(iter(self.model.named_parameters()), version)

    def gap(self, done: Sequence[Completion]) -> float:
        """The largest difference between the trainer's log-probs and the engine's, in nats."""
        pairs = zip(self.trainer(done), done, strict=True)
        return max(abs(a - b) for ours, c in pairs for a, b in zip(ours, c.log_probs, strict=True))

    def trainer(self, done: Sequence[Completion]) -> Iterator[list[float]]:
        """Log-probs of the completions' tokens by a plain forward of each row alone."""
        for prompt, completion in zip(self.prompts, done, strict=True):
            ids = torch.tensor([[*prompt, *completion.ids]])
            with torch.no_grad():
                logits = self.model.eval()(input_ids=ids).logits[0, len(prompt) - 1 : -1]
            tokens = ids[0, len(prompt) :, None]
            yield logits.float().log_softmax(-1).gather(1, tokens)[:, 0].tolist()

    def close(self) -> None:
        if "session" in vars(self):
            self.session.close()


def _model(seed: int) -> PreTrainedModel:
    """Heads of 32 numbers, which engines with kernels of their own know."""
    return tiny_model(seed, width=64)


def _ids(done: Sequence[Completion]) -> list[tuple[int, ...]]:
    return [completion.ids for completion in done]


def _log_probs(started: _Started) -> str:
    gap = started.gap(started.sampled())
    require(gap < CLOSE, f"they differ by up to {gap:.3g} nats")
    return f"largest gap {gap:.1e} nats"


def _stops(started: _Started) -> str:
    sampling = toy_sampling(5)
    for completion in started.sampled(sampling):
        stops = [t in sampling.stop_ids for t in completion.ids]
        require(1 <= len(completion.ids) <= 5, f"{len(completion.ids)} tokens, asked for 1-5")
        require(not any(stops[:-1]), "a response goes on after its stop token")
        require(stops[-1] == completion.ended, "`ended` does not say whether it stopped")
    return ""


def _keys(started: _Started) -> str:
    prompts, keys, session = started.prompts, started.keys, started.session
    whole = started.sampled()
    back = session.generate(prompts[::-1], toy_sampling(), keys[::-1])[::-1]
    alone = session.generate(prompts[3:4], toy_sampling(), keys[3:4])
    require(_ids(whole) == _ids(back), "the order of prompts matters")
    require(alone[0].ids == whole[3].ids, "a sample changes when it is alone")
    return ""


def _greedy(started: _Started) -> str:
    done = started.sampled(replace(toy_sampling(), temperature=0.0))
    model = _model(0).eval()
    for prompt, completion in zip(started.prompts, done, strict=True):
        ids = torch.tensor([[*prompt, *completion.ids]])
        with torch.no_grad():
            best = model(ids).logits[0, len(prompt) - 1 : -1].argmax(-1)
        require(best.tolist() == list(completion.ids), "a token is not the likeliest one")
    return ""


def _sync(started: _Started) -> str:
    """Other weights, and those of the start again; compared with the trainer, not the engine."""
    before, gaps = _ids(started.sampled()), []
    for version, seed in enumerate((1, 2, 0), start=1):
        started.sync(seed, version)
        done = started.sampled()
        gaps.append(started.gap(done))
        require(gaps[-1] < CLOSE, f"log-probs differ from the trainer's by up to {gaps[-1]:.3g}")
        same = _ids(done) == before
        require(same == (seed == 0), "it samples from other weights than those of the sync")
    return f"largest gap {max(gaps):.1e} nats"


def _none(started: _Started) -> str:
    require(started.session.generate([], toy_sampling(), []) == [], "completions without prompts")
    return ""
