"""Rewards on given pairs: a scalar head's and log-ratios, against plain transformers."""

import json
import shutil

import pytest
import torch
from small_models import write_rows
from tiny_models import model_folder, score, tiny_llama, word_tokenizer

from alignzoo.contract.errors import DataError, RecipeError
from alignzoo.contract.progress import Silent
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.run import run_recipe
from alignzoo.stages.evaluation import rewarded

PAIRS = [
    ("the fox", " eats a berry", " runs"),
    ("the owl sees", " the fox", " a berry a berry a berry"),
    ("the owl", " runs", " eats"),
    ("a fox runs", " the owl sees a fox", " the owl eats a fox"),
    ("a berry", " sees", " the the the"),
]


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    rows = [dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)) for pair in PAIRS]
    write_rows(tmp_path / "pairs.jsonl", rows)
    for name, options in (("one", {"seed": 1}), ("two", {"seed": 2})):
        model_folder(tmp_path / name, **options)
    model_folder(tmp_path / "scorer", head="scalar", seed=3)
    shutil.copytree(tmp_path / "one", tmp_path / "same")
    return tmp_path


def measure(world, rewards, folder="run", **block):
    """`scores.json` of every reward, by name, and the rewards of both answers."""
    named = {
        name: {key: str(world / model) for key, model in of.items()} for name, of in rewards.items()
    }
    data = {"name": str(world / "pairs.jsonl")}
    section = {"benchmark": "preferences", "data": data, "rewards": named, **block}
    recipe = Recipe.model_validate(
        {"name": "r", "model": str(world / "one"), "stages": [], "evaluate": [section]}
    )
    run_recipe(recipe, "", load_plugins(), world / folder, Silent())
    kept = world / folder / "evaluations" / "01-preferences"
    found = {name: json.loads((kept / name / "scores.json").read_text()) for name in rewards}
    lines = {name: (kept / name / "answers.jsonl").read_text().splitlines() for name in rewards}
    both = {name: [json.loads(x)["scores"] for x in rows] for name, rows in lines.items()}
    return found, both


def texts():
    """Prompt and answer in ids, as plain tokenization of words has it: (prompt, answer, end)."""
    reader = word_tokenizer()
    for prompt, *answers in PAIRS:
        yield [(reader(prompt)["input_ids"], [*reader(x)["input_ids"], 1]) for x in answers]


def log_prob(model, prompt, answer):
    """log p(answer | prompt), nats, by plain transformers in float64."""
    ids = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        rows = torch.log_softmax(model(ids).logits[0].double(), -1)
    at = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
    return sum(rows[place, token].item() for place, token in zip(at, answer, strict=True))


def accuracy(pairs):
    return [1.0 if w > x else 0.5 if w == x else 0.0 for w, x in pairs]


def test_a_log_ratio_is_the_sum_over_the_answer_and_its_end_as_transformers_has_it(world):
    found, both = measure(world, {"ratio": {"model": "one", "over": "two"}})
    one, two = tiny_llama(seed=1), tiny_llama(seed=2)
    wanted = [[log_prob(one, *x) - log_prob(two, *x) for x in pair] for pair in texts()]
    assert both["ratio"] == [pytest.approx(pair, abs=1e-4) for pair in wanted]
    means = [
        [r / len(x[1]) for r, x in zip(p, q, strict=True)]
        for p, q in zip(wanted, texts(), strict=True)
    ]
    assert accuracy(means) != accuracy(wanted)  # so that a mean in place of the sum would show
    assert found["ratio"]["values"]["accuracy"] == accuracy(wanted)
    margins = found["ratio"]["values"]["margin"]
    assert margins == pytest.approx([w - x for w, x in wanted], abs=1e-4)


def test_a_reward_model_is_read_at_the_end_of_prompt_and_answer(world):
    found, both = measure(world, {"scorer": {"model": "scorer"}})
    model = tiny_llama(head="scalar", seed=3)
    wanted = [[score(model, [*p, *a]) for p, a in pair] for pair in texts()]
    assert both["scorer"] == [pytest.approx(pair, abs=1e-5) for pair in wanted]
    assert found["scorer"]["values"]["accuracy"] == accuracy(wanted)
    row = found["scorer"]["row"]
    assert (row["prompts"], row["columns"]["accuracy"]["whole"]) == (len(PAIRS), 1)
    assert row["columns"]["accuracy"]["mean"] == sum(accuracy(wanted)) / len(PAIRS)


