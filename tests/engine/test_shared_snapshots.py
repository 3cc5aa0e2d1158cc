"""The reference pass: ranks take turns at its batches, and its file is that of one rank."""

import copy

import pytest
from thread_ranks import on_ranks
from tiny_models import tiny_llama

from alignzoo.contract.types import Item, Tokens
from alignzoo.engine.parallel.exchange import ALONE
from alignzoo.engine.scoring import snapshots
from alignzoo.engine.scoring.fused import Fused
from alignzoo.engine.scoring.scorer import ScoringModule
from alignzoo.ops import log_prob

ANCHOR = tiny_llama()
ITEMS = [Item((Tokens((2, 3), tuple(4 + k for k in range(1 + n % 7))),)) for n in range(11)]


LONG = tuple(2 + k % 9 for k in range(40))


def compute(path, crew, forwards, given=ITEMS):
    """The pass with batches of 2; the number of sequences of every forward is noted."""
    module = ScoringModule({"anchor": copy.deepcopy(ANCHOR)}, frozenset(), Fused())
    module.register_forward_pre_hook(lambda module, given: forwards.append(len(given[0].ids)))
    items = [Item(item.rows) for item in given]
    return snapshots.compute_stored(module, "x", log_prob("anchor"), items, 2, [path], crew)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_every_rank_scores_its_turns_and_the_file_is_that_of_one(tmp_path, size):
    alone, forwards = [], [[] for _ in range(size)]
    whole = compute(tmp_path / "one.safetensors", ALONE, alone)
    path = tmp_path / "several.safetensors"
    found = on_ranks(size, lambda crew: compute(path, crew, forwards[crew.rank]))
    assert found == [path] * size
    assert path.read_bytes() == whole.read_bytes()
    assert alone == [2, 2, 2, 1]  # 7 sequences differ
    assert forwards == [alone[rank::size] for rank in range(size)]


def test_a_pass_that_was_stopped_goes_on_with_another_number_of_ranks(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "PART_SECONDS", 0.0)
    whole = compute(tmp_path / "one.safetensors", ALONE, [])
    path, kept = tmp_path / "several.safetensors", snapshots.write_rows

    def write(found, paths):
        if paths == [path]:
            raise OSError("no space left")
        return kept(found, paths)

    monkeypatch.setattr(snapshots, "write_rows", write)
    with pytest.raises(OSError, match="no space"):
        compute(path, ALONE, [])
    (tmp_path / "several.parts" / "000000001.safetensors").unlink()
    monkeypatch.setattr(snapshots, "write_rows", kept)
    forwards = [[], []]
    on_ranks(2, lambda crew: compute(path, crew, forwards[crew.rank]))
    assert forwards == [[2], []]
    assert path.read_bytes() == whole.read_bytes()


def test_the_rows_of_a_prompt_are_scored_together_and_read_it_once(tmp_path):
    """Between two rows of one prompt stand others of lengths between theirs."""
    rows = [((*LONG[:-1], k), n) for k in (2, 3, 4) for n in (3 + k, 20 + k)]
    items = [Item((Tokens(prompt, (5,) * n),)) for prompt, n in rows]
    widths = []

    def note(module, args, kwargs):
        widths.append(tuple(kwargs["input_ids"].shape))

    module = ScoringModule({"anchor": copy.deepcopy(ANCHOR)}, frozenset(), Fused())
    assert module.bodies.shares("anchor")
    body = module.models["anchor"].model
    body.register_forward_pre_hook(note, with_kwargs=True)
    path = tmp_path / "x.safetensors"
    snapshots.compute_stored(module, "x", log_prob("anchor"), items, 2, [path])
    assert widths == [(1, 40 + 23 + 2 * k) for k in (4, 3, 2)]
    alone = compute(tmp_path / "one.safetensors", ALONE, [], items)
    path = tmp_path / "two.safetensors"
    assert on_ranks(2, lambda crew: compute(path, crew, [], items)) == [path] * 2
    assert path.read_bytes() == alone.read_bytes()
