"""Reward models: given text in their own tokens, never a head drawn at random, never a crash."""

import json
from pathlib import Path

import pytest
import torch
from shared_data import shared
from tiny_models import CHAT, ROWS, WORDS, model_folder, score, tiny_llama, word_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from transformers import LlamaForSequenceClassification as Scorer

from alignzoo import Tokens
from alignzoo.contract.errors import TrainingError
from alignzoo.engine.scoring.measure import sequence_values

MOVED = ("<u>", "runs", "<e>", "berry", "a", "eats", "sees", "owl", "fox", "the", "bot", "user")
RECIPE = """
name: x
model: MODEL
stages:
  - name: it
    algorithm: rloo
    data: {name: prompts.jsonl, max_length: 64}
    rollout:
      prompts: 4
      samples_per_prompt: 2
      sampling: {max_new_tokens: 12, temperature: 0}
      reward: {model: rm}
    train: {steps: 1, batch_size: 8, lr: 1e-9}
"""
PROMPTS = ["the fox", "the owl sees", "a berry", "the fox eats a"]


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_prompts(PROMPTS)


def write_prompts(prompts):
    lines = [json.dumps({"prompt": prompt}) + "\n" for prompt in prompts]
    Path("prompts.jsonl").write_text("".join(lines))


def run(cli, model="policy", **changes):
    text = RECIPE.replace("MODEL", str(model))
    for old, new in changes.items():
        text = text.replace(old, new)
    Path("recipe.yaml").write_text(text)
    return cli("run", "recipe.yaml", "--output", "run")


def reward():
    line = Path("run/stages/01-it/metrics.jsonl").read_text().splitlines()[0]
    return json.loads(line)["rollout/reward"]


def greedy(folder, prompts, chat=False, limit=12):
    """Plain transformers: (prompt ids, answer ids, whether it ended) of every prompt."""
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    for prompt in prompts:
        ids = (
            tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
            if chat
            else tokenizer(prompt).input_ids
        )
        out = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            do_sample=False, max_new_tokens=limit, pad_token_id=0,
        )[0, len(ids) :].tolist()  # fmt: skip
        yield ids, out, out[-1] == tokenizer.eos_token_id


def test_a_reward_model_with_another_tokenizer_reads_the_text_in_its_own_tokens(cli):
    model_folder("policy", seed=3)
    other = word_tokenizer(MOVED)
    model_folder("rm", other, head="scalar", seed=5)
    status, out, err = run(cli)
    assert status == 0, err
    assert "has another tokenizer and is given the text" in out
    rm, own = Scorer.from_pretrained("rm"), AutoTokenizer.from_pretrained("policy")
    answers = list(greedy("policy", PROMPTS))
    assert {ended for _, _, ended in answers} == {True, False}
    right = []
    for ids, answer, ended in answers:
        text = own.decode([*ids, *answer], skip_special_tokens=True)
        right.append(score(rm, other(text).input_ids + [other.eos_token_id] * ended))
    assert reward() == pytest.approx(sum(right) / len(right), abs=1e-5)


def test_a_reward_model_with_the_same_tokenizer_reads_the_ids_as_sampled(cli):
    model_folder("policy", seed=3)
    model_folder("rm", head="scalar", seed=5)
    status, out, err = run(cli)
    assert status == 0, err
    assert "given the text" not in out
    rm = Scorer.from_pretrained("rm")
    right = [score(rm, [*ids, *answer]) for ids, answer, _ in greedy("policy", PROMPTS)]
    assert reward() == pytest.approx(sum(right) / len(right), abs=1e-5)


def test_a_chat_is_written_by_the_reward_models_own_template(cli):
    template = "{% for m in messages %}{{ 'bot ' if m['role'] == 'assistant' else 'user ' }}"
    template += "{{ m['content'] }}{{ ' <e> ' if m['role'] == 'assistant' else ' ' }}{% endfor %}"
    template += "{% if add_generation_prompt %}{{ 'bot ' }}{% endif %}"
    model_folder("policy", word_tokenizer(chat_template=CHAT), seed=3)
    other = word_tokenizer(MOVED, chat_template=template)
    model_folder("rm", other, head="scalar", seed=5)
    chats = [[{"role": "user", "content": text}] for text in PROMPTS]
    write_prompts(chats)
    status, _, err = run(cli)
    assert status == 0, err
    rm, own = Scorer.from_pretrained("rm"), AutoTokenizer.from_pretrained("policy")
    right = []
    for chat, (_, answer, ended) in zip(chats, greedy("policy", chats, chat=True), strict=True):
        said = own.decode(answer, skip_special_tokens=True)
        ids = other(f"user {chat[0]['content']} bot {said}").input_ids
        right.append(score(rm, ids + [other.eos_token_id] * ended))
    assert reward() == pytest.approx(sum(right) / len(right), abs=1e-5)


