"""Everything that samples can use the engine; a stand-in of the server samples greedily."""

import json
import socket

import pytest
from run_parts import Heard
from vllm_stand_in import stand_in

from alignzoo import AlignzooError
from alignzoo.cli.doing.generating import Wish, generate_command
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.recipe.spec import AdapterSpec, LoraSpec
from alignzoo.run import run_recipe

ADAPTER = AdapterSpec(lora=LoraSpec(r=4))
GREEDY = {"max_new_tokens": 6, "temperature": 0.0}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))


def engine_at(address, **more):
    return {"name": "vllm", "with": {"address": address, **more}}


def recipe(engine, **train):
    """A stage of each kind that samples, and a benchmark."""
    prompts = {"name": "facts.prompts", "with": {"size": 6}}
    return Recipe.model_validate(
        {
            "name": "served",
            "model": "facts",
            "threads": 1,
            "stages": [
                {
                    "name": "answers",
                    "stage": "generate",
                    "data": prompts,
                    "sampling": GREEDY,
                    "engine": engine,
                },
                {
                    "name": "grpo",
                    "algorithm": "grpo",
                    "data": prompts,
                    "rollout": {
                        "prompts": 2,
                        "samples_per_prompt": 2,
                        "sampling": GREEDY,
                        "reward": {"judge": "facts.oracle"},
                        "engine": engine,
                    },
                    "train": {"steps": 3, "batch_size": 4, "lr": 1e-3},
                },
            ],
            "evaluate": [
                {
                    "benchmark": "facts",
                    "with": {"size": 5},
                    "sampling": GREEDY,
                    "engine": engine,
                }
            ],
        }
    )


def run(engine, folder):
    heard = Heard()
    result = run_recipe(recipe(engine), "", load_plugins(), folder, heard)
    return result, heard


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_stages_and_benchmarks_give_what_the_built_in_engine_gives(tmp_path):
    run("transformers", tmp_path / "built-in")
    with stand_in() as (policy, address):
        run(engine_at(address), tmp_path / "served")
        syncs = [body for path, body in policy.asked if path == "/collective_rpc"]
    assert len(syncs) == 1 + 3 + 1  # generate, three steps, the benchmark
    for file in ("stages/01-answers/data.jsonl",):
        assert rows(tmp_path / "built-in" / file) == rows(tmp_path / "served" / file)
    built_in, served = (
        rows(tmp_path / name / "stages/02-grpo/metrics.jsonl") for name in ("built-in", "served")
    )
    assert [row["rollout/reward"] for row in served] == [row["rollout/reward"] for row in built_in]
    assert all(row["rollout/logprob_gap"] < 1e-5 for row in served)
    results = {
        name: [x.read_text() for x in sorted((tmp_path / name).rglob("answers.jsonl"))]
        for name in ("built-in", "served")
    }
    assert results["built-in"] == results["served"] != []


def test_adapters_are_handed_over_merged(tmp_path):
    pytest.importorskip("peft", reason="peft is not installed")

    def learnt(engine, name):
        whole = recipe(engine)
        learning = whole.stages[1].model_copy(update={"adapter": ADAPTER})
        alone = whole.model_copy(update={"stages": (learning,), "evaluate": ()})
        run_recipe(alone, "", load_plugins(), tmp_path / name, Heard())
        return rows(tmp_path / name / "stages/01-grpo/metrics.jsonl")

    built_in = learnt("transformers", "built-in")
    with stand_in() as (_, address):
        served = learnt(engine_at(address), "served")
    assert [row["rollout/reward"] for row in served] == [row["rollout/reward"] for row in built_in]
    assert all(row["rollout/logprob_gap"] < 1e-5 for row in served)


def test_a_stage_is_not_done_again_because_the_server_has_moved(tmp_path):
    with stand_in() as (_, address):
        run(engine_at(address), tmp_path / "first")
    with socket.socket() as free:  # nobody listens here, and nobody is asked
        free.bind(("127.0.0.1", 0))
        moved = f"http://127.0.0.1:{free.getsockname()[1]}"
        _, heard = run(engine_at(moved), tmp_path / "second")
        assert not [event for event in heard.events if event.startswith("run ")]
        with pytest.raises(AlignzooError, match="is lost"):
            run(
                {"name": "vllm", "with": {"address": moved, "dtype": "bfloat16"}},
                tmp_path / "third",
            )


def test_the_command_line_samples_with_the_engine_that_it_names(capsys):
    decoding = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "stop": []}

    def answer(engine):
        generate_command(Wish("facts", decoding, 8, 1, 0, False, engine), "tell me the fox .", None)
        return capsys.readouterr().out

    with stand_in() as (policy, address):
        served = answer(f'{{name: vllm, with: {{address: "{address}"}}}}')
        assert policy.asked
    assert served == answer("transformers") != ""


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("vlm", "unknown engine 'vlm'; did you mean 'vllm'"),
        ("{name: vllm, with: {adress: x}}", "adress: unknown option"),
        ("{name: vllm, wiht: {}}", "wiht"),
        ("{name: transformers, with: {batch_size: 3}}", "takes no options here"),
    ],
)
def test_an_engine_that_cannot_be_built_is_told_before_a_model_is_loaded(engine, said):
    decoding = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "stop": []}
    with pytest.raises(AlignzooError, match=said):
        generate_command(Wish("nowhere", decoding, 8, 1, 0, False, engine), "hello", None)
