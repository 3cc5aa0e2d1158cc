"""Ids without a row in the embedding: harmless while nothing holds one, else told with a place."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from shared_data import shared
from tiny_models import WORDS, model_folder, word_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

RECIPE = """
name: x
model: model
stages:
  - name: it
    algorithm: ALGORITHM
    data: {name: DATA, max_length: 32, special: parse}
    train: {steps: 1, batch_size: 2, micro_batch_size: 2, lr: 1e-9}
"""
PAIRS = [
    {"prompt": "the fox", "chosen": " eats a berry", "rejected": " runs"},
    {"prompt": "the owl", "chosen": " sees", "rejected": " eats a fox"},
]


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    """A model of 12 rows whose tokenizer knows a thirteenth token, the padding."""
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    model_folder("model", word_tokenizer((*WORDS, "[PAD]"), pad_token="[PAD]"))


def write(name, rows):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(cli, algorithm="sft", data="text.jsonl"):
    Path("x.yaml").write_text(RECIPE.replace("ALGORITHM", algorithm).replace("DATA", data))
    return cli("run", "x.yaml", "--output", "run")


def losses(rows):
    """Cross-entropy of every answer token, end included, by plain transformers without padding."""
    model = AutoModelForCausalLM.from_pretrained("model")
    tokenizer = AutoTokenizer.from_pretrained("model")
    for row in rows:
        prompt = tokenizer(row["prompt"]).input_ids
        ids = [*tokenizer(row["prompt"] + row["response"]).input_ids, 1]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, len(prompt) - 1 : -1]
        answer = torch.tensor(ids[len(prompt) :])
        yield -logits.log_softmax(-1).gather(1, answer[:, None])[:, 0]


def test_padding_without_a_row_in_the_embedding_changes_no_number_and_is_named(cli):
    rows = [{"prompt": pair["prompt"], "response": pair["chosen"]} for pair in PAIRS]
    write("text.jsonl", rows)
    status, out, err = run(cli)
    assert status == 0, err
    assert "model: the tokenizer knows 13 tokens, the embedding has 12 rows" in out
    assert "'[PAD]' (12)" in out
    logged = json.loads(Path("run/stages/01-it/metrics.jsonl").read_text())
    assert logged["padding"] > 0
    assert logged["loss"] == pytest.approx(torch.cat(list(losses(rows))).mean().item(), abs=1e-5)


@pytest.mark.parametrize(("algorithm", "data"), [("sft", "text.jsonl"), ("dpo", "pairs.jsonl")])
def test_a_row_that_holds_an_id_without_a_row_is_refused_with_its_place(cli, algorithm, data):
    bad = [PAIRS[0], {**PAIRS[1], "chosen": " sees [PAD]"}]
    write("pairs.jsonl", bad)
    write("text.jsonl", [{"prompt": p["prompt"], "response": p["chosen"]} for p in bad])
    status, _, err = run(cli, algorithm, data)
    assert status == 1
    assert f"{data}:2: holds '[PAD]', id 12, but the embedding of 'model' has 12 rows" in err
    assert "unexpected" not in err


def test_a_prompt_to_sample_from_is_looked_at_too(cli):
    write("prompts.jsonl", [{"prompt": "the fox"}, {"prompt": "the [PAD]"}])
    text = RECIPE.replace("ALGORITHM", "rloo").replace("DATA", "prompts.jsonl")
    sampled = "prompts: 1, samples_per_prompt: 2, sampling: {max_new_tokens: 4}"
    rollout = f"    rollout: {{{sampled}, reward: {{judge: facts.oracle}}}}\n"
    Path("x.yaml").write_text(text + rollout)
    status, _, err = cli("run", "x.yaml", "--output", "run")
    assert status == 1
    assert "prompts.jsonl:2: holds '[PAD]', id 12" in err


def test_generate_refuses_a_prompt_that_the_model_cannot_read(cli):
    status, _, err = cli("generate", "model", "the [PAD]", "--plain")
    assert status == 1
    assert "holds id 12, but the model's vocabulary has 12" in err


PLAN, RUN = ("plan", "x.yaml"), ("run", "x.yaml", "--output", "run")


@pytest.mark.parametrize("words", [PLAN, RUN, ("generate", "model", "a")])
def test_an_end_of_answers_without_a_row_is_refused_with_both_sizes(cli, words):
    model_folder("model", word_tokenizer((*WORDS, "<end>"), eos_token="<end>"))
    write("text.jsonl", [{"prompt": "the fox", "response": " eats"}])
    Path("x.yaml").write_text(RECIPE.replace("ALGORITHM", "sft").replace("DATA", "text.jsonl"))
    status, _, err = cli(*words)
    assert status in (1, 2)
    assert "the embedding has 12 rows" in err
    assert "knows 13 tokens" in err
    assert "ends answers with '<end>', id 12" in err


def test_a_text_that_spells_a_token_without_a_row_is_refused_though_it_could_be_letters(cli):
    shutil.rmtree("model")
    shutil.copytree(shared("models", "stories260k"), "model")
    Path("model/tokenizer_config.json").chmod(0o644)
    tokenizer = AutoTokenizer.from_pretrained("model")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained("other")
    for file in Path("other").iterdir():
        Path("model", file.name).unlink(missing_ok=True)
        shutil.copy(file, "model")
    write("text.jsonl", [{"prompt": "Lily has a dog.", "response": " It is [PAD] big."}])
    plain = RECIPE.replace(", special: parse", "").replace("ALGORITHM", "sft")
    Path("x.yaml").write_text(plain.replace("DATA", "text.jsonl"))
    status, _, err = cli("run", "x.yaml", "--output", "run")
    assert status == 1
    assert "text.jsonl:1: spells '[PAD]', id 512, but the embedding of 'model' has 512 rows" in err
