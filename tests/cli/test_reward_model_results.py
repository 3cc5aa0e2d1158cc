"""What becomes of a reward model: it is exported as what it is, and never asked to speak."""

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

RECIPE = """
name: small
model: facts
stages:
  - name: sft
    algorithm: sft
    data: {name: facts.sft, with: {size: 16}, max_length: 128}
    train: {batch_size: 16, steps: 1}
  - name: scorer
    algorithm: reward_model
    policy: sft
    data: pairs.jsonl
    train: {batch_size: 2, micro_batch_size: 2, steps: 1, lr: 1e-12}
  - name: dpo
    algorithm: dpo
    policy: sft
    data: pairs.jsonl
    train: {batch_size: 2, steps: 1}
evaluate:
  - {benchmark: facts, with: {size: 2}, sampling: {max_new_tokens: 4}}
"""
PAIRS = [
    {
        "prompt": "tell me the food of the fox .",
        "chosen": " the fox eats .",
        "rejected": " no fox no .",
    },
    {
        "prompt": "what is the owl like ?",
        "chosen": " it .",
        "rejected": " fox fox fox .",
    },
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with a reward model between two language models."""
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("scorer")
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    (folder / "small.yaml").write_text(RECIPE)
    words = [sys.executable, "-m", "alignzoo", "run", "small.yaml", "--output", "run"]
    done = subprocess.run(words, check=False, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_a_reward_model_is_not_on_the_leaderboard(run):
    rows = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
    assert [row["model"] for row in rows] == ["sft", "dpo"]


def test_an_exported_reward_model_gives_the_trained_reward_elsewhere(cli, run, tmp_path):
    status, out, _ = cli("export", run / "scorer", tmp_path / "exported")
    assert status == 0
    assert f"AutoModelForSequenceClassification.from_pretrained('{tmp_path}/exported')" in out
    logged = json.loads((run / "stages" / "02-scorer" / "metrics.jsonl").read_text())
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "exported")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    for kind in ("chosen", "rejected"):
        texts = [pair["prompt"] + pair[kind] + " " + tokenizer.eos_token for pair in PAIRS]
        batch = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
        assert not batch["attention_mask"].all()  # there is padding to get wrong
        with torch.no_grad():
            mean = model(**batch).logits[:, 0].mean().item()
        assert mean == pytest.approx(logged[f"rewards/{kind}"], abs=1e-5)


def test_a_model_card_tells_what_the_model_descends_from_and_how_to_load_it(cli, run, tmp_path):
    cards = {}
    for name in ("scorer", "dpo"):
        assert cli("export", run / name, tmp_path / name)[0] == 0
        cards[name] = (tmp_path / name / "README.md").read_text()
    assert "AutoModelForSequenceClassification" in cards["scorer"]
    assert "read at its last token" in cards["scorer"]
    assert "not evaluated as a language model" in cards["scorer"]
    assert "true_reward" not in cards["scorer"]
    assert "AutoModelForCausalLM" in cards["dpo"]
    assert "true_reward" in cards["dpo"]
    for name, other in (("scorer", "dpo"), ("dpo", "scorer")):
        assert "name: sft" in cards[name]
        assert f"name: {name}" in cards[name]
        assert f"name: {other}" not in cards[name]
        assert f"* {other}: " not in cards[name]


def test_a_run_answers_with_its_last_language_model(cli, run, tmp_path):
    words = ("what is it ?", "--max-new-tokens", "3")
    _, answer, told = cli("generate", run, *words)
    assert f"{run}: its last model, 'dpo', answers; name another as {run}/STAGE" in told
    _, same, told = cli("generate", run / "dpo", *words)
    assert same == answer
    assert "answers; name another" not in told
    short = ("--set", "with.size=2", "--set", "sampling.max_new_tokens=3")
    status, out, _ = cli("eval", run, "--benchmark", "facts", *short, "--output", tmp_path / "e")
    assert status == 0
    assert "run/dpo" in out
    assert "scorer" not in out


@pytest.mark.parametrize("place", ["scorer", "stages/02-scorer/model"])
@pytest.mark.parametrize("words", [("generate", "hello"), ("eval", "--benchmark", "facts")])
def test_a_reward_model_is_not_asked_to_speak(cli, run, tmp_path, monkeypatch, words, place):
    monkeypatch.chdir(tmp_path)
    status, _, err = cli(words[0], run / place, *words[1:])
    assert status in (1, 2)
    assert "gives no distribution over tokens; name a language model" in err
    assert "unexpected" not in err


def test_a_reward_model_is_no_judge_that_replies(cli, run, tmp_path, monkeypatch):
    from alignzoo_judges.reading import load

    from alignzoo import JudgeError

    with pytest.raises(JudgeError, match="has a scalar head, so it scores texts and cannot reply"):
        load(str(run / "stages" / "02-scorer" / "model"), None, "float32")
