"""Sampling on transformers: right distribution, right log-probs, and independent of the batch."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch
from shared_data import shared
from torch import Tensor
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from alignzoo.contract.errors import DataError, TrainingError
from alignzoo.contract.rollout import Completion, Sampling, sample_key
from alignzoo.engine.sampling import picker as drawing
from alignzoo.engine.sampling.generate import TransformersEngine

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 29}
QWEN = {**SIZE, "intermediate_size": 48, "num_key_value_heads": 1, "max_position_embeddings": 64}
SLIDING = {**QWEN, "sliding_window": 5}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 29, "n_positions": 64}


def sharpen(model: PreTrainedModel) -> PreTrainedModel:
    """Random weights that are large enough to make peaked, context-dependent distributions."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.4)
    return model.eval()


def qwen() -> PreTrainedModel:
    return sharpen(Qwen2ForCausalLM(Qwen2Config(**QWEN)))


MODELS = {
    "rotary": qwen,
    "learned positions": lambda: sharpen(GPT2LMHeadModel(GPT2Config(**GPT2))),
    "sliding window": lambda: sharpen(MistralForCausalLM(MistralConfig(**SLIDING))),
}


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return qwen()


def some_prompts(n: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(29) for _ in range(rng.randint(1, 12))] for _ in range(n)]


def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    keys: Sequence[int] | None = None,
    batch_size: int = 256,
) -> list[Completion]:
    keys = [sample_key(0, i) for i in range(len(prompts))] if keys is None else keys
    return TransformersEngine(batch_size).start(model).generate(prompts, sampling, keys)


