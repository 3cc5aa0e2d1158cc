"""Hidden states of frozen models: made once, found again, and the same losses as without them."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from alignzoo_aligndistil import AlignDistil
from alignzoo_bco import BCO
from alignzoo_gkd import MOPD, OPSD
from alignzoo_tdpo import TDPO1
from engine_jobs import behind_long_prompts, job, weights
from safetensors.torch import load_file
from thread_ranks import on_ranks

from alignzoo import Follow, Signal, TextBatch
from alignzoo.contract.errors import PluginError, TrainingError
from alignzoo.contract.frozen import reread
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.parallel.exchange import ALONE
from alignzoo.engine.scoring import states
from alignzoo.engine.scoring.known import answers_of, looked_up
from alignzoo.engine.scoring.packing import Shape
from alignzoo.engine.scoring.rows import dense
from alignzoo.engine.scoring.scorer import ScoringModule
from alignzoo.engine.scoring.snapshots import rows_in
from alignzoo.engine.scoring.states import read_states
from alignzoo.engine.train import teachers
from alignzoo.engine.train.job import Validation
from alignzoo.engine.train.loop import train
from alignzoo.testing import tiny_model, toy_items
from alignzoo.testing.toys import items_for, tiny_models

METHOD = AlignDistil(r=2.0)
OPTIM = Optim(epochs=3, batch_size=4, micro_batch_size=3, lr=1e-2, cache_teacher=True)
ITEMS = toy_items(TextBatch, 11)
FROZEN = ("teacher", "anchor")


def trained(folder, algorithm=METHOD, *, keep=True, **changes):
    """A short training in a folder: its rows, how many rows each body read, what was said."""
    models, read, said = tiny_models(algorithm), dict.fromkeys(algorithm.roles, 0), []

    def count(role):
        def note(module, given, named):
            read[role] += len(named["input_ids"])

        return note

    for role, model in models.items():
        model.model.register_forward_pre_hook(count(role), with_kwargs=True)
    known = {"cache": folder.parent / "cache", "load": models.__getitem__, "items": ITEMS}
    known |= {"optim": replace(OPTIM, cache_teacher=keep), "say": said.append}
    found = train(job(folder, algorithm, **(known | changes)))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return SimpleNamespace(rows=rows, read=read, said=said, weights=weights(found))


def parts(folder):
    return sorted((folder / "cache").glob("*.states/*.safetensors"))


def test_frozen_models_are_read_once_and_the_losses_are_those_of_every_epoch(tmp_path):
    plain = trained(tmp_path / "plain", keep=False)
    kept = trained(tmp_path / "kept")
    assert len(kept.rows) == len(plain.rows) == 9
    for one, other in zip(kept.rows, plain.rows, strict=True):
        assert one == pytest.approx(other, rel=2e-5, abs=1e-6)
    assert kept.read["policy"] == plain.read["policy"] == 33
    assert {role: kept.read[role] for role in FROZEN} == dict.fromkeys(FROZEN, 12)  # and one probe
    assert all(plain.read[role] == 33 for role in FROZEN)


def test_another_r_and_beta0_find_the_states_and_read_no_frozen_model(tmp_path):
    first = trained(tmp_path / "one")
    second = trained(tmp_path / "two", AlignDistil(r=7.0, beta0=0.3))
    assert {role: second.read[role] for role in FROZEN} == dict.fromkeys(FROZEN, 0)
    assert "are known" in second.said[0]
    plain = trained(tmp_path / "plain", AlignDistil(r=7.0, beta0=0.3), keep=False)
    assert second.rows[-1] == pytest.approx(plain.rows[-1], rel=2e-5, abs=1e-6)
    assert second.rows[-1]["loss"] != pytest.approx(first.rows[-1]["loss"], rel=1e-2)
    other = trained(tmp_path / "three", optim=replace(OPTIM, micro_batch_size=2))
    assert all(other.read[role] == 12 for role in FROZEN)  # what shares a pass decides last bits


def test_the_size_is_said_before_and_is_that_of_the_files(tmp_path):
    said = trained(tmp_path / "one").said[0]
    expected = sum(len(x.rows[0].response) + 1 for x in ITEMS) * 16 * 4 * 2
    assert f"are read and kept in {tmp_path / 'cache'}: {expected / 1e6:.3f} MB, " in said
    held = [load_file(part) for part in parts(tmp_path)]
    assert sum(x["values"].nbytes for x in held) == expected
    assert sum(p.stat().st_size for p in parts(tmp_path)) < 1.5 * expected


def test_states_are_those_of_transformers_on_a_row_alone(tmp_path):
    trained(tmp_path / "one")
    models = tiny_models(METHOD)
    rows = sorted((x.rows[0] for x in ITEMS), key=lambda row: len(row.response))
    for role in FROZEN:
        found = []
        for row in rows:
            ids = torch.tensor([[*row.prompt, *row.response]])
            out = models[role].model(input_ids=ids).last_hidden_state[0]
            found.append(out[len(row.prompt) - 1 :])
        expected = torch.cat(found).sum(0)
        held = [load_file(part)["values"].sum(0) for part in parts(tmp_path)]
        assert any(torch.allclose(x, expected, atol=1e-4) for x in held), role


def test_a_disk_without_room_stops_the_stage_before_anything_is_read(tmp_path, monkeypatch):
    free = SimpleNamespace(free=1000)
    monkeypatch.setattr(teachers.shutil, "disk_usage", lambda place: free)
    with pytest.raises(TrainingError, match=r"'anchor' and 'teacher' take 0\.\d+ MB, and .* free"):
        trained(tmp_path / "one")
    assert not parts(tmp_path)
    assert not (tmp_path / "one" / "metrics.jsonl").exists()


def test_a_pass_that_was_killed_goes_on_and_ends_with_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(states, "PART_BYTES", 1)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = trained(tmp_path / "a" / "whole")
    write, left = states.write_rows, [3]

    def killed(part, paths):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return write(part, paths)

    monkeypatch.setattr(states, "write_rows", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b" / "cut")
    monkeypatch.setattr(states, "write_rows", write)
    kept = parts(tmp_path / "b")
    assert len(kept) == 3
    kept[0].write_bytes(kept[0].read_bytes()[:-9])  # one of them is damaged
    again = trained(tmp_path / "b" / "cut")
    names = {p.name: p.read_bytes() for p in parts(tmp_path / "a")}
    assert {p.name: p.read_bytes() for p in parts(tmp_path / "b")} == names
    assert 6 < sum(again.read[role] for role in FROZEN) < 24
    assert again.rows == whole.rows


def test_training_that_was_killed_goes_on_to_the_bit(tmp_path):
    def crash(step, total, metrics, timing):
        if step == 5:
            raise KeyboardInterrupt

    whole = trained(tmp_path / "whole", optim=replace(OPTIM, save_every=2))
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", optim=replace(OPTIM, save_every=2), on_step=crash)
    again = trained(tmp_path / "cut", optim=replace(OPTIM, save_every=2))
    assert again.rows == whole.rows
    assert again.read["anchor"] == 0
    for name, x in whole.weights.items():
        assert torch.equal(x, again.weights[name]), name


def test_held_out_data_and_repeated_prompts_are_read_too(tmp_path):
    items = behind_long_prompts([replace(x, rows=x.rows) for x in ITEMS], 34)
    held = Validation(toy_items(TextBatch, 5, seed=9), 3, "loss", -1)
    given = {"items": [*items, *items[:2]], "validation": held}
    plain = trained(tmp_path / "plain", keep=False, **given)
    kept = trained(tmp_path / "kept", **given)
    for one, other in zip(kept.rows, plain.rows, strict=True):
        assert one == pytest.approx(other, rel=2e-5, abs=1e-6)
    assert "validation/loss" in kept.rows[-1]
    assert all(kept.read[role] == 17 for role in FROZEN)


def test_a_teacher_behind_a_view_is_kept_at_what_it_sees(tmp_path):
    items = items_for(OPSD(), 11)
    plain = trained(tmp_path / "plain", OPSD(), keep=False, items=items)
    kept = trained(tmp_path / "kept", OPSD(), items=items)
    assert plain.rows[0]["loss"] > 0.01
    for one, other in zip(kept.rows, plain.rows, strict=True):
        assert one == pytest.approx(other, rel=2e-5, abs=1e-6)
    assert (plain.read["teacher"], kept.read["teacher"]) == (33, 12)


@pytest.mark.parametrize("method", [BCO(), TDPO1(), MOPD()], ids=lambda x: x.name)
def test_other_methods_on_given_rows_keep_theirs(tmp_path, method):
    """A snapshot at positions of its own, rows of pairs, two teachers."""
    items = items_for(method, 11)
    plain = trained(tmp_path / "plain", method, keep=False, items=items)
    kept = trained(tmp_path / "kept", method, items=items)
    for one, other in zip(kept.rows, plain.rows, strict=True):
        assert one == pytest.approx(other, rel=2e-5, abs=1e-6)
    rows = {row for item in items for row in item.rows}
    for role in reread(method):
        assert kept.read[role] == len(rows) + 1 < plain.read[role]


class Moving(AlignDistil):
    """Its anchor takes on the policy."""

    name = "moving"
    roles = {**AlignDistil.roles, "anchor": replace(AlignDistil.roles["anchor"], like="policy")}

    def moving(self):
        return {"anchor": Follow("policy", every=2)}


def test_a_role_that_moves_is_read_at_every_step(tmp_path):
    plain = trained(tmp_path / "plain", Moving(r=2.0), keep=False)
    kept = trained(tmp_path / "kept", Moving(r=2.0))
    for one, other in zip(kept.rows, plain.rows, strict=True):
        assert one == pytest.approx(other, rel=2e-5, abs=1e-6)
    assert (kept.read["anchor"], kept.read["teacher"]) == (33, 12)


def test_a_cache_that_cannot_be_written_leaves_the_states_with_the_stage(tmp_path):
    (tmp_path / "file").write_text("no folder")
    kept = trained(tmp_path / "one", cache=tmp_path / "file")
    assert "cannot be written" in kept.said[1]
    assert list((tmp_path / "one" / "state" / "snapshots").glob("*.states/*.safetensors"))
    assert kept.rows == trained(tmp_path / "two").rows


class OfPrompts(AlignDistil):
    """Reads every token."""

    name = "of_prompts"

    def signals(self):
        (signal,) = super().signals().values()
        return {"distil": Signal(signal.roles, self.rows, lambda batch: batch.attention)}


def test_a_signal_at_positions_of_prompts_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(PluginError, match="'distil' names positions of the prompt, but 'anchor'"):
        trained(tmp_path / "one", OfPrompts(r=2.0))
    assert not parts(tmp_path)
    official = AlignDistil(r=2.0, positions="official")
    plain = trained(tmp_path / "plain", official, keep=False)
    kept = trained(tmp_path / "kept", official)
    assert kept.rows[-1] == pytest.approx(plain.rows[-1], rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_take_turns_and_leave_the_rows_of_one(tmp_path, size):
    answers, model = answers_of(ITEMS, None), tiny_model(3)

    def made(folder, crew):
        module = ScoringModule({"x": copy.deepcopy(model)}, frozenset(), dense)
        read_states(module, "x", answers, set(), 3, [folder], crew)
        return sorted((key, x.tolist()) for key, x in rows_in(folder).items())

    alone = made(tmp_path / "one", ALONE)
    assert [key for key, _ in alone] == sorted(answers)
    assert on_ranks(size, lambda crew: made(tmp_path / "all", crew)) == [alone] * size
    assert len(list((tmp_path / "all").glob("*"))) == size


def test_a_row_that_is_not_kept_is_refused(tmp_path):
    module = ScoringModule({"x": tiny_model(3)}, frozenset(), dense)
    read_states(module, "x", answers_of(ITEMS[1:], None), set(), 3, [tmp_path])
    batch = TextBatch.collate(ITEMS, 0)
    with pytest.raises(TrainingError, match="were not kept"):
        looked_up(rows_in(tmp_path), batch, Shape.of(batch), range(len(ITEMS)))
