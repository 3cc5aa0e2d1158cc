"""Checkpoints: what is read back is what was written, an older one helps out, the clock decides."""

import shutil

import pytest
import torch
from alignzoo_aligndistil import AlignDistil
from alignzoo_dpo import DPO
from engine_jobs import assert_equal_runs, job

from alignzoo.contract.errors import TrainingError
from alignzoo.engine.models.tensors import DamagedFile, read_tensors, write_tensors
from alignzoo.engine.train.checkpoint import places
from alignzoo.engine.train.job import Validation
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.saves import AT_RISK, SHARE, Saves
from alignzoo.testing import toy_items


def flip(file, place=-3):
    text = bytearray(file.read_bytes())
    text[place] ^= 4
    file.write_bytes(text)


def stopped_after(folder, step, **changes):
    """A job that crashes after a step, and what it leaves."""

    def crash(now, total, metrics, timing):
        if now == step:
            raise TrainingError("the power went")

    with pytest.raises(TrainingError, match="the power went"):
        train(job(folder, on_step=crash, **changes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.uint8])
def test_tensors_come_back_with_their_types_shapes_and_notes(tmp_path, dtype):
    tensors = {"a/b": torch.arange(6).reshape(2, 3).to(dtype), "scalar": torch.tensor(3).to(dtype)}
    tensors["none"] = torch.zeros(0, dtype=dtype)
    write_tensors(tmp_path / "x.safetensors", tensors, {"cursor": '{"step": 3}'})
    found, notes = read_tensors(tmp_path / "x.safetensors")
    assert notes == {"cursor": '{"step": 3}'}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[k], x) and found[k].dtype == dtype for k, x in tensors.items())


def test_no_flipped_bit_of_a_tensor_file_is_read_as_a_number(tmp_path):
    file = tmp_path / "x.safetensors"
    tensors = {"a": torch.randn(3), "b": torch.arange(4)}
    write_tensors(file, tensors, {"step": "3"})
    clean = file.read_bytes()
    for place in range(len(clean)):
        for bit in range(8):
            text = bytearray(clean)
            text[place] ^= 1 << bit
            file.write_bytes(text)
            try:
                found, notes = read_tensors(file)
            except DamagedFile as damage:
                assert str(file) in str(damage)
            else:  # padding of the header, say
                assert notes == {"step": "3"}
                assert all(torch.equal(found[name], x) for name, x in tensors.items())


@pytest.mark.parametrize("name", ["weights", "optimizer", "state"])
def test_a_damaged_checkpoint_is_passed_over_aloud_for_the_one_before(tmp_path, name):
    whole = train(job(tmp_path / "whole"))
    stopped_after(tmp_path / "cut", 5)
    newest, older = places(tmp_path / "cut" / "state")
    flip(newest / f"{name}.safetensors")
    said = []
    resumed = train(job(tmp_path / "cut", say=said.append))
    assert f"{newest / name}.safetensors" in said[0]
    assert f"{newest.name} is not used" in said[0]
    assert older.name == "step-00000002"
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)


def test_without_an_intact_checkpoint_a_stage_begins_anew(tmp_path):
    whole = train(job(tmp_path / "whole"))
    stopped_after(tmp_path / "cut", 5)
    for place in places(tmp_path / "cut" / "state"):
        (place / "optimizer.safetensors").write_bytes(b"")
    said = []
    resumed = train(job(tmp_path / "cut", say=said.append))
    assert "no checkpoint is intact: the stage begins anew" in said
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)


def test_a_log_that_was_changed_is_not_gone_on_with(tmp_path):
    whole = train(job(tmp_path / "whole"))
    stopped_after(tmp_path / "cut", 5)
    flip(tmp_path / "cut" / "metrics.jsonl", 30)
    said = []
    resumed = train(job(tmp_path / "cut", say=said.append))
    assert "metrics.jsonl does not hold what was written" in said[0]
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)


def test_damaged_best_weights_are_never_the_result(tmp_path):
    held = Validation(toy_items(DPO.batch, 5), every=1, metric="loss", sign=1)  # the worst is best
    whole = train(job(tmp_path / "whole", validation=held))
    stopped_after(tmp_path / "cut", 5, validation=held)
    for best in (tmp_path / "cut" / "state").glob("best-*"):
        flip(best / "weights.safetensors")
    said = []
    resumed = train(job(tmp_path / "cut", validation=held, say=said.append))
    assert any("best-" in text for text in said)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)


