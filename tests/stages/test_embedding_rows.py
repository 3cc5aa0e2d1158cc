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
    assert "prompt 1: holds '[PAD]', id 12, but the embedding of 'model' has 12 rows" in err


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


SAMPLED = "prompts: 1, samples_per_prompt: 2, sampling: {max_new_tokens: 4}"
REWARD = "reward: {judge: facts.oracle}"
SPELT = "spells '[PAD]', id 12, but the embedding of 'model' has 12 rows"
STAGE = "stages:\n  - {name: it, %s}\n"
READERS = {  # who reads a text -> its part of a recipe, and the place of the row that spells it
    "training": (STAGE % "algorithm: sft, data: texts.jsonl", "texts.jsonl:2"),
    "validation": (
        STAGE % "algorithm: sft, data: good.jsonl, validation: {data: texts.jsonl}",
        "texts.jsonl:2",
    ),
    "rollout prompts": (
        STAGE % f"algorithm: rloo, data: texts.jsonl, rollout: {{{SAMPLED}, {REWARD}}}",
        "texts.jsonl:2",
    ),
    "generate": (STAGE % "stage: generate, data: texts.jsonl", "texts.jsonl:2"),
    "evaluation": (
        "stages: []\nevaluate:\n  - {benchmark: pairwise, with: {prompts_file: texts.jsonl}, "
        "judge: facts.oracle, models: [initial], baseline: initial}\n",
        "prompt 2",
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_whoever_reads_a_text_refuses_one_that_spells_a_token_without_a_row(cli, reader):
    good = {"prompt": "the fox", "response": " eats"}
    write("good.jsonl", [good])
    write("texts.jsonl", [good, {"prompt": "the [PAD]", "response": " runs"}])
    work, place = READERS[reader]
    Path("x.yaml").write_text(f"name: x\nmodel: model\n{work}")
    status, _, err = cli("run", "x.yaml", "--output", "run")
    assert status == 1
    assert f"{place}: {SPELT}" in err
    assert "unexpected" not in err


@pytest.mark.parametrize(("max_bad", "status"), [(0.4, 1), (0.5, 0)])
def test_a_row_whose_stored_ids_have_no_row_in_the_embedding_counts_for_max_bad(
    cli, max_bad, status
):
    known = AutoTokenizer.from_pretrained("model")("sees").input_ids
    rows = [
        {"prompt": "the owl", "response": {"text": "sees", "ids": ids, "ended": False}}
        for ids in (known, [*known, 12])
    ]
    write("text.jsonl", rows)
    data = f"algorithm: sft, data: {{name: text.jsonl, max_bad: {max_bad}}}"
    Path("x.yaml").write_text(f"name: x\nmodel: model\n{STAGE % data}")
    found, out, err = cli("run", "x.yaml", "--output", "run")
    assert found == status, err
    if status:
        assert "1 of 2 rows cannot be used, more than data.max_bad: 0.4 allows" in err
    else:
        (line,) = Path("run/stages/01-it/bad_rows.txt").read_text().splitlines()
        assert "text.jsonl:2: holds '[PAD]', id 12" in line
        assert "left out: 1 unusable" in " ".join(out.split())


def test_a_held_out_row_with_an_id_without_a_row_is_refused_with_its_place(cli):
    write("good.jsonl", [{"prompt": "the fox", "response": " eats"}])
    ids = [*AutoTokenizer.from_pretrained("model")("sees").input_ids, 12]
    known = {"text": "sees", "ids": ids, "ended": False}
    write("held.jsonl", [{"prompt": "the owl", "response": known}])
    data = "algorithm: sft, data: good.jsonl, validation: {data: held.jsonl}"
    Path("x.yaml").write_text(f"name: x\nmodel: model\n{STAGE % data}")
    status, _, err = cli("run", "x.yaml", "--output", "run")
    assert status == 1
    assert "held.jsonl:1: holds '[PAD]', id 12, but the embedding of 'model' has 12 rows" in err


def test_letters_asked_for_by_name_are_read_as_letters(cli):
    """`special: split` says that a spelt control token is no token, with or without a row."""
    write("texts.jsonl", [{"prompt": "the fox", "response": " eats [PAD]"}])
    data = "algorithm: sft, data: {name: texts.jsonl, special: split}"
    Path("x.yaml").write_text(f"name: x\nmodel: model\n{STAGE % data}")
    _, _, err = cli("run", "x.yaml", "--output", "run")
    assert "spells" not in err


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
