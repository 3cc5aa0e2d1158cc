"""The promises of a rollout engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import torch

from alignzoo.contract.rollout import Completion, RolloutEngine, Sampling, sample_key
from alignzoo.contract.types import Item, TextBatch, Tokens
from alignzoo.engine.scoring.scorer import ScoringModule, dense
from alignzoo.ops import log_prob
from alignzoo.testing.checks import Check, Trial, raise_broken, require, try_all
from alignzoo.testing.toys import tiny_model, toy_items, toy_sampling

CLOSE = 1e-3  # nats: engines may use other kernels than the trainer


def check_rollout_engine(engine: RolloutEngine) -> None:
    """Raise PluginError with every promise of the contract that an engine breaks."""
    raise_broken(engine.name, run_engine_checks(engine))


def run_engine_checks(engine: RolloutEngine) -> list[Check]:
    """Try an engine on a tiny model."""
    prompts = [item.rows[0].prompt for item in toy_items(TextBatch, 12)]
    return try_all(_promises(engine, prompts), engine, "start")


def _promises(
    engine: RolloutEngine, prompts: Sequence[tuple[int, ...]]
) -> Iterator[tuple[str, Trial]]:
    yield "log-probs are the trainer's", lambda: _log_probs(engine, prompts)
    yield "a stop token ends a response", lambda: _stops(engine, prompts)
    yield "a sample depends on its key and prompt alone", lambda: _keys(engine, prompts)
    yield "greedy sampling takes the likeliest token", lambda: _greedy(engine, prompts)
    yield "sync brings in new weights", lambda: _sync(engine, prompts)
    yield "no prompts, no completions", lambda: _none(engine)


def _sampled(
    engine: RolloutEngine,
    prompts: Sequence[tuple[int, ...]],
    sampling: Sampling | None = None,
    seed: int = 0,
) -> list[Completion]:
    keys = [sample_key(n) for n in range(len(prompts))]
    with closing(engine.start(tiny_model(seed))) as session:
        return session.generate(prompts, sampling or toy_sampling(), keys)


def _trainer(
    prompts: Sequence[tuple[int, ...]], done: Sequence[Completion], seed: int = 0
) -> list[list[float]]:
    module = ScoringModule({"policy": tiny_model(seed)}, frozenset(), dense)
    rows = [Item((Tokens(p, c.ids),)) for p, c in zip(prompts, done, strict=True)]
    batch = TextBatch.collate(rows, 0)
    with torch.no_grad():
        grid = module(batch, {"x": log_prob("policy")})["x"]
    return [grid[i][batch.mask[i]].tolist() for i in range(len(rows))]


def _log_probs(engine: RolloutEngine, prompts: Sequence[tuple[int, ...]]) -> str:
    done = _sampled(engine, prompts)
    pairs = zip(_trainer(prompts, done), done, strict=True)
    gap = max(abs(a - b) for ours, c in pairs for a, b in zip(ours, c.log_probs, strict=True))
    require(gap < CLOSE, f"they differ by up to {gap:.3g} nats")
    return f"largest gap {gap:.1e} nats"


def _stops(engine: RolloutEngine, prompts: Sequence[tuple[int, ...]]) -> str:
    sampling = toy_sampling(5)
    for completion in _sampled(engine, prompts, sampling):
        stops = [t in sampling.stop_ids for t in completion.ids]
        require(1 <= len(completion.ids) <= 5, f"{len(completion.ids)} tokens, asked for 1-5")
        require(not any(stops[:-1]), "a response goes on after its stop token")
        require(stops[-1] == completion.ended, "`ended` does not say whether it stopped")
    return ""


def _keys(engine: RolloutEngine, prompts: Sequence[tuple[int, ...]]) -> str:
    keys = [sample_key(n) for n in range(len(prompts))]
    with closing(engine.start(tiny_model())) as session:
        whole = session.generate(prompts, toy_sampling(), keys)
        back = session.generate(prompts[::-1], toy_sampling(), keys[::-1])[::-1]
        alone = session.generate(prompts[3:4], toy_sampling(), keys[3:4])
    require([c.ids for c in whole] == [c.ids for c in back], "the order of prompts matters")
    require(alone[0].ids == whole[3].ids, "a sample changes when it is alone")
    return ""


def _greedy(engine: RolloutEngine, prompts: Sequence[tuple[int, ...]]) -> str:
    done = _sampled(engine, prompts, replace(toy_sampling(), temperature=0.0))
    model = tiny_model().eval()
    for prompt, completion in zip(prompts, done, strict=True):
        ids = torch.tensor([[*prompt, *completion.ids]])
        with torch.no_grad():
            best = model(ids).logits[0, len(prompt) - 1 : -1].argmax(-1)
        require(best.tolist() == list(completion.ids), "a token is not the likeliest one")
    return ""


def _sync(engine: RolloutEngine, prompts: Sequence[tuple[int, ...]]) -> str:
    model, other = tiny_model(0), tiny_model(1)
    keys = [sample_key(n) for n in range(len(prompts))]
    with closing(engine.start(model)) as session:
        model.load_state_dict(other.state_dict())
        session.sync(iter(model.named_parameters()), 1)
        done = session.generate(prompts, toy_sampling(), keys)
    expected = [c.ids for c in _sampled(engine, prompts, seed=1)]
    require([c.ids for c in done] == expected, "it still samples from the old weights")
    return ""


def _none(engine: RolloutEngine) -> str:
    with closing(engine.start(tiny_model())) as session:
        require(session.generate([], toy_sampling(), []) == [], "completions without prompts")
    return ""
