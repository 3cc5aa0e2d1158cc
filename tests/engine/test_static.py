"""Steps of fixed shapes and places: the samples of plain steps, and what a GPU's replay needs."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from family_models import NAMED, build
from tiny_models import tiny_llama
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from alignzoo.contract.rollout import Sampling, sample_key
from alignzoo.engine.memory.live import Live
from alignzoo.engine.memory.sampling import CACHE, Decoding, sample
from alignzoo.engine.models.beside import attend, joins_rows
from alignzoo.engine.parallel.ranks import start_ranks, steady_attention
from alignzoo.engine.sampling import static
from alignzoo.engine.sampling.decoder import ModelDecoder
from alignzoo.engine.sampling.generate import (
    MixedSession,
    TransformersEngine,
    TransformersSession,
)
from alignzoo.engine.sampling.mixtures import Mixture
from alignzoo.engine.sampling.packed import packed
from alignzoo.engine.sampling.replay import Replayed
from alignzoo.engine.sampling.static import Replaying, StaticDecoder, why_not_fixed
from alignzoo.engine.sampling.stepped import trial
from alignzoo.engine.sampling.ways import Way

PLAIN, STATIC = Way(stepped=True), Way(stepped=True, captured=True)
PROMPTS = [tuple(range(20, 20 + n)) for n in (1, 7, 3, 7, 12, 2, 5, 9)] * 3
KEYS = [sample_key(n) for n in range(len(PROMPTS))]
SAMPLING = Sampling(max_new_tokens=40, stop_ids=tuple(range(400, 440)), min_new_tokens=2)
FAMILIES = ["qwen2", "gpt2", "deepseek_v3", "cohere"]


@pytest.fixture
def narrow(monkeypatch):
    """Places that fill after a few steps, and rows that leave soon; the widths that were made."""
    monkeypatch.setattr(static, "WIDER", 9)
    monkeypatch.setattr(static, "FEW", 2)
    made, take = [], StaticDecoder.take

    def noted(self, rows):
        take(self, rows)
        made.append((len(rows), self.places))

    monkeypatch.setattr(StaticDecoder, "take", noted)
    return made


def sampled(model, way, sampling=SAMPLING, prompts=PROMPTS):
    return TransformersSession(model, 256, way).generate(prompts, sampling, KEYS[: len(prompts)])


def assert_alike(ours, theirs):
    assert [c.ids for c in ours] == [c.ids for c in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=2e-5)
        assert one.ended == other.ended


# --- the same samples ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [{}, {"temperature": 0.7, "top_k": 20, "top_p": 0.9}])
def test_fixed_places_sample_what_plain_steps_sample(name, shape, narrow):
    model, sampling = build(NAMED[name], 1).eval(), replace(SAMPLING, **shape)
    found = sampled(model, STATIC, sampling)
    assert_alike(found, sampled(model, PLAIN, sampling))
    rows, places = zip(*narrow, strict=True)
    assert rows[0] == len(PROMPTS) > min(rows)  # rows have left
    assert len(set(places)) > 2  # and places have filled


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_log_probs_are_those_of_whole_sequences(attention, narrow):
    model = tiny_llama(seed=3)
    model.set_attn_implementation(attention)
    prompts = [(1, 2, 3), (4,), (1, 2, 3), (5, 6)]
    for prompt, done in zip(prompts, sampled(model, STATIC, Sampling(50), prompts), strict=True):
        logits = model(input_ids=torch.tensor([[*prompt, *done.ids]])).logits[0].log_softmax(-1)
        right = logits[len(prompt) - 1 : -1].gather(1, torch.tensor(done.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(done.log_probs), right, atol=3e-5, rtol=0)


def test_in_mixed_precision_keys_are_kept_as_attention_rounds_them():
    model, held = build(NAMED["qwen2"], 1).eval(), []
    step = StaticDecoder.next

    def noted(self, tokens):
        held.append(self.fixed.fixed[0].keys)
        return step(self, tokens)

    with (
        torch.autocast("cpu", torch.bfloat16),
        steady_attention("cpu"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(StaticDecoder, "next", noted)
        found = sampled(model, STATIC)
        plain = sampled(model, PLAIN)
    assert [c.ids for c in found] == [c.ids for c in plain]
    for one, other in zip(found, plain, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-6)
    assert {keys.dtype for keys in held} == {torch.bfloat16}


def test_mixtures_are_sampled_from_fixed_places_too(narrow):
    models = {"policy": tiny_llama(seed=1), "teacher": tiny_llama(seed=2)}
    mixture, prompts = Mixture({"policy": 0.7, "teacher": 0.3}), [(2, 3, 4), (5,), (2, 3, 4), (6,)]

    def by(way):
        session = MixedSession(models["policy"], 256, way, 0, models, mixture)
        return session.generate(prompts, Sampling(30), KEYS[:4])

    assert_alike(by(STATIC), by(PLAIN))
    assert len({places for _, places in narrow}) > 1  # they have filled


def test_weights_that_change_or_are_replaced_between_two_calls_are_the_ones_that_sample():
    model = build(NAMED["qwen2"], 1).eval()
    session = TransformersSession(model, 256, STATIC)
    calls = [session.generate(PROMPTS, Sampling(12), KEYS)]
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.3)
    calls.append(session.generate(PROMPTS, Sampling(12), KEYS))
    assert_alike(calls[1], sampled(model, PLAIN, Sampling(12)))
    for weight in model.parameters():
        weight.data = weight.data * 0.6
    calls.append(session.generate(PROMPTS, Sampling(12), KEYS))
    assert_alike(calls[2], sampled(model, PLAIN, Sampling(12)))
    assert len({tuple(c.ids for c in done) for done in calls}) == 3


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_call_held_is_free_when_it_ends(fails, monkeypatch):
    made, begin = [], StaticDecoder.begin

    def noted(self, prompts):
        made.append(weakref.ref(self))
        if fails and len(made) == 2:
            raise RuntimeError
        return begin(self, prompts)

    monkeypatch.setattr(StaticDecoder, "begin", noted)
    session = TransformersSession(tiny_llama(seed=3), 1, STATIC)
    gc.disable()
    try:
        with pytest.raises(RuntimeError) if fails else nullcontext():
            session.generate([(1, 2), (3,)], Sampling(4), KEYS[:2])
        assert len(made) == 2 and not any(one() for one in made)
    finally:
        gc.enable()


# --- what a replay needs ------------------------------------------------------------------------


@torch.no_grad()
def test_between_two_takes_a_step_reads_and_writes_the_same_places():
    decoder = StaticDecoder(tiny_llama(seed=3), 30)
    logits = decoder.begin([(1, 2, 3), (4,), (1, 2, 3)])

    def places():
        held = [x for layer in decoder.fixed.fixed for x in (layer.keys, layer.values)]
        held += [decoder.hidden, decoder.positions, decoder.fixed.column]
        return [(x.data_ptr(), x.shape) for x in held]

    before, room = places(), decoder.room
    for _ in range(5):
        logits = decoder.next(logits.argmax(-1))
        assert decoder.fixed.get_seq_length() == decoder.places  # what Python sees stays
    assert places() == before and decoder.room == room
    decoder.take(torch.tensor([2, 0]))
    assert decoder.room == room - 5 and places() != before


@torch.no_grad()
def test_what_a_step_does_before_its_end_may_be_done_twice():
    """So a step that was stopped when it waited for the device is run again."""
    one, twice = (StaticDecoder(tiny_llama(seed=3), 9) for _ in range(2))
    for decoder in (one, twice):
        tokens = decoder.begin([(1, 2, 3), (4,)]).argmax(-1)
    read = twice._read

    def stopped(*inputs):
        read(*inputs)
        raise RuntimeError

    twice._read = stopped
    with pytest.raises(RuntimeError):
        twice.next(tokens)
    twice._read = read
    for _ in range(3):
        assert torch.equal(one.next(tokens), twice.next(tokens))


def test_places_are_no_wider_than_the_longest_answer_needs():
    decoder = StaticDecoder(tiny_llama(seed=3), 6)
    with torch.no_grad():
        decoder.begin([tuple(range(2, 12))])
        assert decoder.places == 16  # of 15
        decoder = StaticDecoder(tiny_llama(seed=3), 10_000)
        decoder.begin([tuple(range(2, 12))])
    assert decoder.places == 272  # 10 + 256 in steps of 8


def test_few_rows_stay_as_a_step_is_recorded_anew_when_rows_leave():
    fixed, plain = StaticDecoder(tiny_llama(seed=3), 9), ModelDecoder(tiny_llama(seed=3))
    assert [fixed.pays(done, 64) for done in (1, 16, 31, 32)] == [False, False, False, True]
    assert [plain.pays(done, 64) for done in (1, 15, 16, 32)] == [False, False, True, True]
    assert not fixed.pays(15, 16) and plain.pays(15, 16)


def test_equal_prompts_are_read_once():
    model, fed = tiny_llama(seed=3), []
    model.model.norm.register_forward_pre_hook(lambda m, args: fed.append(args[0].shape[:2]))
    sampled(model, STATIC, Sampling(3), [(1, 2, 3)] * 4 + [(4, 5)] * 4)
    assert fed == [(2, 3), (8, 1), (8, 1)]


@pytest.mark.parametrize("heads", [4, 2, 1])
def test_heads_that_share_keys_attend_to_them_as_they_are(heads, monkeypatch):
    torch.manual_seed(0)
    query, key = torch.randn(3, 4, 1, 8), torch.randn(3, heads, 16, 8)
    value, mask = torch.randn(3, heads, 16, 8), torch.zeros(3, 1, 1, 16)
    mask[1, ..., :5] = mask[..., 11:] = -torch.inf
    every = [x.repeat_interleave(4 // heads, 1) for x in (key, value)]
    right = (query @ every[0].mT * 0.3 + mask).softmax(-1) @ every[1]  # [L, H, 1, d]
    attend, read = torch.nn.functional.scaled_dot_product_attention, []

    def noted(query, key, *rest, **options):
        read.append(key.data_ptr())
        return attend(query, key, *rest, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noted)
    module = SimpleNamespace(num_key_value_groups=4 // heads, is_causal=True)
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    with packed():
        found, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(found, right.transpose(1, 2))
    assert read == [key.data_ptr()]
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before


def test_steps_of_sampling_and_rows_side_by_side_leave_each_other_their_attention():
    for _ in range(2):  # whichever is first
        with packed():
            own = ALL_ATTENTION_FUNCTIONS["sdpa"]
        assert joins_rows(tiny_llama(seed=3))
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is attend is not own


# --- which way ----------------------------------------------------------------------------------


def test_on_a_cpu_steps_are_plain_and_nothing_is_remarked():
    way = TransformersEngine().start(tiny_llama(seed=3)).way
    assert way.stepped and not way.captured and not way.remark


@pytest.mark.parametrize("name", FAMILIES)
def test_the_trial_of_steps_holds_for_fixed_places(name):
    model = build(NAMED[name], 1).eval()
    assert trial(model, Replaying(StaticDecoder(model, 17)), 16) < 2e-5


def test_attention_without_a_mask_of_numbers_is_stepped_plainly_and_says_so():
    model = tiny_llama(seed=3)
    assert why_not_fixed(model) == ""
    model.config._attn_implementation = "flash_attention_2"
    way = Way(stepped=True, because=why_not_fixed(model))
    assert way.remark == (
        "sampled in steps that are launched one by one, because its attention, "
        "flash_attention_2, takes no mask of numbers"
    )


def test_a_step_that_is_not_replayed_is_run_as_it_is_written():
    calls = []
    step = Replayed(torch.device("cpu"))
    for _ in range(3):
        step(lambda: calls.append(1))
    assert len(calls) == 3 and step.refused == "it runs on cpu"


def test_the_plan_counts_at_least_the_places_of_a_replayed_step():
    model = tiny_llama()
    with Live() as live:
        sample({"policy": model}, Decoding(8, 5, Sampling(50)), start_ranks("fp32"), live)
    decoder = StaticDecoder(model, 50)
    with torch.no_grad():
        decoder.begin([(n,) * 5 for n in range(2, 10)])
    held = sum(x.nbytes for layer in decoder.fixed.fixed for x in (layer.keys, layer.values))
    assert decoder.places == 56
    assert 0.8 * live.peaks["all"].bytes[CACHE] < held <= live.peaks["all"].bytes[CACHE]