def test_the_last_two_checkpoints_are_kept_under_names_of_roles_and_parameters(tmp_path):
    models = train(job(tmp_path / "run", AlignDistil(r=2.0)))
    state = tmp_path / "run" / "state"
    assert [place.name for place in places(state)] == ["step-00000006", "step-00000004"]
    weights, _ = read_tensors(places(state)[0] / "weights.safetensors")
    own = {f"policy/{name}": x for name, x in models["policy"].named_parameters()}
    assert weights.keys() == own.keys()
    assert all(torch.equal(weights[name], x) for name, x in own.items())
    moments, _ = read_tensors(places(state)[1] / "optimizer.safetensors")
    assert {name.rpartition("/")[0] for name in moments} == own.keys()


def test_a_damaged_reference_pass_is_computed_again_aloud(tmp_path):
    cache = tmp_path / "cache"
    whole = train(job(tmp_path / "whole", cache=cache))
    (file,) = cache.glob("*.safetensors")
    flip(file)
    said = []
    again = train(job(tmp_path / "again", cache=cache, say=said.append))
    *said, _ = said  # where the time went
    assert said == [f"{file} does not hold what was written; it is computed again"]
    assert_equal_runs(tmp_path / "whole", tmp_path / "again", whole, again)
    read_tensors(file)  # whole again


def test_a_truncated_reference_pass_blocks_nobody(tmp_path):
    cache = tmp_path / "cache"
    whole = train(job(tmp_path / "whole", cache=cache))
    (file,) = cache.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    again = train(job(tmp_path / "again", cache=cache))
    assert_equal_runs(tmp_path / "whole", tmp_path / "again", whole, again)


def test_a_cache_that_cannot_be_written_is_no_cache(tmp_path):
    whole = train(job(tmp_path / "whole", cache=tmp_path / "cache"))
    (tmp_path / "file").write_text("in the way")
    said = []
    without = train(job(tmp_path / "without", cache=tmp_path / "file", say=said.append))
    assert any("cannot be written" in text for text in said)
    assert_equal_runs(tmp_path / "whole", tmp_path / "without", whole, without)


def test_an_interrupted_reference_pass_goes_on_from_its_parts(tmp_path, monkeypatch):
    from alignzoo.engine.scoring import snapshots

    whole = train(job(tmp_path / "whole", cache=tmp_path / "a"))
    monkeypatch.setattr(snapshots, "PART_SECONDS", 0.0)
    scored, plain = [], snapshots._scored

    def stops(module, named, some):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append([key for key, _ in some])
        return plain(module, named, some)

    monkeypatch.setattr(snapshots, "_scored", stops)
    with pytest.raises(KeyboardInterrupt):
        train(job(tmp_path / "cut", cache=tmp_path / "b"))
    before = list(scored)
    scored.clear()

    def counts(module, named, some):
        scored.append([key for key, _ in some])
        return plain(module, named, some)

    monkeypatch.setattr(snapshots, "_scored", counts)
    resumed = train(job(tmp_path / "cut", cache=tmp_path / "b"))
    assert not [keys for keys in scored if keys in before]
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)
    assert [f.name for f in (tmp_path / "b").iterdir()] == [
        f.name for f in (tmp_path / "a").iterdir()
    ]


def test_by_default_at_most_ten_minutes_are_at_risk_and_three_percent_go_into_saving():
    began = Saves(every=None, ended=0.0)
    assert began.interval == AT_RISK == 600
    quick, slow = (Saves(None, 3, 0.0, cost) for cost in (2.0, 60.0))
    assert quick.interval == 600
    assert slow.interval == 60 / SHARE == 2000
    assert "one about every 33 min" in slow.told()


def test_a_number_of_steps_decides_where_it_is_given():
    saves = Saves(every=4, step=8)
    assert [saves.due(step) for step in (9, 11, 12)] == [False, False, True]
    assert not Saves(every=None).due(10**6)


def test_when_checkpoints_are_taken_changes_no_result(tmp_path):
    from dataclasses import replace

    often = job(tmp_path / "often")
    rarely = job(tmp_path / "rarely")
    rarely = replace(rarely, optim=replace(rarely.optim, save_every=None))
    assert_equal_runs(tmp_path / "often", tmp_path / "rarely", train(often), train(rarely))


def test_what_is_left_of_a_checkpoint_under_way_is_no_checkpoint(tmp_path):
    whole = train(job(tmp_path / "whole"))
    stopped_after(tmp_path / "cut", 5)
    state = tmp_path / "cut" / "state"
    shutil.copytree(places(state)[0], state / "part")
    (state / "part" / "state.safetensors").unlink()
    resumed = train(job(tmp_path / "cut"))
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)
