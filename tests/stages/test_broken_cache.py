"""A cache never stops a run: one that cannot be read is done without, and says so."""

import json
import os
import stat
from pathlib import Path

import pytest
import yaml
from alignzoo_facts.data import Written

from alignzoo.stages import tokenised
from alignzoo.store.records import Identity, find

UNREADABLE = "x" * 300  # no file system has such a name, so that even looking for it fails
TRAIN = {"steps": 1, "batch_size": 4, "micro_batch_size": 4, "save_every": 1}
SFT = {"name": "sft", "algorithm": "sft", "data": {"name": "facts.sft", "with": {"size": 8}}}
DPO = {"name": "dpo", "algorithm": "dpo", "policy": "sft", "data": "pairs.jsonl"}


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tokenised, "FEWEST", 1)
    said = list(Written(8).samples(0))
    pairs = [
        {"prompt": a.prompt, "chosen": a.response.text, "rejected": b.response.text}
        for a, b in zip(said[:4], said[4:], strict=True)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    stages = [{**stage, "train": TRAIN, "log_samples": False} for stage in (SFT, DPO)]
    recipe = {"name": "r", "model": "facts", "threads": 1, "stages": stages}
    Path("r.yaml").write_text(yaml.safe_dump(recipe))
    return "r.yaml"


def weights(name):
    return Path(name, "stages", "02-dpo", "model", "model.safetensors").read_bytes()


def test_a_run_goes_on_without_a_cache_that_cannot_be_read(cli, written, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / UNREADABLE))
    status, out, err = cli("run", written, "--output", "without")
    assert status == 0, err
    assert (out + err).count("pairs.jsonl: their tokens are not kept for other stages") == 1
    assert "this stage keeps its reference pass to itself" in out + err
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    assert cli("run", written, "--output", "with")[0] == 0
    assert weights("without") == weights("with")


def test_finished_work_of_a_run_that_cannot_be_looked_at_is_done_here(tmp_path, monkeypatch):
    """Another user's run, in the index of a cache that several share."""
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path))
    identity = Identity({"of": "work"})
    index = tmp_path / "stages" / f"{identity.digest}.json"
    index.parent.mkdir()
    index.write_text(json.dumps({"folder": str(tmp_path / UNREADABLE)}))
    assert find(tmp_path / "here", identity) is None


def test_whoever_may_read_a_run_and_its_cache_may_read_all_of_it(
    cli, written, tmp_path, monkeypatch
):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    before = os.umask(0o027)
    try:
        assert cli("run", written, "--output", "run")[0] == 0
    finally:
        os.umask(before)
    files = [path for root in ("run", "cache") for path in Path(root).rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files}
    assert {".safetensors", ".json", ".jsonl"} <= kinds
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {"0o640"}