def test_a_real_policy_and_a_reward_model_with_moved_pieces(cli, tmp_path):
    stories = shared("models", "stories260k")
    moved = json.loads((stories / "tokenizer.json").read_text())
    pieces = moved["model"]["vocab"]
    ordinary = len(pieces) - 259
    moved["model"]["vocab"] = {
        piece: i if i < 259 else 259 + (i - 259 + 97) % ordinary for piece, i in pieces.items()
    }
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=512, num_labels=1,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    rm = Scorer(config)
    torch.nn.init.normal_(rm.score.weight, std=1.0)
    rm.save_pretrained("rm")
    Path("rm/tokenizer.json").write_text(json.dumps(moved))
    settings = (stories / "tokenizer_config.json").read_text()
    Path("rm/tokenizer_config.json").write_text(settings)
    write_prompts(
        ["Lily has a big dog.", "Tom saw a tree.", "One day it rained.", "The cat was sad."]
    )
    status, _, err = run(cli, stories, **{", temperature: 0": ""})
    assert status == 0, err
    assert reward() == pytest.approx(-0.104539, abs=1e-5)  # plain transformers; fed as ids 1.475846


def test_a_reward_model_of_a_model_that_pads_with_its_end_scores_the_same_elsewhere(cli):
    pairs = [
        ("Lily has a dog.", " The dog was happy.", " No."),
        ("Tom saw a big tree.", " He ran up to it and sat down.", " Yes yes."),
    ]
    rows = [json.dumps(dict(zip(("prompt", "chosen", "rejected"), p, strict=True))) for p in pairs]
    Path("pairs.jsonl").write_text("\n".join(rows) + "\n")
    Path("recipe.yaml").write_text(
        f"name: x\nmodel: {shared('models', 'stories260k')}\nstages:\n"
        "  - {name: it, algorithm: reward_model, data: {name: pairs.jsonl, max_length: 64}, "
        "train: {steps: 1, batch_size: 2, micro_batch_size: 2, lr: 1e-12}}\n"
    )
    status, _, err = cli("run", "recipe.yaml", "--output", "run")
    assert status == 0, err
    logged = json.loads(Path("run/stages/01-it/metrics.jsonl").read_text())
    model = Scorer.from_pretrained("run/stages/01-it/model")
    tokenizer = AutoTokenizer.from_pretrained("run/stages/01-it/model")
    texts = [prompt + chosen + tokenizer.eos_token for prompt, chosen, _ in pairs]
    batch = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.no_grad():
        scores = model(**batch).logits[:, 0]
    assert scores.mean().item() == pytest.approx(-0.018875, abs=1e-6)
    assert logged["rewards/chosen"] == pytest.approx(-0.018875, abs=1e-6)


def test_a_frozen_model_without_a_scalar_head_is_refused(cli):
    model_folder("policy")
    model_folder("rm", seed=1)
    status, _, err = run(cli)
    assert status == 2
    assert "stages.it.rollout.reward.model: 'rm' is a LlamaForCausalLM without a scalar head" in err
    assert not list(Path().glob("run/stages/*/metrics.jsonl"))


def test_a_head_with_several_outputs_is_refused(cli):
    model_folder("policy")
    model_folder("rm", head="scalar", outputs=2)
    status, _, err = run(cli)
    assert status == 2
    assert "'rm' has a head with 2 outputs, and a reward is one number" in err


def test_an_answer_beyond_the_reward_models_context_is_refused_with_both_numbers(cli):
    model_folder("policy", seed=3)
    model_folder("rm", head="scalar", context=8)
    status, _, err = run(cli)
    assert status == 1
    assert "reward model 'rm': prompt and answer have" in err
    assert "its context is 8" in err


def test_a_frozen_scalar_head_that_a_plugin_would_draw_at_random_is_refused(cli):
    text = RECIPE.replace("MODEL", "facts").replace("model: rm", "model: initial")
    text = text.replace("name: prompts.jsonl", "name: facts.prompts")
    Path("recipe.yaml").write_text(text)
    status, _, err = cli("run", "recipe.yaml", "--output", "run")
    assert status == 1
    assert "no trained scalar head" in err


def test_words_of_the_two_tokenizers_differ_everywhere():
    """What makes the tests above able to fail."""
    assert all(a != b for a, b in zip(WORDS[1:], MOVED[1:], strict=True))
    assert tiny_llama().config.vocab_size == len(WORDS)


def test_an_id_that_a_reward_model_has_no_row_for_is_blamed_on_the_reward_model():
    row = Tokens((2, 3), (ROWS + 3,))
    with pytest.raises(TrainingError, match="the embedding of 'reward model' has 12"):
        sequence_values(tiny_llama("scalar"), [row], pad_id=0)
