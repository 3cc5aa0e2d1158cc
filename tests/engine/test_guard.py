"""A careless method cannot change what the engine shows it, nor weigh by what it reads live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from engine_jobs import job, rollout

from alignzoo import Algorithm, Loss, Metric, PairBatch, Role, Signal, Term, TextBatch
from alignzoo.contract.errors import PluginError
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.scoring.scorer import ScoringModule, dense
from alignzoo.engine.scoring.snapshots import score_buffer
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.sums import Sums
from alignzoo.engine.train.world import BufferWorld
from alignzoo.ops import log_prob, sequence_sum
from alignzoo.testing import tiny_model, toy_items

RANKS = start_ranks("fp32")


@dataclass(frozen=True)
class Base(Algorithm[TextBatch]):
    """L = -S(y)."""

    name = "base"
    batch: ClassVar = TextBatch
    roles: ClassVar = {"policy": Role(trainable=True)}

    def signals(self):
        return {"policy": log_prob("policy")}

    def snapshots(self):
        return {"old": log_prob("policy")}

    def loss(self, batch, signals, state):
        return Loss(Term(-sequence_sum(signals["policy"], batch.mask)))


class ChangesTheBatch(Base):
    def loss(self, batch, signals, state):
        batch.response[:, 0] = True
        return super().loss(batch, signals, state)


class ChangesASignalBehindAutograd(Base):
    def loss(self, batch, signals, state):
        signals["old"].data.mul_(0.5)
        return super().loss(batch, signals, state)


class PreparesInPlace(Base):
    def prepare(self, batch, signals, world):
        signals["old"].clamp_(min=-1.0)
        return {"twice": 2 * signals["old"]}


class ChangesTheState(Base):
    def init_state(self):
        return {"count": torch.zeros(())}

    def loss(self, batch, signals, state):
        state["count"].add_(1)
        return super().loss(batch, signals, state)


CARELESS = [
    (ChangesTheBatch, "batch.response"),
    (ChangesASignalBehindAutograd, r"signals\['old'\]"),
    (PreparesInPlace, r"signals\['old'\]"),
    (ChangesTheState, "state count"),
]


@pytest.mark.parametrize(("method", "what"), CARELESS, ids=lambda x: getattr(x, "__name__", ""))
def test_a_method_that_changes_what_it_is_shown_is_stopped_with_file_and_line(
    tmp_path, method, what
):
    with pytest.raises(PluginError, match=rf"changes {what}.*test_guard\.py:\d+"):
        train(job(tmp_path / "run", method()))


class Shifts(Base):
    """Weights whose sum is always the number of sequences, whatever the model says."""

    def loss(self, batch, signals, state):
        total = sequence_sum(signals["policy"], batch.mask)
        weight = torch.ones_like(total)
        if len(total) > 1:
            best = total.detach().argmax()
            weight = weight - 0.5
            weight[best] += 0.5 * len(total)
        return Loss(Term(-total, weight))


def test_weights_that_depend_on_live_signals_are_found_when_their_sum_is_constant(tmp_path):
    with pytest.raises(PluginError, match=r"although their sum is the same.*batch alone"):
        train(job(tmp_path / "run", Shifts()))


def test_masks_that_depend_on_live_signals_are_found_when_they_count_as_many(tmp_path):
    class Masks(Base):
        def loss(self, batch, signals, state):
            live = signals["policy"].detach().any()
            return Loss(Term(-signals["policy"], batch.mask.roll(int(live), 1)))

    with pytest.raises(PluginError, match=r"although their sum is the same.*batch alone"):
        train(job(tmp_path / "run", Masks()))


@pytest.mark.parametrize("shape", ["items", "rows", "tokens", "tokens of items"])
def test_weights_are_those_of_before_however_a_batch_is_cut_and_padded(shape):
    batch = PairBatch.collate(toy_items(PairBatch, 7), 0)
    generator = torch.Generator().manual_seed(0)
    weights = {
        "items": torch.rand(7, generator=generator),
        "rows": torch.rand(14, generator=generator),
        "tokens": torch.rand(batch.ids.shape, generator=generator) * batch.mask,
        "tokens of items": torch.rand(7, batch.ids.shape[1], generator=generator),
    }[shape]
    other = weights.flip(0)
    same, moved, lost, sizes = Sums(), Sums(), Sums(), 0.0
    for some in (torch.tensor([5, 0, 3]), torch.tensor([1, 2, 4, 6])):
        own, odd = batch.take_signals(some, {"own": weights, "odd": other}).values()
        assert len(own) == len(some) * len(weights) // 7
        same.compare("x", Term(own, own), own)
        moved.compare("x", Term(own, own), odd)
        lost.compare("x", Term(own), own)  # once each, and were weighed before
        lost.compare("x", Term(own, own), None)
        sizes += 2 * (1 - own).abs().sum().item()
    assert same.totals(RANKS) == {"moved/x": (0.0, 0.0)}
    assert moved.totals(RANKS)["moved/x"][0] > 0.1
    assert lost.totals(RANKS)["moved/x"][0] == pytest.approx(sizes)
    assert not lost.reduce(RANKS)


def test_parameters_that_a_plugin_froze_stay_frozen_and_keep_their_values(tmp_path):
    model = tiny_model()
    model.model.layers[0].requires_grad_(False)
    before = {n: p.clone() for n, p in model.named_parameters()}
    train(job(tmp_path / "run", Base(), load=lambda role: model))
    for name, p in model.named_parameters():
        frozen = name.startswith("model.layers.0.")
        assert torch.equal(p, before[name]) == frozen, name
        assert p.requires_grad != frozen


def test_a_role_that_learns_with_nothing_left_to_learn_is_refused(tmp_path):
    model = tiny_model()
    model.requires_grad_(False)
    with pytest.raises(PluginError, match="'policy' learns, but every parameter"):
        train(job(tmp_path / "run", Base(), load=lambda role: model))


def test_positions_of_a_snapshot_are_asked_of_the_declared_batch():
    batch = PairBatch.collate(toy_items(PairBatch, 6), 0)

    def chosen_only(declared):
        mask = declared.mask.clone()
        mask[declared.rejected] = False
        return mask

    signal = Signal(("policy",), log_prob("policy").reduce, chosen_only)
    module = ScoringModule({"policy": tiny_model()}, frozenset(), dense)
    rows = score_buffer(module, batch, {"x": signal, "all": log_prob("policy")}, 4)
    expected = rows["all"].masked_fill(~chosen_only(batch), 0.0)
    torch.testing.assert_close(rows["x"], expected)
    assert not rows["x"][batch.rejected].any()


def test_a_snapshot_with_positions_of_its_own_trains_on_pairs(tmp_path):
    class OnPairs(Base):
        batch = PairBatch

        def snapshots(self):
            chosen = lambda b: b.mask & (torch.arange(len(b.ids)) < b.n_items)[:, None]  # noqa: E731
            return {"old": Signal(("policy",), log_prob("policy").reduce, chosen)}

    train(job(tmp_path / "run", OnPairs()))


# --- the world of `prepare` -----------------------------------------------------------------------


def world_of(items, *, state=None, key=(0, "buffer", 0), pad=0):
    batch = TextBatch.collate(items, pad)
    return BufferWorld(RANKS, batch, state or {}, key), batch


def test_noise_follows_the_rows_whatever_their_neighbours_padding_and_order():
    items = toy_items(TextBatch, 8)
    world, batch = world_of(items)
    rows, tokens = world.uniform(torch.zeros(8)), world.uniform(batch.ids)
    shuffled = [items[i] for i in (6, 1, 4)]
    other, cut = world_of(shuffled, pad=9)
    assert torch.equal(other.uniform(torch.zeros(3)), rows[[6, 1, 4]])
    width = cut.ids.shape[1]
    again = other.uniform(cut.ids)
    for i, row in enumerate((6, 1, 4)):
        n = min(width, batch.ids.shape[1])
        assert torch.equal(again[i, :n], tokens[row, :n])
    assert len(set(rows.tolist())) == 8
    assert 0.2 < tokens.mean() < 0.8
    assert tokens.min() >= 0 and tokens.max() < 1


def test_every_call_every_buffer_and_every_seed_has_noise_of_its_own():
    items, like = toy_items(TextBatch, 4), torch.zeros(4)
    first, _ = world_of(items)
    draws = [first.uniform(like), first.uniform(like)]
    draws += [world_of(items, key=k)[0].uniform(like) for k in ((0, "buffer", 1), (1, "buffer", 0))]
    assert len({tuple(x.tolist()) for x in draws}) == 4


def test_items_of_pairs_have_noise_and_other_shapes_are_refused():
    batch = PairBatch.collate(toy_items(PairBatch, 3), 0)
    world = BufferWorld(RANKS, batch)
    assert world.uniform(torch.zeros(3)).shape == (3,)
    assert world.uniform(torch.zeros(6, dtype=torch.float64)).dtype == torch.float64
    with pytest.raises(PluginError, match="not \\[I\\], \\[B\\] or \\[B, S\\]"):
        world.uniform(torch.zeros(5))


def test_prepare_sees_the_state_of_the_moment_and_its_noise_is_resumable(tmp_path):
    seen = []

    class Noisy(Base):
        metrics: ClassVar = {"noise": Metric("mean of the noise")}

        def init_state(self):
            return {"steps": torch.zeros(())}

        def next_state(self, state, metrics):
            return {"steps": state["steps"] + 1}

        def prepare(self, batch, signals, world):
            seen.append((int(world.state["steps"]), world.uniform(batch.ids).sum().item()))
            return {"noise": world.uniform(batch.mask.float())}

        def loss(self, batch, signals, state):
            loss = super().loss(batch, signals, state)
            return Loss(loss.terms, {"noise": signals["noise"]})

    train(job(tmp_path / "a", Noisy()))
    train(job(tmp_path / "b", Noisy()))
    assert [step for step, _ in seen] == [*range(6), *range(6)]
    assert seen[:6] == seen[6:]
    assert len({noise for _, noise in seen[:6]}) == 6
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (
        tmp_path / "b/metrics.jsonl"
    ).read_bytes()


def test_methods_are_free_to_return_what_they_were_shown(tmp_path):
    class Reuses(Base):
        def prepare(self, batch, signals, world):
            return {"kept": signals["old"]}

    assert train(job(tmp_path / "run", Reuses(), rollout=rollout(epochs=1)))


class Asks(Base):
    """A loss that asks whether a signal is there."""

    def loss(self, batch, signals, state):
        if "policy" not in signals:
            raise KeyError("policy")
        return super().loss(batch, signals, state)


class Lists(Base):
    def loss(self, batch, signals, state):
        assert sorted(signals)
        return super().loss(batch, signals, state)


def test_a_loss_may_ask_whether_a_signal_is_there_and_one_that_lists_them_ends(tmp_path):
    train(job(tmp_path / "asks", Asks()))
    with pytest.raises(Exception, match="cannot be listed; ask for each by its name"):
        train(job(tmp_path / "lists", Lists()))
