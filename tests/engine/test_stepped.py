"""Sampling step by step: the tokens that `generate` gives, with less work, or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from family_models import NAMED, build
from transformers import LlamaConfig, LlamaForCausalLM

from alignzoo.contract.rollout import Sampling, sample_key
from alignzoo.engine.models.heads import body_of
from alignzoo.engine.sampling import picker as drawing
from alignzoo.engine.sampling.cache import ROOM
from alignzoo.engine.sampling.decoder import _bare
from alignzoo.engine.sampling.generate import TransformersEngine, TransformersSession
from alignzoo.engine.sampling.ways import Way

PROMPTS = [tuple(range(20, 20 + n)) for n in (1, 7, 3, 7, 12, 2, 5, 9)] * 3
KEYS = [sample_key(n) for n in range(len(PROMPTS))]
SAMPLING = Sampling(max_new_tokens=24, stop_ids=tuple(range(400, 440)), min_new_tokens=2)


def llama(**options):
    torch.manual_seed(3)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256}
    made = LlamaForCausalLM(LlamaConfig(vocab_size=61, **size, **heads, **options))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.5)
    return made.eval()


def stepped(model, prompts=PROMPTS, sampling=SAMPLING, keys=KEYS):
    session = TransformersEngine().start(model)
    assert session.way.stepped and not session.remark
    return session.generate(prompts, sampling, keys)


# --- the same samples ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen2", "gpt2", "deepseek_v3", "cohere"])
@pytest.mark.parametrize("shape", [{}, {"temperature": 0.7, "top_k": 20, "top_p": 0.9}])
def test_steps_sample_what_generate_samples(name, shape):
    model, sampling = build(NAMED[name], 1).eval(), replace(SAMPLING, **shape)
    done = stepped(model, sampling=sampling)
    other = TransformersSession(model, 256, Way()).generate(PROMPTS, sampling, KEYS)
    assert [c.ids for c in done] == [c.ids for c in other]
    assert len({len(c.ids) for c in done}) > 3  # rows have left one by one
    for ours, theirs in zip(done, other, strict=True):
        assert ours.log_probs == pytest.approx(theirs.log_probs, abs=1e-5)
        assert ours.ended == theirs.ended


@pytest.mark.parametrize("name", ["qwen2", "gpt2", "deepseek_v3", "cohere"])
@torch.no_grad()
def test_a_body_that_is_stepped_gives_bit_for_bit_what_it_gives_when_it_is_called(name):
    body = body_of(build(NAMED[name], 1).eval())
    ids = torch.arange(20, 32).view(2, 6)
    own = _bare(body)(input_ids=ids, use_cache=False).last_hidden_state
    assert torch.equal(own, body(input_ids=ids, use_cache=False).last_hidden_state)
    assert _bare(body) is not body
    body.register_forward_hook(lambda *seen: None)
    assert _bare(body) is body  # whoever watches it sees it called


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_long_answers_move_to_larger_places_and_keep_their_log_probs(attention):
    model = llama(attn_implementation=attention)
    sampling = Sampling(max_new_tokens=2 * ROOM + 20)
    prompts = [(1, 2, 3), (4,), (1, 2, 3), (5, 6)]
    done = stepped(model, prompts, sampling, KEYS[:4])
    assert max(len(c.ids) for c in done) > 2 * ROOM
    for prompt, completion in zip(prompts, done, strict=True):
        ids = torch.tensor([[*prompt, *completion.ids]])
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        right = logits.gather(1, ids[0, len(prompt) :, None])[:, 0]
        torch.testing.assert_close(torch.tensor(completion.log_probs), right, atol=3e-5, rtol=0)


# --- less work ----------------------------------------------------------------------------------


def test_equal_prompts_are_read_once_and_the_head_sees_last_positions_alone():
    model, fed, seen = llama(), [], []
    session = TransformersEngine().start(model)
    model.model.norm.register_forward_pre_hook(lambda m, args: fed.append(args[0].shape[:2]))
    whole = model.lm_head.weight.shape[0]
    product = torch.nn.functional.linear

    def noted(x, weight, bias=None):
        if weight.shape[0] == whole:
            seen.append(tuple(x.shape))
        return product(x, weight, bias)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", noted)
        session.generate([(1, 2, 3)] * 4 + [(4, 5)] * 4, Sampling(3), KEYS[:8])
    assert fed == [(2, 3), (8, 1), (8, 1)]
    assert seen == [(2, 32), (8, 32), (8, 32)]


def test_a_model_can_be_trained_with_what_steps_have_left_on_it():
    model = llama()
    session = TransformersEngine().start(model)

    def remember(module, args, output):
        module.last = output + 1
        module.register_buffer("kept", output + 1)

    model.model.norm.register_forward_hook(remember)
    session.generate([(1, 2)], Sampling(3), [1])
    assert not model.model.norm.last.is_inference()
    model.model.norm.kept.add_(1)


# --- or not at all ------------------------------------------------------------------------------


def test_a_model_that_cannot_be_stepped_says_why_and_is_generated():
    remark = TransformersEngine().start(build(NAMED["mistral"], 0)).remark
    assert remark == (
        "sampled by transformers' `generate`, because its cache has layers of kind "
        "DynamicSlidingWindowLayer"
    )


def test_a_body_that_computes_another_thing_in_steps_is_not_stepped():
    class Odd(LlamaForCausalLM):
        """Adds something to every token that is read alone."""

    model = llama()
    model.__class__ = Odd

    def shift(module, args, output):
        return output + 0.1 * (output.shape[1] == 1)

    model.model.embed_tokens.register_forward_hook(shift)
    assert "differ from full forwards by" in TransformersEngine().start(model).remark


# --- drawing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary", [5_000, 10_240])
def test_a_draw_of_two_levels_is_that_of_one_up_to_rounding_at_a_boundary(vocabulary):
    torch.manual_seed(0)
    p = (3 * torch.randn(3_000, vocabulary)).softmax(-1)
    u = torch.rand(3_000, dtype=torch.float64)
    cdf = p.cumsum(-1, dtype=torch.float64)
    target = u[:, None] * cdf[:, -1:]
    found = drawing.draw(p, u)
    one = torch.searchsorted(cdf, target, right=True)[:, 0]
    assert (found == one).float().mean() >= 0.998
    above = cdf.gather(1, found[:, None])
    below = above - p.gather(1, found[:, None])
    assert bool((below - 1e-6 <= target).all() and (target <= above + 1e-6).all())


def test_a_token_without_probability_is_never_drawn_of_a_wide_vocabulary():
    p = torch.zeros(5, drawing.FEW + 3 * drawing.BLOCK + 7)
    places = [drawing.BLOCK + 3, drawing.FEW + 1, drawing.FEW + 2 * drawing.BLOCK + 5]
    p[:, places] = torch.tensor([0.25, 0.25, 0.5])
    u = torch.tensor([0.0, 0.25, 0.4999, 0.5, 1.0], dtype=torch.float64)
    assert drawing.draw(p, u).tolist() == [places[n] for n in (0, 1, 1, 2, 2)]
    last = torch.zeros(1, drawing.FEW + 3)
    last[0, -1] = 1
    assert drawing.draw(last, u[:1]).tolist() == [drawing.FEW + 2]


def test_where_a_block_s_sum_was_rounded_up_its_last_token_with_probability_is_drawn():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(500, drawing.FEW + 4 * drawing.BLOCK, generator=generator)
    parts = p.unflatten(1, (-1, drawing.BLOCK))
    parts[:, :, :8] = parts[:, :, drawing.BLOCK // 2 :] = 0
    ends = parts.sum(-1).cumsum(-1, dtype=torch.float64)
    block = torch.arange(500) % (ends.shape[1] - 1)
    u = ends[torch.arange(500), block] / ends[:, -1] * (1 - 1e-15)
    found = drawing.draw(p, u)
    assert bool((p.gather(1, found[:, None]) > 0).all())


@pytest.mark.parametrize("temperature", [1e-29, 1e-37, 1e-38, 1e-39, 1e-45])
def test_a_temperature_so_low_that_logits_overflow_takes_the_likeliest_token(temperature):
    logits = torch.tensor([[2.0, 300.0, -1.0, 299.0], [-4.0, -3.0, -9.0, -5.0]])
    picker = drawing.Picker.of(Sampling(1, temperature=temperature), torch.device("cpu"))
    tokens, log_probs = picker(logits, torch.tensor([0.9, 0.9], dtype=torch.float64), 0)
    assert tokens.tolist() == [1, 1]
    assert log_probs.allclose(logits.log_softmax(-1)[:, 1])