@torch.no_grad()
def next_logits(model: PreTrainedModel, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """[len(answer), V] logits of every answer token, one unpadded forward."""
    logits = model(torch.tensor([[*prompt, *answer]])).logits[0]
    return logits[len(prompt) - 1 : -1]


def chi_square(counts: Tensor, probabilities: Tensor) -> float:
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


# --- the answer is the right one -----------------------------------------------------------------


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_greedy_is_what_generate_gives_for_each_prompt_alone(make):
    model = make()
    prompts = some_prompts(40)
    found = sample(model, prompts, Sampling(20, temperature=0, stop_ids=(3, 7, 11)))
    for prompt, got in zip(prompts, found, strict=True):
        alone = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=20,
            eos_token_id=[3, 7, 11],
            pad_token_id=0,
        )
        assert list(got.ids) == alone[0, len(prompt) :].tolist()
    assert 0 < sum(done.ended for done in found) < 40  # both kinds of ending were compared


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_log_probs_are_those_of_a_plain_forward_at_temperature_one(make, temperature):
    model = make()
    prompts = some_prompts(60)
    wanted = Sampling(24, temperature=temperature, top_k=9, top_p=0.9, stop_ids=(3, 7))
    for prompt, got in zip(prompts, sample(model, prompts, wanted), strict=True):
        exact = next_logits(model, prompt, got.ids).log_softmax(-1)
        exact = exact.gather(-1, torch.tensor(got.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(got.log_probs), exact, atol=1e-4, rtol=0)


def test_first_tokens_follow_the_tempered_softmax(model):
    prompt, n = [5, 1, 9, 2], 20_000
    found = sample(model, [prompt] * n, Sampling(1, temperature=1.7), batch_size=5_000)
    counts = torch.bincount(torch.tensor([done.ids[0] for done in found]), minlength=29)
    exact = (next_logits(model, prompt, [0])[0].double() / 1.7).softmax(-1)
    assert chi_square(counts, exact) < 67  # 28 degrees of freedom, p = 5e-5


def test_pairs_of_tokens_follow_the_product_of_their_conditionals(model):
    prompt, n = [5, 1, 9, 2], 20_000
    found = sample(model, [prompt] * n, Sampling(2, temperature=3.0, top_k=3), batch_size=5_000)
    first, odds = top3(model, prompt)
    cells = {}
    for a, p in zip(first, odds, strict=True):
        cells |= {(a, b): p * q for b, q in zip(*top3(model, [*prompt, a]), strict=True)}
    pairs = [done.ids for done in found]
    counts = torch.tensor([pairs.count(cell) for cell in cells])
    assert counts.sum() == n
    assert chi_square(counts, torch.tensor(list(cells.values()))) < 34  # 8 degrees, p = 4e-5


def top3(model: PreTrainedModel, prompt: Sequence[int]) -> tuple[list[int], list[float]]:
    values, tokens = next_logits(model, prompt, [0])[0].topk(3)
    return tokens.tolist(), (values / 3.0).softmax(-1).tolist()


def test_successive_tokens_of_one_sample_are_drawn_independently():
    noise = drawing.uniform([sample_key(7, i) for i in range(20_000)], 4, torch.device("cpu"))
    cells = (noise * 5).long()
    for first, second in ((0, 1), (1, 2), (0, 3)):
        counts = torch.bincount(cells[:, first] * 5 + cells[:, second], minlength=25)
        assert chi_square(counts, torch.full((25,), 1 / 25)) < 61  # 24 degrees, p = 5e-5


def test_keys_that_follow_each_other_give_independent_noise():
    cells = (drawing.uniform(range(20_001), 1, torch.device("cpu"))[:, 0] * 5).long()
    counts = torch.bincount(cells[:-1] * 5 + cells[1:], minlength=25)
    assert chi_square(counts, torch.full((25,), 1 / 25)) < 61


def test_noise_is_the_published_splitmix64_stream():
    first = 0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4  # of SplitMix64 started at 0
    noise = drawing.uniform([0], 2, torch.device("cpu"))[0]
    assert noise.tolist() == [(z >> 11) * 2.0**-53 for z in first]


def test_a_token_without_probability_is_never_drawn():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(4, 5)
    u = torch.tensor([0.0, 0.4999, 0.5, 1.0], dtype=torch.float64)
    assert drawing.draw(logits.softmax(-1), u).tolist() == [1, 1, 3, 3]


def test_top_k_and_top_p_keep_only_the_head_of_the_distribution(model):
    prompt = [5, 1, 9, 2]
    order = next_logits(model, prompt, [0])[0].argsort(descending=True).tolist()
    probabilities = (next_logits(model, prompt, [0])[0] / 2).softmax(-1)[order].cumsum(0)
    nucleus = int((probabilities < 0.8).sum()) + 1
    best3 = sample(model, [prompt] * 2000, Sampling(1, temperature=2.0, top_k=3))
    best_p = sample(model, [prompt] * 2000, Sampling(1, temperature=2.0, top_p=0.8))
    assert {done.ids[0] for done in best3} == set(order[:3])
    assert {done.ids[0] for done in best_p} == set(order[:nucleus])


# --- a sample depends on its key and its prompt alone ---------------------------------------------


def test_samples_do_not_depend_on_what_else_is_in_the_batch(model):
    prompts, wanted = some_prompts(300), Sampling(30, stop_ids=(3, 7))
    keys = [sample_key("s", i) for i in range(300)]
    together = sample(model, prompts, wanted, keys)
    shuffled = random.Random(1).sample(range(300), 300)
    apart = sample(
        model, [prompts[i] for i in shuffled], wanted, [keys[i] for i in shuffled], batch_size=17
    )
    for place, i in enumerate(shuffled):
        assert apart[place].ids == together[i].ids
        assert apart[place].log_probs == pytest.approx(together[i].log_probs, abs=1e-4)


def test_samples_do_not_depend_on_when_finished_rows_are_dropped(model, monkeypatch):
    prompts, wanted = some_prompts(80), Sampling(30, stop_ids=(3, 7))
    dropped = sample(model, prompts, wanted)
    monkeypatch.setattr(drawing, "WORTH_DROPPING", 2.0)  # never
    assert [d.ids for d in dropped] == [d.ids for d in sample(model, prompts, wanted)]


def test_finished_rows_leave_the_batch(model):
    rows_fed: list[int] = []
    norm = model.model.norm
    hook = norm.register_forward_hook(lambda _m, _a, out: rows_fed.append(len(out)))
    found = sample(model, some_prompts(100), Sampling(40, stop_ids=tuple(range(8))))
    hook.remove()
    tokens = sum(len(done.ids) for done in found)
    assert tokens - 100 <= sum(rows_fed) < 1.5 * tokens
    assert 100 * max(len(done.ids) for done in found) > 2 * tokens  # it was worth dropping


def test_another_key_gives_another_sample_and_the_same_key_the_same(model):
    prompt, wanted = [4, 5, 6], Sampling(30)
    one, two, again = sample(model, [prompt] * 3, wanted, [11, 12, 11])
    assert one.ids == again.ids != two.ids


def test_a_longer_limit_only_extends_a_sample(model):
    short = sample(model, some_prompts(20), Sampling(5))
    long = sample(model, some_prompts(20), Sampling(15))
    assert [done.ids for done in short] == [done.ids[:5] for done in long]


def test_global_random_state_is_neither_read_nor_changed(model):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    sample(model, some_prompts(3), Sampling(4))
    assert torch.equal(before, torch.get_rng_state())


# --- where a response ends -----------------------------------------------------------------------


def test_a_response_ends_with_the_first_stop_token_or_is_cut(model):
    stops = {0, 3, 7}  # 0 is also what short prompts are padded with
    for done in sample(model, some_prompts(200), Sampling(20, stop_ids=(0, 3, 7))):
        assert not stops & set(done.ids[:-1])
        assert done.ended == (done.ids[-1] in stops)
        assert done.ended or len(done.ids) == 20
        assert len(done.log_probs) == len(done.ids)


def test_without_stop_tokens_every_response_is_cut_at_the_limit(model):
    found = sample(model, some_prompts(10), Sampling(6))
    assert all(len(done.ids) == 6 and not done.ended for done in found)


def test_a_stop_token_at_the_limit_counts_as_an_ending(model):
    found = sample(model, some_prompts(100), Sampling(1, stop_ids=tuple(range(15))))
    assert {done.ended for done in found} == {True, False}
    assert all(done.ended == (done.ids[0] < 15) for done in found)


def test_min_new_tokens_keeps_stop_tokens_out_until_then(model):
    stops = tuple(range(20))
    plain = sample(model, some_prompts(100), Sampling(12, stop_ids=stops))
    later = sample(model, some_prompts(100), Sampling(12, min_new_tokens=4, stop_ids=stops))
    assert min(len(done.ids) for done in plain) == 1  # one token, the stop token, is legal
    assert min(len(done.ids) for done in later) == 5  # four and the stop token


def test_min_new_tokens_counts_as_transformers_does():
    model = qwen()
    stops = tuple(range(20))
    for prompt in some_prompts(12):
        (ours,) = sample(
            model, [prompt], Sampling(8, temperature=0, min_new_tokens=3, stop_ids=stops)
        )
        config = GenerationConfig(max_new_tokens=8, min_new_tokens=3, eos_token_id=list(stops))
        theirs = model.generate(torch.tensor([prompt]), generation_config=config, pad_token_id=0)
        assert list(ours.ids) == theirs[0, len(prompt) :].tolist()


# --- the model is left as it was -----------------------------------------------------------------


def test_training_mode_of_every_part_comes_back_and_dropout_is_off_meanwhile():
    model = sharpen(GPT2LMHeadModel(GPT2Config(**GPT2, resid_pdrop=0.5)))
    quiet = sample(model, some_prompts(10), Sampling(8))
    model.train()
    model.transformer.h[0].eval()
    modes = [module.training for module in model.modules()]
    assert [d.ids for d in sample(model, some_prompts(10), Sampling(8))] == [d.ids for d in quiet]
    assert modes == [module.training for module in model.modules()]


def test_the_model_can_be_trained_after_sampling():
    model = qwen().train()
    sample(model, some_prompts(4), Sampling(4))
    model(torch.tensor([[1, 2, 3]])).logits.sum().backward()
    assert model.lm_head.weight.grad is not None


def test_generation_settings_of_the_model_folder_do_not_leak_in():
    model = qwen()
    wanted = Sampling(12, temperature=0)
    plain = sample(model, some_prompts(20), wanted)
    folder = GenerationConfig(
        eos_token_id=list(range(15)), repetition_penalty=9.0, max_length=5, bad_words_ids=[[4]]
    )
    model.generation_config = folder
    assert sample(model, some_prompts(20), wanted) == plain
    assert model.generation_config is folder


def test_samples_follow_the_trainers_weights_without_a_copy():
    model = qwen()
    session = TransformersEngine().start(model)
    before = session.generate([[1, 2]], Sampling(5, temperature=0), [0])
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_()
    session.sync(iter(()), version=3)
    assert session.version == 3
    after = session.generate([[1, 2]], Sampling(5, temperature=0), [0])
    assert after[0].ids != before[0].ids


# --- bad input -----------------------------------------------------------------------------------


def test_no_prompts_give_no_completions(model):
    assert sample(model, [], Sampling(5)) == []


def test_a_prompt_that_does_not_fit_the_context_is_refused_before_sampling(model):
    assert sample(model, [[1] * 60], Sampling(4))[0].ids  # 64 of 64 fit
    with pytest.raises(DataError, match=r"prompt 1: 61 tokens .* make 65.*context is 64; shorten"):
        sample(model, [[1], [1] * 61], Sampling(4))


def test_an_empty_prompt_is_refused(model):
    with pytest.raises(DataError, match="prompt 1: no tokens"):
        sample(model, [[1], []], Sampling(4))


def test_a_stop_token_outside_the_vocabulary_is_refused(model):
    with pytest.raises(DataError, match=r"stop_ids: \[29\] .* vocabulary of 29"):
        sample(model, [[1]], Sampling(4, stop_ids=(3, 29)))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_broken_model_is_an_error_and_not_a_sample(temperature):
    model = qwen()
    with torch.no_grad():
        model.get_input_embeddings().weight[3] = torch.nan
    with pytest.raises(TrainingError, match=r"not finite for 1 of 2 prompts \(first: prompt 1\)"):
        sample(model, [[1, 2], [3, 2]], Sampling(1, temperature=temperature, stop_ids=(5,)))


def test_naming_the_engine_does_not_import_transformers():
    code = "import sys, alignzoo.engine.sampling.generate; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- a real model --------------------------------------------------------------------------------


def test_a_pretrained_model_whose_pad_is_its_end_token_samples_as_alone():
    folder = shared("models/stories260k")
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    assert isinstance(model.config, LlamaConfig)
    prompts = [[1, 403, 407, 261, 378], [1, 2, 403], [1, 407]]  # ids of <s> and </s> inside
    wanted = Sampling(40, stop_ids=(13, 1, 2))
    together = sample(model, prompts, wanted)
    for i, prompt in enumerate(prompts):
        alone = sample(model, [prompt], wanted, [sample_key(0, i)])[0]
        assert alone.ids == together[i].ids
