"""Whoever has fewer rows than a batch or a buffer asks for is told what it gets instead."""

import pytest
from asked_recipes import recipe, write


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("size", "is_told"), [(3, True), (4, False)])
def test_fewer_prompts_than_a_buffer_are_told(cli, size, is_told):
    what = recipe({"judge": "facts.oracle"}, steps=1)
    what["stages"][0]["data"]["with"]["size"] = size
    status, out, err = cli("run", *write("r", what))
    assert status == 0, err
    words = "3 prompts, fewer than rollout.prompts = 4: every buffer has 3"
    assert (words in out + err) == is_told


@pytest.mark.parametrize(("size", "is_told"), [(3, True), (4, False)])
def test_fewer_rows_than_a_batch_are_told(cli, size, is_told):
    what = recipe(None, steps=1)
    (stage,) = what["stages"]
    stage.pop("rollout")
    stage |= {"algorithm": "sft", "data": {"name": "facts.sft", "with": {"size": size}}}
    status, out, err = cli("run", *write("r", what))
    assert status == 0, err
    words = "3 items, fewer than train.batch_size = 4: every batch has 3"
    assert (words in out + err) == is_told
