"""The plan: what would be done, without doing any of it."""

import subprocess
import sys

import pytest
from run_parts import Heard, recipe, registry
from small_models import logged, run_stages, word_model, write_rows

from alignzoo.contract.errors import DataError
from alignzoo.plan import plan_recipe
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.run import run_recipe
from alignzoo.store.presence import AbsentInputs
from alignzoo.store.records import begin


def statuses(what, folder, reg=None):
    return [step.status for step in plan_recipe(what, reg or registry(), folder).stages]


def trained():
    return Recipe.model_validate(
        {
            "name": "p",
            "model": "facts",
            "stages": [
                {"name": "sft", "algorithm": "sft", "data": {"name": "facts.sft"}},
                {
                    "name": "dpo",
                    "algorithm": "dpo",
                    "policy": "sft",
                    "data": {"name": "their/pairs"},
                    "train": {"steps": 7},
                },
            ],
            "evaluate": [
                {"benchmark": "facts", "baseline": "sft", "kl_to": ["initial"], "samples": 4}
            ],
        }
    )


def test_a_plan_says_what_waits_what_runs_and_what_is_reused(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "r"
    assert statuses(recipe(), folder) == ["to run", "waits for one"]
    assert not folder.exists()
    run_recipe(recipe(), "", registry(), folder, Heard())
    assert statuses(recipe(), folder) == ["reused", "reused"]
    assert statuses(recipe(), tmp_path / "elsewhere") == ["reused", "reused"]
    assert statuses(recipe(second={"text": "x"}), folder) == ["reused", "to run"]


def test_a_plan_shows_models_steps_and_evaluations(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    plan = plan_recipe(trained(), load_plugins(), tmp_path / "r")
    sft, dpo = plan.stages
    assert (sft.kind, sft.what, sft.status) == ("train", "sft", "to run")
    assert sft.steps == "157 (10000 items)"  # 156 of 64 and one of 16
    assert sft.models == {"policy": "facts"}
    assert (dpo.status, dpo.steps) == ("waits for sft", "7")
    assert dpo.models == {"policy": "sft", "reference": "sft"}
    assert [(e.name, e.status) for e in plan.evaluations] == [
        ("facts: sft", "waits for sft"),
        ("facts: dpo", "waits for sft, dpo"),
    ]
    assert plan.evaluations[1].models == {"model": "dpo", "kl(initial)": "facts"}


def steps_of(data, folder, algorithm="sft", **more):
    stage = {"name": "it", "algorithm": algorithm, "data": data} | more
    what = Recipe.model_validate({"name": "p", "model": "facts", "stages": [stage]})
    return plan_recipe(what, load_plugins(), folder).stages[0].steps


def test_a_plan_counts_the_steps_of_files_and_of_datasets_with_a_length(tmp_path):
    file = tmp_path / "d.jsonl"
    file.write_text("".join(f'{{"prompt": "p{n}", "response": " r"}}\n' for n in range(9)))
    small = {"train": {"batch_size": 4, "epochs": 2}}
    assert steps_of(str(file), tmp_path / "r", **small) == "6 (9 items)"
    pairs = tmp_path / "p.jsonl"
    rows = (f'{{"prompt": "p{n}", "chosen": " a", "rejected": " b"}}\n' for n in range(9))
    pairs.write_text("".join(rows))
    assert steps_of(str(pairs), tmp_path / "r", "dpo", **small) == "6 (9 items)"
    assert steps_of(str(pairs), tmp_path / "r", "kto", train={"batch_size": 17}) == "1 (18 items)"
    made = {"name": "facts.sft", "with": {"size": 20}, "skip": 3, "limit": 9}
    assert steps_of(made, tmp_path / "r", **small) == "6 (9 items)"
    prompts = {"name": "facts.prompts", "with": {"size": 9}}
    rollout = {"prompts": 4, "samples_per_prompt": 2, "epochs": 3}
    planned = steps_of(prompts, tmp_path / "r", "ppo", rollout=rollout, **small)
    assert planned == "30 (9 prompts)"  # 2 epochs x 3 passes x (2 + 2 + 1) updates


SHORT = {"max_new_tokens": 4}
SAID = ["hello", "the cat", "how are", "sat on", "a mat", "bye", "you ran"]
COUNTED = {  # 7 rows; 14 for kto, whose batches are never smaller than 2
    "sft": ({"batch_size": 3, "epochs": 2}, {}, 2 * 3),
    "dpo": ({"batch_size": 2, "epochs": 2}, {}, 2 * 4),
    "kto": ({"batch_size": 13}, {}, 1),
    "ppo": (  # buffers of 3, 3 and 1 prompts: 6, 6 and 2 answers
        {"batch_size": 4},
        {"rollout": {"prompts": 3, "samples_per_prompt": 2, "epochs": 2, "sampling": SHORT}},
        2 * (2 + 2 + 1),
    ),
}


@pytest.mark.parametrize("algorithm", COUNTED)
def test_a_run_takes_the_steps_that_its_plan_counted(tmp_path, monkeypatch, algorithm):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    train, more, steps = COUNTED[algorithm]
    model = word_model(tmp_path / "m")
    rows = [{"prompt": p, "response": " fine"} for p in SAID]
    if algorithm in ("dpo", "kto"):
        rows = [{"prompt": p, "chosen": " fine", "rejected": " bye"} for p in SAID]
    data = write_rows(tmp_path / "d.jsonl", rows)
    block = {"data": {"name": data}, "train": {"lr": 1e-9, **train}, **more}
    planned = steps_of(data, tmp_path / "p", algorithm, **{k: block[k] for k in ("train", *more)})
    run_stages(model, tmp_path / "r", {"name": "it", "algorithm": algorithm, **block})
    assert int(planned.split()[0]) == len(logged(tmp_path / "r/stages/01-it")) == steps


def paired(*sources):
    stage = {"name": "a", "algorithm": "dpo", "data": list(sources), "train": {"steps": 2}}
    return Recipe.model_validate({"name": "p", "model": "facts", "stages": [stage]})


def test_a_file_without_the_kind_of_rows_that_a_method_needs_is_refused(tmp_path):
    """As the run would, before anything is trained; also as one of several sources."""
    pair = {"prompt": "a ?", "chosen": "b .", "rejected": "c ."}
    pairs = str(write_rows(tmp_path / "pairs.jsonl", [pair] * 4))
    texts = str(write_rows(tmp_path / "texts.jsonl", [{"prompt": "a ?", "response": "b ."}] * 4))
    words = r"this method needs pairs .*texts\.jsonl:1 has one answer and no preference"
    for what in (paired(pairs, texts), paired(texts)):
        with pytest.raises(DataError, match=words):
            plan_recipe(what, load_plugins(), tmp_path / "r")
    with pytest.raises(DataError, match=words):
        run_recipe(paired(pairs, texts), "", load_plugins(), tmp_path / "r", Heard())
    assert not (tmp_path / "r" / "stages").exists()
    assert plan_recipe(paired(pairs), load_plugins(), tmp_path / "r").stages


@pytest.mark.parametrize(("wrong", "passes"), [(20, True), (21, False), (100, False)])
def test_as_many_rows_of_another_kind_may_be_there_as_max_bad_allows(tmp_path, wrong, passes):
    """The first 20 of 100, which are those that are looked at where none may be bad."""
    pair = {"prompt": "a ?", "chosen": "b .", "rejected": "c ."}
    text = {"prompt": "a ?", "response": "b ."}
    file = str(write_rows(tmp_path / "d.jsonl", [text] * wrong + [pair] * (100 - wrong)))
    what = paired({"name": file, "max_bad": 0.2})
    if passes:
        assert plan_recipe(what, load_plugins(), tmp_path / "r").stages
        return
    with pytest.raises(DataError, match=r"this method needs pairs .*d\.jsonl:1 has") as caught:
        plan_recipe(what, load_plugins(), tmp_path / "r")
    assert ("21 of 100 rows cannot be used" in str(caught.value)) == (wrong == 21)
    if wrong == 21:
        with pytest.raises(DataError, match=r"21 of 100 rows cannot be used"):
            run_recipe(what, "", load_plugins(), tmp_path / "r", Heard())


def test_a_plan_says_how_steps_follow_from_data_that_it_does_not_read(tmp_path):
    assert steps_of("some/pairs", tmp_path / "r") == "items / 64, rounded up"
    train = {"batch_size": 8, "epochs": 3}
    assert steps_of("some/pairs", tmp_path / "r", train=train) == "3 x items / 8, rounded up"
    rollout = {"prompts": 16, "epochs": 2}
    planned = steps_of("some/prompts", tmp_path / "r", "ppo", rollout=rollout, train=train)
    assert planned == "3 x 4 per 16 prompts, rounded up"


def test_a_plan_says_when_training_would_resume(tmp_path, monkeypatch):
    from alignzoo.run import stage_folder
    from alignzoo.store.identity import stage_identity

    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    what, reg = trained(), load_plugins()
    identity = stage_identity(what.stages[0], what, reg, {})
    folder = stage_folder(tmp_path / "r", 1, "sft")
    begin(folder, identity)
    assert statuses(what, tmp_path / "r", reg)[0] == "to run"  # stopped before a checkpoint
    (folder / "state").mkdir()
    assert statuses(what, tmp_path / "r", reg) == ["resumes", "waits for sft"]


def test_a_missing_data_file_is_a_sentence(tmp_path):
    stage = {"name": "one", "stage": "write", "data": {"name": str(tmp_path / "gone.jsonl")}}
    what = Recipe.model_validate({"name": "r", "model": "m", "stages": [stage]})
    with pytest.raises(AbsentInputs, match=r"stages\.0\.data\.name: .*gone\.jsonl: no such file"):
        plan_recipe(what, registry(), tmp_path)


def test_planning_imports_no_transformers(tmp_path):
    program = (
        "import sys; from alignzoo.plan import plan_recipe; from alignzoo.recipe.registry import "
        "load_plugins; from alignzoo.recipe.blocks import Recipe; from pathlib import Path\n"
        f"what = Recipe.model_validate_json({trained().model_dump_json(by_alias=True)!r})\n"
        f"plan_recipe(what, load_plugins(), Path({str(tmp_path)!r}))\n"
        "assert 'transformers' not in sys.modules and 'datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
