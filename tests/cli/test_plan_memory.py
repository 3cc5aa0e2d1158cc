"""`alignzoo plan --memory`: what a user reads before a GPU is rented."""

import json
import re
from types import ModuleType

import alignzoo_facts
import pytest
from cli_process import Call, run_calls
from extra_methods import Grouped

from alignzoo import hookimpl
from alignzoo.plan.memory import Devices, Predictor
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import Plugin, build_registry

H, MLP, KV, V, LAYERS = 512, 1408, 128, 32000, 2
QWEN = {  # the shape of a small Qwen2.5
    "model_type": "qwen2",
    "vocab_size": V,
    "hidden_size": H,
    "intermediate_size": MLP,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
LAYER = 2 * H * H + 2 * H * KV + H + 2 * KV + 3 * H * MLP + 2 * H
WEIGHTS = 4 * (V * H + LAYERS * LAYER + H)  # bytes in float32
PAPER = "recipes/paper/aligndistil_onpolicy_qwen2.5-1.5b.yaml"
TRAIN = ("micro_batch_size=2", "gradient_checkpointing=false")
WIDER = ("--set", "stages.dpo.train.chunk_mb=256")  # than a GPU so small would be given
SHORT = ("data.max_length=160", *(f"train.{x}" for x in TRAIN))
EXPERTS = {"model_type": "mixtral", "vocab_size": 99, "num_hidden_layers": 1, "hidden_size": 32}
EXPERTS |= {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32}
ONE = "{name: one, model: facts, stages: [{name: sft, algorithm: sft, data: facts.sft}]}"
SMALL = {"data": "pairs.jsonl", "train": {"micro_batch_size": 2}}
LEARNT = SMALL | {"algorithm": "dpo", "policy": "sft"}
LEARNT |= {"adapter": {"lora": {"r": 2, "targets": ["q_proj"]}}}
ADAPTERS = [
    SMALL | {"name": "sft", "algorithm": "sft"},
    LEARNT | {"name": "dpo"},
    LEARNT | {"name": "reverse"},
    LEARNT | {"name": "again", "roles": {"reference": "reverse"}},
]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Every call of this file, in one process."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "config.json").write_text(json.dumps(QWEN))
    moe = folder / "experts"
    moe.mkdir()
    (moe / "config.json").write_text(json.dumps(EXPERTS))
    (folder / "one.yaml").write_text(ONE)
    (folder / "two.yaml").write_text(
        json.dumps({"name": "two", "model": "facts", "stages": ADAPTERS})
    )
    changed = [
        f"stages.{stage}.{key}" for stage in ("dpo", "reverse", "aligndistil") for key in SHORT
    ]
    changed += [
        f"stages.aligndistil.{x}" for x in ("data.max_prompt_length=120", "train.batch_size=8")
    ]
    changed += ["stages.aligndistil.rollout.sampling.max_new_tokens=40"]
    paper = ("plan", PAPER, "--memory", *(w for x in changed for w in ("--set", x)))
    known = (*paper, "--config", str(folder))
    calls = {
        "nowhere": paper,
        "eight": (*known, "--gpus", "8", "--json"),
        "small": (*known, *WIDER, "--gpus", "8", "--gpu-memory", "0.89G"),
        "tiny": (*known, "--gpu-memory", "0.3GiB"),
        "plugin": ("plan", str(folder / "one.yaml"), "--memory"),
        "adapted": ("plan", str(folder / "two.yaml"), "--memory", "--json"),
        "experts": ("plan", str(folder / "one.yaml"), "--memory", "--set", f"model={moe}"),
        "size": (*known, "--gpu-memory", "80"),
        "alone": ("plan", PAPER, "--gpus", "8"),
    }
    return dict(zip(calls, run_calls([Call(words) for words in calls.values()]), strict=True))


def test_a_recipe_without_its_models_says_what_it_needs(said):
    assert said["nowhere"].status == 1
    assert "Qwen/Qwen2.5-1.5B-Instruct" in said["nowhere"].err
    assert "--config FOLDER" in said["nowhere"].err


def test_weights_and_moments_are_those_of_the_config(said):
    stages = json.loads(said["eight"].out)
    held = {stage["stage"]: stage["peaks"] for stage in stages}
    student = held["aligndistil"]["ddp"]["bytes"]
    for role in ("policy", "teacher", "anchor"):
        assert student[f"weights/{role}"] == pytest.approx(WEIGHTS, rel=1e-3)
    assert student["moments"] == pytest.approx(2 * WEIGHTS, rel=1e-3)
    assert student["gradient buckets"] == WEIGHTS
    shared = held["aligndistil"]["fsdp2"]["bytes"]
    assert shared["weights/teacher"] == pytest.approx(WEIGHTS / 8, rel=1e-3)
    assert shared["policy copy"] == WEIGHTS
    assert "policy copy" not in held["dpo"]["fsdp2"]["bytes"]


def test_the_worst_batch_is_said(said):
    rows = {stage["stage"]: stage["rows"] for stage in json.loads(said["eight"].out)}
    assert rows["dpo"] == "2 items of 160 tokens"
    assert rows["aligndistil"] == "1 items of 160 tokens"  # 8 answers on 8 GPUs


def test_what_cannot_fit_is_refused_with_what_would(said):
    assert said["small"].status == 1
    (line,) = [x for x in said["small"].err.splitlines() if "dpo:" in x]
    need, has = map(float, re.findall(r"([\d.]+) GB", line)[:2])
    assert need > 0.9 * has == pytest.approx(0.801)
    cure = re.search(r"what would fit: (.*)", line)[1]
    assert "parallel.strategy: fsdp2 (" in cure
    assert "train.micro_batch_size: 1 (" in cure
    assert "adapter: {lora: {r: 16}} (" in cure
    assert " and " not in cure  # one is enough
    figures = [float(x) for x in re.findall(r"\(([\d.]+) GB\)", cure)]
    assert figures
    assert all(x <= 0.80 for x in figures)


def test_where_nothing_helps_that_is_said(said):
    assert said["tiny"].status == 1
    assert "nothing that was tried fits" in said["tiny"].err
    assert "train.gradient_checkpointing: true and train.micro_batch_size: 1" in said["tiny"].err


def test_models_that_a_plugin_makes_need_no_config(said):
    assert said["plugin"].status == 0
    assert "sft: 16 items of" in said["plugin"].out


def test_adapters_are_counted_as_they_are_trained_and_their_base_once(said):
    held = {s["stage"]: s["peaks"] for s in json.loads(said["adapted"].out)}
    whole, small, both = (held[s]["ddp"]["bytes"] for s in ("sft", "dpo", "again"))
    base = whole["weights/policy"]
    assert "ddp + lora" not in held["dpo"]
    assert small["moments"] < 0.05 * whole["moments"]
    weights = [sum(n for kind, n in x.items() if "weights/" in kind) for x in (small, both)]
    assert base < weights[0] < 1.1 * base
    assert base < weights[1] < 1.1 * base


def test_a_family_that_cannot_be_walked_is_refused(said):
    assert said["experts"].status == 1
    assert "sft: the models cannot be walked without data" in said["experts"].err


def test_what_makes_no_sense_is_refused(said):
    assert said["size"].status == 2
    assert "80G" in said["size"].err
    assert said["alone"].status == 2
    assert "--memory" in said["alone"].err


def grouped(name, prompts, answers):
    """A stage that samples so many answers to each prompt of a buffer."""
    rollout = {"prompts": prompts, "samples_per_prompt": answers}
    rollout["sampling"] = {"max_new_tokens": 8}
    train = {"batch_size": 2, "micro_batch_size": 2, "steps": 1}
    data = {"name": "facts.prompts", "max_length": 64}
    return {"name": name, "algorithm": "grouped", "data": data, "train": train, "rollout": rollout}


def test_stages_whose_groups_are_of_two_sizes_are_walked_apart(tmp_path):
    """Twelve answers are sampled side by side in both; a micro-batch holds 4 of them, or 6."""
    plugin = ModuleType("grouped")
    plugin.register_algorithms = hookimpl(lambda: [Grouped])
    both = [(module, Plugin(module.__name__, "p", "1", "")) for module in (alignzoo_facts, plugin)]
    registry = build_registry(both)
    stages = [grouped("two", 6, 2), grouped("three", 4, 3)]
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps({"name": "groups", "model": "facts", "stages": stages}))
    recipe = load_recipe(file, registry)
    predictor = Predictor(recipe, registry, Devices())
    two, three = (predictor.footprint(spec).peaks["ddp"].total for spec in recipe.stages)
    assert three > 1.05 * two
