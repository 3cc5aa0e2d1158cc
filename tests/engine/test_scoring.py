"""Scoring and batching: the same gradient however it is computed, and in little memory."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import combinations, pairwise

import pytest
import torch
from alignzoo_aligndistil import AlignDistil
from alignzoo_dpo import DPO, IPO
from alignzoo_ppo import PPO
from alignzoo_sft import SFT
from torch.utils._python_dispatch import TorchDispatchMode

from alignzoo import RolloutBatch, TextBatch
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.models.heads import Head
from alignzoo.engine.scoring.fused import Fused
from alignzoo.engine.scoring.packing import Packer, Reader, Shape, padding_share, row_groups
from alignzoo.engine.scoring.rows import dense
from alignzoo.engine.scoring.scorer import ScoringModule
from alignzoo.engine.train.batches import Schedule, micro_batches
from alignzoo.engine.train.cut import Cut
from alignzoo.engine.train.optim import rate
from alignzoo.ops import kl, log_prob
from alignzoo.testing import check_algorithm, gradients, tiny_model, toy_items

METHODS = [
    SFT(),
    SFT(reduction="sequence_mean"),
    DPO(),
    DPO(beta=0.01, label_smoothing=0.1),
    IPO(),
    AlignDistil(r=2.0),
    AlignDistil(r=15.0, tvd="l1", positions="official", beta_weighting="none"),
    AlignDistil(extrapolation="constant", beta=0.05, reward="vanilla", reduction="token_mean"),
    PPO(),
    PPO(reduction="token_mean", kl_estimator="k3", value_clip=None),
]


@pytest.mark.parametrize("algorithm", METHODS, ids=lambda a: a.name)
def test_every_method_keeps_the_contract(algorithm):
    check_algorithm(algorithm)


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor made."""

    def __init__(self):
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        outs = out if isinstance(out, (tuple, list)) else (out,)
        for x in outs:
            if isinstance(x, torch.Tensor):
                self.size = max(self.size, x.numel())
        return out


def largest_tensor(scorer, n_rows, vocabulary=3000) -> int:
    models = {role: tiny_model(i, vocabulary=vocabulary) for i, role in enumerate("ab")}
    module = ScoringModule(models, frozenset("a"), scorer)
    batch = TextBatch.collate(toy_items(TextBatch, n_rows, vocabulary=vocabulary), 0)
    with Largest() as seen:
        grid = module(batch, {"kl": kl("a", "b"), "lp": log_prob("a")})
        sum(x.sum() for x in grid.values()).backward()
    return seen.size


def test_chunked_scoring_never_makes_a_tensor_of_all_positions_times_the_vocabulary():
    small = [largest_tensor(Fused(1, smallest=8, small=0), n) for n in (16, 64)]
    assert small[0] == small[1]  # a chunk or a weight gradient, not the number of positions
    assert largest_tensor(dense, 64) > 3 * small[1]


def test_logits_are_float32_from_bfloat16_inputs():
    head = torch.nn.Linear(64, 50, bias=False, dtype=torch.bfloat16)
    hidden = torch.randn(9, 64).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = Head(head)(hidden)
    exact = hidden.double() @ head.weight.double().T
    assert out.dtype == torch.float32
    assert (out - exact).abs().max() < 1e-5  # bf16 products would be off by about 1e-2


@pytest.mark.parametrize("hidden", [16, 64, 256, 1536])
def test_padding_stays_under_a_fifth_whatever_the_lengths(hidden):
    generator = torch.Generator().manual_seed(0)
    for spread in (0.01, 0.3, 0.8, 2.0):
        lengths = torch.empty(64).log_normal_(4.0, spread, generator=generator)
        lengths = lengths.clamp(1, 1024).long()
        groups = row_groups(lengths.tolist(), Reader(hidden))
        shape = Shape(lengths.tolist(), range(64), [1] * 64)
        assert sorted(row for group in groups for row in group) == list(range(64))
        assert padding_share(shape, range(64), Reader(hidden)) < 0.2
        assert hidden > 16 or len(groups) < 20  # where calls cost more than columns


