"""Tokens drawn from mixtures of the policy and frozen roles, against plain whole sequences."""

from __future__ import annotations

import json
from itertools import islice

import pytest
import torch
from alignzoo_gkd import GKD
from engine_jobs import assert_equal_runs, job, rollout
from family_models import NAMED, build
from tiny_models import tiny_llama

from alignzoo.contract.errors import TrainingError
from alignzoo.contract.rollout import Sampling, sample_key
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.memory.live import Live
from alignzoo.engine.memory.sampling import CACHE, Decoding, sample
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.engine.sampling.mixtures import GeometricMixture, Mixture
from alignzoo.engine.train.loop import train
from alignzoo.recipe.blocks import RolloutSpec
from alignzoo.stages.rollouts import mixture_of

WEIGHTS = {"policy": 0.7, "teacher": 0.3}
PROMPTS = [(2, 3, 4), (5,), (2, 3, 4), (7, 6)]
KEYS = [sample_key(n) for n in range(len(PROMPTS))]
OPTIM = Optim(steps=3, batch_size=4, micro_batch_size=3, lr=1e-2, save_every=1)


@pytest.fixture(scope="module")
def models():
    return {"policy": tiny_llama(seed=1), "teacher": tiny_llama(seed=2)}


@torch.no_grad()
def mixed(kind, models, ids, start):
    """log p [n, V] of a row's tokens from `start` on, in float64, by whole rows of plain models."""
    found = [m(torch.tensor([ids])).logits[0, start - 1 : -1].double() for m in models.values()]
    p, q = (logits.softmax(-1) for logits in found)
    if kind is Mixture:
        return (0.7 * p + 0.3 * q).log()
    product = p**0.7 * q**0.3
    return (product / product.sum(-1, keepdim=True)).log()


KINDS = pytest.mark.parametrize("kind", [Mixture, GeometricMixture])


@KINDS
def test_log_probs_are_those_of_the_mixture_by_whole_sequences(kind, models):
    session = TransformersEngine().start_mixed(models, kind(WEIGHTS))
    done = session.generate(PROMPTS, Sampling(12, stop_ids=(1,)), KEYS)
    assert len({len(c.ids) for c in done}) > 1
    for prompt, completion in zip(PROMPTS, done, strict=True):
        log_p = mixed(kind, models, [*prompt, *completion.ids], len(prompt))
        right = log_p.gather(1, torch.tensor(completion.ids)[:, None])[:, 0]
        found = torch.tensor(completion.log_probs, dtype=torch.float64)
        torch.testing.assert_close(found, right, atol=1e-5, rtol=0)


@KINDS
def test_tokens_come_as_often_as_the_mixture_says(kind, models):
    n, prompt = 20_000, (2, 3)
    session = TransformersEngine(batch_size=n).start_mixed(models, kind(WEIGHTS))
    done = session.generate([prompt] * n, Sampling(1), range(n))
    counts = torch.bincount(torch.tensor([c.ids[0] for c in done]), minlength=12)
    expected = mixed(kind, models, [*prompt, 0], 2)[0].exp() * n
    assert float(((counts - expected) ** 2 / expected).sum()) < 44  # 11 degrees, p = 8e-6


def test_the_policy_alone_is_plain_sampling_byte_for_byte(models):
    whole = RolloutSpec.model_validate({"sampler": {"mix": {"policy": 1.0}}})
    assert mixture_of(whole) is None
    plain = TransformersEngine().start(models["policy"])
    alone = TransformersEngine().start_mixed(models, Mixture({"policy": 1.0}))
    asked = PROMPTS, Sampling(12, stop_ids=(1,)), KEYS
    assert alone.generate(*asked) == plain.generate(*asked)


def test_a_recipes_keys_name_the_kind_of_mixture():
    for key, kind in (("mix", Mixture), ("geometric", GeometricMixture)):
        found = mixture_of(RolloutSpec.model_validate({"sampler": {key: WEIGHTS}}))
        assert type(found) is kind and found.weights == WEIGHTS


def logged(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@KINDS
def test_the_trainer_scores_what_was_mixed_and_a_mixed_run_resumes_bit_for_bit(kind, tmp_path):
    method = GKD(divergence="reverse")
    how = {"rollout": rollout(mixture=kind(WEIGHTS)), "optim": OPTIM}
    whole = train(job(tmp_path / "whole", method, **how))
    found = logged(tmp_path / "whole")
    gaps = [row["rollout/logprob_gap"] for row in found if "rollout/logprob_gap" in row]
    assert gaps and max(gaps) < 1e-5

    def stop(step, *rest):
        if step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(job(tmp_path / "cut", method, on_step=stop, **how))
    assert_equal_runs(
        tmp_path / "whole", tmp_path / "cut", whole, train(job(tmp_path / "cut", method, **how))
    )


def test_samples_of_another_mixture_than_the_trainers_stop_a_stage(tmp_path):
    class Other(TransformersEngine):
        def start_mixed(self, models, mixture):
            return super().start_mixed(models, Mixture({"policy": 0.01, "teacher": 0.99}))

    block = rollout(mixture=Mixture(WEIGHTS), engine=Other(16), max_gap=0.01)
    with pytest.raises(TrainingError, match="differ from the trainer's"):
        train(job(tmp_path / "x", GKD(), rollout=block, optim=OPTIM))


def test_models_that_cannot_be_mixed_are_refused_in_a_sentence(models):
    wide = {**models, "teacher": tiny_llama(rows=13)}
    with pytest.raises(TrainingError, match="'policy' has 12 entries and 'teacher' has 13"):
        TransformersEngine().start_mixed(wide, Mixture(WEIGHTS))
    windowed = {**models, "teacher": build(NAMED["mistral"], 0)}
    with pytest.raises(TrainingError, match="'teacher' cannot be sampled from token by token"):
        TransformersEngine().start_mixed(windowed, Mixture(WEIGHTS))


def test_memory_counts_a_cache_for_every_model_that_is_mixed(models):
    caches = []
    for n in (1, 2):
        some = dict(islice(models.items(), n))
        with Live() as live:
            sample(some, Decoding(4, 3, Sampling(9)), start_ranks("fp32"), live)
        caches.append(live.peaks["all"].bytes[CACHE])
    assert caches[1] == 2 * caches[0] > 0