def test_a_reward_that_says_nothing_has_half_of_the_pairs_and_says_that_all_are_ties(world):
    found, _ = measure(world, {"nothing": {"model": "one", "over": "same"}})
    assert found["nothing"]["values"]["accuracy"] == [0.5] * len(PAIRS)
    assert found["nothing"]["values"]["ties"] == [1.0] * len(PAIRS)


def test_swapped_pairs_have_the_complement(world):
    ratio = {"ratio": {"model": "one", "over": "two"}}
    found, _ = measure(world, ratio)
    data = {"name": str(world / "pairs.jsonl"), "swap": True}
    swapped, _ = measure(world, ratio, "other", data=data)
    values = zip(
        found["ratio"]["values"]["accuracy"], swapped["ratio"]["values"]["accuracy"], strict=True
    )
    assert {a + b for a, b in values} == {1.0}


def test_an_interrupted_reward_goes_on_behind_the_parts_that_it_has_kept(world, monkeypatch):
    monkeypatch.setattr(rewarded, "PER_PASS", 3)  # 10 answers: 4 parts
    ratios, read = rewarded.sequence_log_ratios, []

    def stops(*given):
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(len(given[2]))
        return ratios(*given)

    monkeypatch.setattr(rewarded, "sequence_log_ratios", stops)
    rewards = {"ratio": {"model": "one", "over": "two"}}
    with pytest.raises(KeyboardInterrupt):
        measure(world, rewards)
    monkeypatch.setattr(rewarded, "sequence_log_ratios", lambda *x: read.append(0) or ratios(*x))
    found, _ = measure(world, rewards)
    assert read == [3, 3, 0, 0]
    monkeypatch.setattr(rewarded, "sequence_log_ratios", ratios)
    whole, _ = measure(world, rewards, "whole")
    assert found["ratio"]["values"] == whole["ratio"]["values"]


def test_another_model_below_the_line_is_measured_anew_and_the_same_one_is_not(world, monkeypatch):
    measure(world, {"ratio": {"model": "one", "over": "two"}})
    calls = []
    ratios = rewarded.sequence_log_ratios
    monkeypatch.setattr(rewarded, "sequence_log_ratios", lambda *x: calls.append(1) or ratios(*x))
    measure(world, {"ratio": {"model": "one", "over": "two"}})
    assert not calls
    measure(world, {"ratio": {"model": "one", "over": "same"}})
    assert calls


def test_data_without_pairs_are_refused(world):
    write_rows(world / "pairs.jsonl", [{"prompt": "the fox", "response": "runs"}])
    with pytest.raises(DataError, match=r"pairs\.jsonl"):
        measure(world, {"ratio": {"model": "one", "over": "two"}})


STAGES = """
  - {name: sft, algorithm: sft, data: {name: facts.sft}}
  - {name: answers, stage: generate, policy: sft, data: {name: facts.prompts}, samples: 2}
  - {name: pairs, stage: label, data: answers, judge: facts.annotator}
  - {name: scorer, algorithm: reward_model, policy: sft, data: pairs}
"""


@pytest.mark.parametrize(
    ("block", "cause"),
    [
        ("{benchmark: preferences, data: pairs}", "add `rewards:`"),
        ("{benchmark: preferences, rewards: {a: {model: scorer}}}", "add `data:`"),
        ("{benchmark: preferences, data: answers, rewards: {a: {model: scorer}}}", "label stage"),
        ("{benchmark: preferences, data: pairs, rewards: {a: {model: sft}}}", "at random"),
        (
            "{benchmark: preferences, data: pairs, rewards: {a: {model: scorer, over: sft}}}",
            "no distribution over tokens",
        ),
        (
            "{benchmark: preferences, data: pairs, rewards: {a: {model: sft, over: sfft}}}",
            "did you mean 'sft'",
        ),
        (
            "{benchmark: preferences, data: pairs, rewards: {a: {model: scorer}}, samples: 4}",
            "nothing is sampled",
        ),
        (
            "{benchmark: preferences, data: pairs, rewards: {a: {model: scorer}}, baseline: sft}",
            "nothing is sampled",
        ),
        ("{benchmark: facts, data: pairs}", "prompts of its own"),
        ("{benchmark: facts, rewards: {a: {model: scorer}}}", "prompts of its own"),
    ],
)
def test_a_block_that_cannot_be_measured_is_refused_with_its_cause(tmp_path, block, cause):
    file = tmp_path / "r.yaml"
    file.write_text(f"name: r\nmodel: facts\nstages:{STAGES}evaluate:\n  - {block}\n")
    with pytest.raises(RecipeError) as error:
        load_recipe(file, load_plugins())
    assert cause in str(error.value)