@pytest.mark.parametrize("hidden", [16, 256, 4096])
def test_no_other_cut_of_rows_into_passes_is_predicted_to_be_cheaper(hidden):
    reader, draw = Reader(hidden), random.Random(0)

    def work(groups):
        rows = sum(len(x) * x[0] * (6 * hidden + x[0]) for x in groups)
        return rows + len(groups) * (30_000 + 16 * 6 * hidden)

    for _ in range(20):
        lengths = [round(draw.lognormvariate(4, 1)) + 1 for _ in range(8)]
        order, possible = sorted(lengths, reverse=True), []
        for n in range(8):
            for cuts in combinations(range(1, 8), n):
                parts = [order[i:j] for i, j in pairwise((0, *cuts, 8))]
                if all(len(x) == 1 or sum(x) > 0.8 * len(x) * x[0] for x in parts):
                    possible.append(work(parts))
        made = [[lengths[row] for row in group] for group in row_groups(lengths, reader)]
        assert [n for group in made for n in group] == order
        assert work(made) == min(possible)


def test_a_wide_model_reads_less_padding_and_a_small_one_makes_fewer_passes():
    lengths = [150, 125, 60, 57]  # 25 columns are worth a pass, or not
    assert row_groups(lengths, Reader(64)) == [[0, 1], [2, 3]]
    assert row_groups(lengths, Reader(4096)) == [[0], [1], [2, 3]]
    assert row_groups(lengths, Reader(4096, together=True)) == [[0, 1, 2, 3]]


def test_micro_batches_hold_every_item_once_longest_first():
    batch = TextBatch.collate(toy_items(TextBatch, 5), 0)
    micro = micro_batches(Packer(batch), 2)
    assert sorted(torch.cat(micro).tolist()) == list(range(5))
    lengths = batch.attention.sum(-1)[torch.cat(micro)].tolist()
    assert lengths == sorted(lengths, reverse=True)


def test_an_epoch_shows_every_item_once_and_epochs_differ_in_order():
    steps = list(Schedule(10, Cut(5), 4, seed=0, shuffle=True))
    assert sorted(torch.cat(steps[:2]).tolist()) == list(range(10))
    assert not torch.equal(torch.cat(steps[:2]), torch.cat(steps[2:]))
    assert [len(x) for x in Schedule(3, Cut(5), 1, 0, True)] == [3]


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_s_last_batch_is_smaller_and_no_item_is_left_out(shuffle):
    steps = list(Schedule(11, Cut(4), 6, 0, shuffle))
    assert [len(x) for x in steps] == [4, 4, 3] * 2
    for epoch in (steps[:3], steps[3:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(11))


def test_a_rest_that_is_too_small_for_a_method_joins_the_batch_before_it():
    sizes = {n: [len(x) for x in Cut(4, least=3).parts(torch.arange(n))] for n in range(1, 12)}
    assert sizes[8] == [4, 4] and sizes[9] == [4, 5] and sizes[10] == [4, 6]
    assert sizes[11] == [4, 4, 3] and sizes[5] == [5] and sizes[2] == [2]
    for n, parts in sizes.items():
        assert sum(parts) == n and Cut(4, least=3).count(n) == len(parts)


def test_the_rate_rises_to_its_peak_and_falls_to_its_share():
    optim = Optim(warmup=0.1, schedule="cosine", min_lr=0.1)
    shares = [rate(optim, step, 100) for step in range(100)]
    assert shares[0] == pytest.approx(0.1) and shares[9] == 1.0
    assert shares[10] == 1.0 and shares == sorted(shares[:10]) + sorted(shares[10:], reverse=True)
    assert shares[-1] == pytest.approx(0.1, abs=2e-3)


def test_an_empty_response_contributes_nothing_and_is_never_nan():
    items = toy_items(TextBatch, 3)
    empty = replace(items[0], rows=(replace(items[0].rows[0], response=()),))
    batch = TextBatch.collate([empty, *items[1:]], 0)
    found = gradients(AlignDistil(r=2.0), batch)
    assert math.isfinite(found.loss)


def test_a_buffer_is_cut_with_its_signals():
    batch = RolloutBatch.collate(toy_items(RolloutBatch, 6), 0)
    items = torch.tensor([4, 1])
    part = batch.take(items)
    known = batch.take_signals(items, {"x": batch.ids.double(), "reward": batch.reward})
    assert torch.equal(known["x"], part.ids.double())
    assert torch.equal(known["reward"], part.reward)
