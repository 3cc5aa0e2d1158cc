"""Stages that learn an adapter: what they leave, what later ones make of it, what is refused."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from peft import PeftModel
from small_models import logged, run_stages, word_model, write_rows
from torch import distributed
from transformers import AutoModelForCausalLM

from alignzoo.contract.errors import AlignzooError, RecipeError
from alignzoo.recipe import training
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.store.files import read_json

PAIRS = [
    {"prompt": "how are you", "chosen": "fine", "rejected": "bye bye"},
    {"prompt": "the cat", "chosen": "sat on a mat", "rejected": "ran"},
    {"prompt": "hello how", "chosen": "hello you", "rejected": "the mat sat"},
]
TEXTS = [{"prompt": row["prompt"], "response": row["chosen"]} for row in PAIRS]
LORA = {"lora": {"r": 2, "alpha": 4}}
TRAIN = {"steps": 3, "batch_size": 3, "lr": 0.05, "warmup": 0}
IDS = torch.arange(3, 15)[None]


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files(tmp_path):
    word_model(tmp_path / "base")
    write_rows(tmp_path / "pairs.jsonl", PAIRS)
    write_rows(tmp_path / "texts.jsonl", TEXTS)
    return tmp_path


def dpo(name, swap=False, **more):
    data = {"name": "pairs.jsonl", "swap": swap}
    known = {"name": name, "algorithm": "dpo", "data": data, "train": TRAIN, "adapter": LORA}
    return {**known, **more}


def distil(name="it", **more):
    roles = {"teacher": "dpo", "anchor": "reverse"}
    known = {"name": name, "algorithm": "aligndistil", "with": {"r": 2.0}, "data": "texts.jsonl"}
    return {**known, "roles": roles, "train": TRAIN, "adapter": LORA, **more}


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def plain(folder):
    return AutoModelForCausalLM.from_pretrained(folder)


def test_a_stage_leaves_a_merged_model_and_beside_it_the_adapter_that_peft_loads(files):
    said = run_stages("base", files / "run", dpo("it"))
    stage = files / "run" / "stages" / "01-it"
    merged = logits(plain(stage / "model"))
    apart = PeftModel.from_pretrained(plain("base"), stage / "adapter")
    assert (merged - logits(apart)).abs().max() <= 1e-6 * merged.abs().max()
    assert (merged - logits(plain("base"))).abs().max() > 0.01
    shapes = {name: x.shape for name, x in plain("base").state_dict().items()}
    assert {name: x.shape for name, x in plain(stage / "model").state_dict().items()} == shapes
    assert any("policy: learns an adapter of" in text for text in said)
    assert logged(stage)[0]["loss"] == pytest.approx(0.693147, abs=1e-6)  # B begins at 0


def test_roles_that_are_adapters_of_one_base_share_it_and_compute_what_merged_models_do(files):
    said = run_stages("base", files / "run", dpo("dpo"), dpo("reverse", swap=True), distil())
    (note,) = [text for text in said if "adapters of one base" in text]
    assert note.startswith("it: anchor, policy, teacher: adapters of one base, 1.")
    for name in ("dpo", "reverse"):  # merged models in folders of their own have no adapter beside
        place = files / "run" / "stages" / ("01-dpo" if name == "dpo" else "02-reverse") / "model"
        shutil.copytree(place, files / name)
    said = run_stages("base", files / "apart", distil())
    assert not [text for text in said if "adapters of one base" in text]
    one, two = files / "run" / "stages" / "03-it", files / "apart" / "stages" / "01-it"
    for shared, apart in zip(logged(one), logged(two), strict=True):
        assert shared["loss"] == pytest.approx(apart["loss"], rel=1e-5)
    assert logged(one)[0]["tvd/mean"] > 1e-3  # teacher and anchor do differ


def test_a_model_folder_of_another_run_is_taken_apart_too(files):
    run_stages("base", files / "run", dpo("dpo"), dpo("reverse", swap=True))
    stages = files / "run" / "stages"
    roles = {"teacher": f"{stages}/01-dpo/model", "anchor": f"{stages}/02-reverse/model"}
    said = run_stages("base", files / "more", distil(roles=roles))
    assert any("anchor, policy, teacher: adapters of one base" in text for text in said)


def test_frozen_roles_share_a_base_that_the_policy_does_not_have(files):
    word_model(files / "other", seed=1)
    stages = [dpo("dpo"), dpo("reverse", swap=True), distil(policy=str(files / "other"))]
    said = run_stages("base", files / "run", *stages)
    assert any("it: anchor, teacher: adapters of one base" in text for text in said)
    whole = run_stages("base", files / "all", *stages[:2], distil(adapter=None))
    assert any("it: anchor, teacher: adapters of one base" in text for text in whole)


def test_results_over_different_bases_share_nothing(files):
    word_model(files / "other", seed=1)
    said = run_stages(
        "base", files / "run", dpo("dpo", policy="other"),
        dpo("reverse", policy=str(files / "other"), swap=True, adapter=None),
        distil(roles={"teacher": "dpo", "anchor": "reverse"}),
    )  # fmt: skip
    assert not [text for text in said if "adapters of one base" in text]


def test_an_adapter_over_a_stage_that_learnt_one_starts_from_its_merged_model(files):
    run_stages("base", files / "run", dpo("first"), dpo("second", policy="first"))
    first, second = (files / "run" / "stages" / name for name in ("01-first", "02-second"))
    apart = PeftModel.from_pretrained(plain(first / "model"), second / "adapter")
    assert torch.allclose(logits(plain(second / "model")), logits(apart), atol=1e-5)


def test_the_reference_pass_of_a_role_taken_apart_is_kept_under_a_name_of_its_own(files):
    """It rounds otherwise than the merged model; which of the two came first must not show."""
    word_model(files / "other", seed=1)
    kept = files / "cache" / "snapshots"
    run_stages("base", files / "run", dpo("dpo"))
    (first,) = kept.iterdir()
    frozen = {"roles": {"reference": "dpo"}}
    apart = dpo("apart", **frozen)
    whole = dpo("whole", adapter=None, policy=str(files / "other"), **frozen)
    run_stages("base", files / "run", dpo("dpo"), apart)
    second = set(kept.iterdir()) - {first}
    run_stages("base", files / "run", dpo("dpo"), apart, whole)
    third = set(kept.iterdir()) - {first} - second
    assert (len(second), len(third)) == (1, 1)


def test_another_rank_or_none_is_another_stage(files):
    first = run_stages("base", files / "run", dpo("it"))
    same = run_stages("base", files / "run", dpo("it"))
    record = files / "run" / "stages" / "01-it" / "stage.json"
    assert "peft" in read_json(record)["manifest"]["code"]
    assert any("learns an adapter" in text for text in first)
    assert not any("learns an adapter" in text for text in same)
    for adapter in ({"lora": {"r": 3, "alpha": 4}}, {"lora": {"r": 2, "alpha": 8}}, None):
        said = run_stages("base", files / "run", dpo("it", adapter=adapter))
        assert any("done again" in text for text in said)
    assert "peft" not in read_json(record)["manifest"]["code"]
    assert not (files / "run" / "stages" / "01-it" / "adapter").exists()


def test_the_drift_to_the_reference_is_measured_beside_an_adapter(files):
    run_stages("base", files / "run", dpo("it", rails={"max_kl": 100.0}))
    last = logged(files / "run" / "stages" / "01-it")[-1]
    assert last["kl_full/reference"] > 1e-4


def test_both_the_merged_model_and_the_adapter_are_exported(files, cli):
    run_stages("base", files / "run", dpo("it"), dpo("whole", adapter=None))
    assert cli("export", "run/it", "merged")[0] == 0
    status, out, _ = cli("export", "run/it", "small", "--adapter")
    assert (status, "PeftModel.from_pretrained(base, 'small')" in out) == (0, True)
    merged = logits(plain("merged"))
    apart = logits(PeftModel.from_pretrained(plain("base"), "small"))
    assert (merged - apart).abs().max() <= 1e-6 * merged.abs().max()
    card = (files / "small" / "README.md").read_text()
    assert "`peft.PeftModel.from_pretrained(base, folder)`; its base is `base`." in card
    assert "library_name: peft" in card
    status, _, err = cli("export", "run/whole", "none", "--adapter")
    assert status == 2
    assert "run/whole: learnt all weights; export it without --adapter" in err


def test_an_adapter_that_was_changed_is_exported_and_shared_no_more(files, cli):
    run_stages("base", files / "run", dpo("it"))
    file = files / "run" / "stages" / "01-it" / "adapter" / "adapter_config.json"
    file.write_text(file.read_text().replace('"r": 2', '"r": 3'))
    status, _, err = cli("export", "run/it", "small", "--adapter")
    assert status == 1
    assert "not what the stage wrote" in err


def test_a_stage_under_fsdp2_leaves_the_same_model_and_adapter(files):
    stages = [dpo("dpo"), dpo("reverse", swap=True), distil()]
    try:
        for strategy in ("ddp", "fsdp2"):
            run_stages("base", files / strategy, *stages, parallel={"strategy": strategy})
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
    one, two = (files / strategy / "stages" / "03-it" for strategy in ("ddp", "fsdp2"))
    assert torch.allclose(logits(plain(one / "model")), logits(plain(two / "model")), atol=1e-5)
    apart = PeftModel.from_pretrained(plain("base"), two / "adapter")
    assert torch.allclose(logits(plain(two / "model")), logits(apart), atol=1e-5)


# --- refusals -----------------------------------------------------------------------------------


def problems(tmp_path, adapter, algorithm="dpo"):
    file = tmp_path / "recipe.yaml"
    stage = {"name": "it", "algorithm": algorithm, "data": "pairs.jsonl", "adapter": adapter}
    file.write_text(json.dumps({"name": "x", "model": "base", "stages": [stage]}))
    with pytest.raises(RecipeError) as error:
        load_recipe(file, load_plugins(), ())
    return [str(problem) for problem in error.value.problems]


@pytest.mark.parametrize(
    ("lora", "what"),
    [
        ({"dropout": 0.1}, "0.1 would make the policy another function"),
        ({"r": 0}, "adapter.lora.r"),
        ({"alpha": 0}, "adapter.lora.alpha"),
        ({"targets": []}, "adapter.lora.targets"),
        ({"targets": "q_proj"}, "adapter.lora.targets"),
        ({"rank": 4}, "unknown key"),
        ({"lora_r": 4}, "`adapter.lora.r`"),
    ],
)
def test_a_field_that_cannot_be_followed_is_refused(files, lora, what):
    (problem,) = problems(files, {"lora": lora})
    assert what in problem


def test_an_adapter_of_no_kind_is_refused(files):
    assert "stages.0.adapter.lora: is missing" in problems(files, {})[0]


def test_without_peft_the_recipe_is_refused_with_the_command_that_helps(files, monkeypatch):
    for found, what in (
        (None, "needs peft, which is not installed: pip install 'alignzoo[lora]'"),
        ("0.15.0", "needs peft 0.21, and 0.15.0 is installed: pip install 'alignzoo[lora]'"),
    ):
        monkeypatch.setattr(training, "peft_version", lambda found=found: found)
        (problem,) = problems(files, LORA)
        assert what in problem


def test_a_scalar_head_takes_no_adapter(files):
    (problem,) = problems(files, LORA, "reward_model")
    assert "reward_model learns a new scalar head, and an adapter holds none" in problem


def test_a_quantised_base_is_refused_by_plan_and_by_run(files, cli):
    config = read_json(files / "base" / "config.json")
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (files / "base" / "config.json").write_text(
        json.dumps(config | {"quantization_config": quantised})
    )
    recipe = files / "recipe.yaml"
    recipe.write_text(json.dumps({"name": "x", "model": "base", "stages": [dpo("it")]}))
    for command in ("plan", "run"):
        status, _, err = cli(command, recipe)
        assert status == 2
        assert "'base' has quantised weights (quantization_config in its config.json)" in err


def test_the_folder_of_an_adapter_is_no_model_and_the_error_says_where_one_is(files):
    (files / "adapter").mkdir()
    (files / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(AlignzooError, match=r"no config.json but an adapter; name the merged"):
        run_stages(str(files / "adapter"), files / "run", dpo("it", adapter=None))


def test_a_target_that_the_model_does_not_have_ends_the_stage_before_training(files):
    adapter = {"lora": {"targets": ["q_proj", "wqkv"]}}
    with pytest.raises(AlignzooError, match=r"'wqkv': unknown .*LlamaForCausalLM has: down_proj"):
        run_stages("base", files / "run", dpo("it", adapter=adapter))
    assert not (files / "run" / "stages" / "01-it" / "metrics.jsonl").exists()


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_deepspeed_is_refused_beside_an_adapter(files, strategy):
    file = files / "recipe.yaml"
    recipe = {"name": "x", "model": "base", "stages": [dpo("it")]}
    file.write_text(json.dumps(recipe | {"parallel": {"strategy": strategy}}))
    with pytest.raises(RecipeError, match=rf"adapter: is not tried under {strategy}; take fsdp2"):
        load_recipe(file, load_plugins(), ())


def test_deepspeed_is_given_the_merged_models_of_adapter_stages(files):
    run_stages("base", files / "one", dpo("dpo"), dpo("reverse", swap=True))
    made = {"teacher": "one/stages/01-dpo/model", "anchor": "one/stages/02-reverse/model"}
    stage = {key: x for key, x in distil(roles=made).items() if key != "adapter"}
    recipe = {"name": "x", "model": "base", "stages": [stage]}
    (files / "x.yaml").write_text(json.dumps(recipe | {"parallel": {"strategy": "zero2"}}))
    words = [sys.executable, "-m", "alignzoo", "run", "x.yaml", "--output", "two"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(logged(files / "two" / "stages" / "01-it")) == 3
