"""How much a stage keeps of its teachers: said by the plan, then by the stage, then on the disk."""

import re
from types import SimpleNamespace

from safetensors.torch import load_file
from small_models import run_stages, word_model, write_rows

from alignzoo.plan import keeping, plan_recipe
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import load_plugins

ROWS = [
    {"prompt": "how are you", "response": " fine"},
    {"prompt": "the cat", "response": " sat on a mat"},
    {"prompt": "hello", "response": " bye bye bye"},
]


def stage(tmp_path, **more):
    roles = {"teacher": word_model(tmp_path / "t", seed=1), "anchor": word_model(tmp_path / "a")}
    data = write_rows(tmp_path / "d.jsonl", ROWS)
    known = {"name": "off", "algorithm": "aligndistil", "roles": roles, "data": data}
    train = {"epochs": 2, "batch_size": 2, "cache_teacher": True}
    return {**known, "with": {"r": 2}, "train": train, **more}


def notes(tmp_path, *stages):
    what = {"name": "p", "model": str(tmp_path / "a"), "stages": stages}
    return plan_recipe(Recipe.model_validate(what), load_plugins(), tmp_path / "r").notes


def test_a_plan_bounds_what_the_stage_then_counts_and_the_disk_holds(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    one = stage(tmp_path)
    (note,) = (note for note in notes(tmp_path, one) if "cache_teacher" in note)
    positions = sum(len(row["response"]) + 2 for row in ROWS)
    most = positions * (16 + 16) * 4
    assert (
        f"off: cache_teacher keeps hidden states of anchor and teacher: at most {most / 1e6:.3f}"
        in note
    )
    assert f"({positions} positions x (H 16 + 16) x 4 bytes); {tmp_path} has " in note
    said = run_stages(str(tmp_path / "a"), tmp_path / "r", one)
    (told,) = (text for text in said if "hidden states" in text)
    held = (tmp_path / "cache" / "snapshots").glob("*.states/*.safetensors")
    size = sum(load_file(part)["values"].nbytes for part in held)
    assert size == 4 * 32 * sum(len(row["response"].split()) + 2 for row in ROWS) < most
    assert re.search(
        rf"off: hidden states of 'anchor' and 'teacher' .*: {size / 1e6:.3f} MB,", told
    )
    assert not any("cache_teacher" in note for note in notes(tmp_path, one))  # it is done
    again = run_stages(str(tmp_path / "a"), tmp_path / "r", stage(tmp_path, **{"with": {"r": 9}}))
    assert any("hidden states of 'anchor' and 'teacher' are known" in text for text in again)


def test_a_plan_says_the_rule_where_data_or_models_are_to_come(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    rule = "cache_teacher keeps hidden states of anchor and teacher: positions of answers x H x 4"
    for data in ("their/data", "facts.sft"):
        one = stage(tmp_path, data=data)
        assert any(rule in note for note in notes(tmp_path, one))
    limited = stage(tmp_path, data={"name": str(tmp_path / "d.jsonl"), "max_length": 4})
    assert any("(12 positions x" in note for note in notes(tmp_path, limited))
    free = SimpleNamespace(free=100)
    monkeypatch.setattr(keeping.shutil, "disk_usage", lambda place: free)
    assert notes(tmp_path, limited)[-1].endswith("has 0.000 MB free, which may not do")
