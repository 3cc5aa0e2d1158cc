"""A model's own idea of its end is respected alike wherever it answers, learns or is saved."""

import json
import types
from dataclasses import dataclass

import alignzoo_reinforce
import pytest
import torch
from safetensors.torch import load_file
from small_models import ids_of, run_stages, word_model, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from alignzoo import Benchmark, Column, PromptSample, RolloutEngine, RolloutSession, hookimpl
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.recipe.registry import Plugin, build_registry

EOS, TURN, BYE = ids_of("</s> <|end|> bye")
PROMPTS = [{"prompt": words} for words in ("the cat sat", "hello you", "how are you", "a mat")]
STOPS = []  # of every request that the recording engine got


@dataclass(frozen=True)
class Recording(RolloutEngine):
    """The built-in engine, and a note of the stop ids of every request."""

    name = "recording"

    def start(self, model):
        session = TransformersEngine().start(model)

        class Session(RolloutSession):
            def sync(self, weights, version):
                session.sync(weights, version)

            def generate(self, prompts, sampling, keys):
                STOPS.append(sampling.stop_ids)
                return session.generate(prompts, sampling, keys)

        return Session()


class Quiz(Benchmark):
    """One prompt; longer is better."""

    name = "endquiz"

    def prompts(self, seed):
        return [PromptSample("the cat")]

    def measure(self, answers, baseline):
        return {"length": Column(tuple(float(a[0].n_tokens) for a in answers))}


def hook(name, found):
    def register():
        return found

    register.__name__ = name
    return hookimpl(register)


def registry():
    module = types.ModuleType("recorder")
    module.register_rollout_engines = hook("register_rollout_engines", [Recording])
    module.register_benchmarks = hook("register_benchmarks", [Quiz])
    plugins = {"recorder": module, "alignzoo_reinforce": alignzoo_reinforce}
    return build_registry([(m, Plugin(name, "dist", "1", "")) for name, m in plugins.items()])


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    STOPS.clear()


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
    sampling = {"max_new_tokens": 4}
    more = {"sampling": sampling}
    run_stages(
        model,
        tmp_path / "r",
        {
            "name": "learn",
            "algorithm": "reinforce",
            "roles": {"teacher": model, "anchor": model},
            "data": data,
            "train": {"steps": 1, "batch_size": 4},
            "rollout": {"prompts": 4, "engine": "recording", "sampling": sampling},
        },
        {"name": "say", "stage": "generate", "data": data, "engine": "recording"} | more,
        registry=registry(),
        evaluate=[{"benchmark": "endquiz", "models": ["learn"], "engine": "recording"} | more],
    )
    assert [set(ids) for ids in STOPS] == [{EOS, BYE, TURN}] * 3


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
    assert load_file(tmp_path / "r" / "stages" / "01-it" / "model" / "model.safetensors")
