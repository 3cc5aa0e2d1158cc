"""A model's own idea of its end is respected alike wherever it answers, learns or is saved."""

import json

import pytest
import torch
from recording import REQUESTS, every_kind_of_sampling, registry
from small_models import ids_of, run_stages, word_model, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

EOS, TURN, BYE = ids_of("</s> <|end|> bye")
PROMPTS = [{"prompt": words} for words in ("the cat sat", "hello you", "how are you", "a mat")]


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    REQUESTS.clear()


def greedy(folder, words):
    """What plain transformers answers."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)(words, return_tensors="pt").input_ids
    found = model.generate(ids, do_sample=False, max_new_tokens=40)
    return found[0, ids.shape[1] :].tolist()


def test_generate_stops_where_plain_transformers_stops(tmp_path):
    model = word_model(tmp_path / "m", ends=("</s>", "bye", "mat", "ran", "on"), seed=11)
    data = write_rows(tmp_path / "d.jsonl", PROMPTS)
    stage = {
        "name": "it",
        "stage": "generate",
        "data": data,
        "sampling": {"temperature": 0, "max_new_tokens": 40},
    }
    run_stages(model, tmp_path / "r", stage)
    lines = (tmp_path / "r" / "stages" / "01-it" / "data.jsonl").read_text().splitlines()
    ours = [json.loads(line)["responses"][0] for line in lines]
    expected = [greedy(model, row["prompt"]) for row in PROMPTS]
    assert any(ids[-1] not in (EOS, TURN) and len(ids) < 40 for ids in expected)
    for answer, ids in zip(ours, expected, strict=True):
        turn = ids.index(TURN) + 1 if TURN in ids else None  # the template's, which we know too
        assert answer["ids"] == ids[:turn]


def test_rollouts_generate_and_benchmarks_ask_for_the_same_stops(tmp_path):
    model = word_model(tmp_path / "m", ends=("bye", "</s>"))
    data = write_rows(tmp_path / "d.jsonl", PROMPTS)
    sampling = {"sampling": {"max_new_tokens": 4}}
    stages, evaluate = every_kind_of_sampling(model, data, sampling)
    run_stages(model, tmp_path / "r", *stages, registry=registry(), evaluate=evaluate)
    assert [set(request.stop_ids) for request in REQUESTS] == [{EOS, BYE, TURN}] * 3


def test_a_saved_model_stops_in_plain_transformers_where_it_stopped_here(tmp_path, cli):
    model = word_model(tmp_path / "m", ends=("bye",))
    data = write_rows(tmp_path / "d.jsonl", [{"prompt": "hello", "response": " you"}])
    stage = {"name": "it", "algorithm": "sft", "data": data, "train": {"steps": 1, "lr": 1e-9}}
    run_stages(model, tmp_path / "r", stage)
    status, _, err = cli("export", tmp_path / "r" / "it", tmp_path / "out")
    assert status == 0, err
    for folder in (tmp_path / "r" / "stages" / "01-it" / "model", tmp_path / "out"):
        named = GenerationConfig.from_pretrained(folder).eos_token_id
        assert set(named) == {EOS, BYE, TURN}


def test_a_chat_row_learns_the_turns_own_end_and_no_second_one(tmp_path):
    model = word_model(tmp_path / "m")
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine bye"}]
    data = write_rows(tmp_path / "d.jsonl", [{"messages": chat}])
    stage = {"name": "it", "algorithm": "sft", "data": data, "train": {"steps": 1, "lr": 1e-9}}
    run_stages(model, tmp_path / "r", stage)
    (line,) = (tmp_path / "r" / "stages" / "01-it" / "metrics.jsonl").read_text().splitlines()
    start = ids_of("<|start|> user hello <|end|> <|start|> assistant")
    answer = ids_of("fine bye <|end|>")
    loaded = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        log_probs = loaded(torch.tensor([[*start, *answer]])).logits[0].log_softmax(-1)
    picked = log_probs[len(start) - 1 : -1].gather(1, torch.tensor(answer)[:, None])
    metrics = json.loads(line)
    assert metrics["response_length"] == 3
    assert metrics["loss"] == pytest.approx(-picked.mean().item(), abs=1e-5)
