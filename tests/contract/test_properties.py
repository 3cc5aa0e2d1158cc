"""What must hold for any numbers: identities and invariances of the delivered methods.

Everything runs in float64 on random logits, through the engine's scoring.
"""

import dataclasses
import math

import pytest
import torch
from alignzoo_aligndistil import AlignDistil
from alignzoo_dpo import DPO
from alignzoo_ppo import PPO
from hypothesis import given, settings
from hypothesis import strategies as st
from logit_models import SCORERS, SLICES, evaluate, metrics, reduced
from method_settings import METHODS
from torch.nn import functional

from alignzoo import Algorithm, PairBatch, RolloutBatch, Signal, TextBatch
from alignzoo.contract.types import Item, Tokens
from alignzoo.ops import log_softmax

V = 7
few = settings(max_examples=12, deadline=None, derandomize=True, database=None)

ALIGNED = {n: m for n, m in METHODS.items() if getattr(m, "positions", "aligned") == "aligned"}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
lengths = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), min_size=2, max_size=4)
seeds = st.integers(0, 2**31)
scales = st.sampled_from([0.1, 1.0, 5.0])


def holds_for(*strategies):
    """Run a test on a few drawn arguments, the same ones every time."""
    return lambda test: few(given(*strategies)(test))


@dataclasses.dataclass(frozen=True)
class Example:
    """A batch, what its models say now, and what they said at its start."""

    batch: TextBatch
    now: dict[str, torch.Tensor]
    start: dict[str, torch.Tensor]

    def run(self, method, **more):
        return evaluate(method, self.batch, self.now, start=self.start, **more)


def draw(method: Algorithm, lengths, seed, scale=1.0) -> Example:
    """Random tokens and models; the prompts and answers have the given lengths."""
    chance = torch.Generator().manual_seed(seed)

    def row(prompt, response):
        ids = torch.randint(0, V, (prompt + response,), generator=chance).tolist()
        return Tokens(tuple(ids[:prompt]), tuple(ids[prompt:]))

    count = method.batch.rows_per_item
    items = [
        Item(
            tuple(row(n, m + k) for k in range(count)),
            {"reward": float(i - 1), "ended": 1.0, "group": float(i), "desirable": float(i % 2)},
        )
        for i, (n, m) in enumerate(lengths)
    ]
    batch = method.batch.collate(items, pad_id=0)

    def table(role, near=None):
        shape = (*batch.ids.shape, 1 if method.roles[role].head == "scalar" else V)
        noise = torch.randn(shape, generator=chance, dtype=torch.float64)
        return scale * noise if near is None else near + 0.1 * noise

    start = {role: table(role) for role in method.roles}
    moving = method.batch is RolloutBatch
    trained = {role for role, part in method.roles.items() if part.trainable and moving}
    now = {role: table(role, x) if role in trained else x for role, x in start.items()}
    return Example(batch, now, start)


def changed(example, change):
    """The example with other tables: change(role, table) -> table."""
    now, start = (
        {role: change(role, x) for role, x in tables.items()}
        for tables in (example.now, example.start)
    )
    return dataclasses.replace(example, now=now, start=start)


def same(one, other, atol=1e-10):
    assert torch.allclose(one, other, rtol=1e-9, atol=atol), (one - other).abs().max()


# --- every method: what must not matter, and where gradients may go


@each_method
@holds_for(lengths, seeds, scales)
def test_a_constant_added_to_all_logits_of_a_position_changes_nothing(method, lengths, seed, scale):
    example = draw(method, lengths, seed, scale)
    shift = torch.linspace(-20, 20, example.batch.ids.numel(), dtype=torch.float64)
    shift = shift.view(*example.batch.ids.shape, 1)
    moved = changed(example, lambda role, x: x + shift * (x.shape[-1] > 1))
    one, other = example.run(method), moved.run(method)
    same(one.total, other.total)
    same(one.gradient(), other.gradient())


@each_method
@holds_for(lengths, seeds)
def test_the_order_of_the_items_does_not_matter(method, lengths, seed):
    example = draw(method, lengths, seed)
    order = torch.arange(example.batch.n_items).flip(0)
    rows, batch = example.batch.rows(order), example.batch.take(order)
    width = batch.ids.shape[1]
    turned = changed(example, lambda _, x: x[rows][:, :width])
    one = example.run(method)
    other = evaluate(method, batch, turned.now, start=turned.start)
    same(one.total, other.total)
    same(one.gradient()[rows][:, :width], other.gradient())


@pytest.mark.parametrize("method", ALIGNED.values(), ids=ALIGNED)
@holds_for(lengths, seeds, st.integers(1, 4))
def test_extra_padding_does_not_matter(method, lengths, seed, extra):
    example = draw(method, lengths, seed)
    pad = {
        name: functional.pad(getattr(example.batch, name), (0, extra))
        for name in ("ids", "attention", "response")
    }
    wide = dataclasses.replace(example.batch, **pad)
    far = changed(example, lambda _, x: functional.pad(x, (0, 0, 0, extra), value=3.0))
    one = example.run(method)
    other = evaluate(method, wide, far.now, start=far.start)
    same(one.total, other.total)
    same(functional.pad(one.gradient(), (0, 0, 0, extra)), other.gradient())


@each_method
@holds_for(lengths, seeds)
def test_logits_outside_the_counted_positions_neither_matter_nor_learn(method, lengths, seed):
    example = draw(method, lengths, seed)
    mask = example.batch.mask if method in ALIGNED.values() else example.batch.response
    wild = changed(example, lambda _, x: torch.where(mask[..., None], x, 50 * x + 7))
    one, other = example.run(method), wild.run(method)
    assert torch.equal(one.total, other.total)
    assert not one.gradient()[~mask].any()
    assert one.gradient()[mask].any()


@each_method
@holds_for(lengths, seeds, scales)
def test_the_gradient_sums_to_zero_over_the_vocabulary(method, lengths, seed, scale):
    gradient = draw(method, lengths, seed, scale).run(method).gradient()
    same(gradient.sum(-1), torch.zeros(gradient.shape[:2], dtype=gradient.dtype))


@each_method
@holds_for(lengths, seeds, st.integers(1, 3))
def test_a_batch_cut_into_micro_batches_gives_the_same_loss_and_gradient(
    method, lengths, seed, size
):
    example = draw(method, lengths, seed)
    whole = example.run(method)
    given_ = {name: x.detach() for name, x in whole.signals.items()}
    live = {name for name, x in whole.signals.items() if x.requires_grad}
    leaves = {name: given_[name].clone().requires_grad_() for name in live}
    parts = [
        method.loss(
            example.batch.take(items),
            example.batch.take_signals(items, given_ | leaves),
            method.init_state(),
        )
        for items in torch.arange(example.batch.n_items).split(size)
    ]
    total = sum(reduced(parts).values())
    total.backward()
    same(total.detach(), whole.total)
    for name in live:
        same(leaves[name].grad, whole.signals[name].grad)


@each_method
def test_the_fused_scorer_cuts_positions_and_equals_the_dense_one(method, monkeypatch):
    sizes = []
    example = draw(method, [(2, 5), (1, 4), (3, 1)], seed=3)

    def counted(signals):
        def count(signal):
            def reduce(outputs, labels):
                sizes.append(len(labels))
                return signal.reduce(outputs, labels)

            return Signal(signal.roles, reduce, signal.positions)

        return lambda self: {name: count(signal) for name, signal in signals(self).items()}

    monkeypatch.setattr(type(method), "signals", counted(type(method).signals))
    one = example.run(method)
    positions = sum(sizes)
    assert max(sizes) > 6
    sizes.clear()
    other = example.run(method, scorer=SLICES)
    assert max(sizes) <= 3
    assert sum(sizes) >= positions  # every one, and those that are read twice
    same(one.total, other.total, atol=0)
    same(one.gradient(), other.gradient(), atol=1e-15)


# --- DPO


@holds_for(lengths, seeds, st.floats(0.01, 2.0))
def test_dpo_starts_at_log_two_and_pulls_each_pair_with_half_of_beta(lengths, seed, beta):
    method = DPO(beta=beta)
    example = draw(method, lengths, seed)
    tables = example.now | {"policy": example.now["reference"]}
    run = evaluate(method, example.batch, tables)
    same(run.total, torch.tensor(math.log(2), dtype=torch.float64))
    pull = run.batch.mask.double() * beta / (2 * run.batch.n_items)
    same(run.signals["policy"].grad[run.batch.chosen], -pull[run.batch.chosen])
    same(run.signals["policy"].grad[run.batch.rejected], pull[run.batch.rejected])


@holds_for(lengths, seeds, st.floats(0.01, 2.0))
def test_swapped_preferences_mirror_dpo(lengths, seed, beta):
    method = DPO(beta=beta)
    example = draw(method, lengths, seed)
    batch = example.batch
    rows = torch.arange(2 * batch.n_items).roll(batch.n_items)
    batch = PairBatch(batch.ids[rows], batch.attention[rows], batch.response[rows])
    one = example.run(method)
    other = evaluate(method, batch, {role: x[rows] for role, x in example.now.items()})
    margin = one.loss.metrics["rewards/margin"].value
    same(other.loss.metrics["rewards/margin"].value, -margin)
    same(other.loss.terms.value, one.loss.terms.value + margin)  # -log s(-m) = -log s(m) + m
    # DPO and reverse DPO together are conservative DPO with every second label wrong
    half = example.run(DPO(beta=beta, label_smoothing=0.5))
    same(half.total, (one.total + other.total) / 2)


# --- AlignDistil


def distil_roles(example, **tables):
    return dataclasses.replace(example, now=example.now | tables, start=example.now | tables)


variants = st.builds(
    AlignDistil,
    reward=st.sampled_from(["contrastive", "vanilla"]),
    extrapolation=st.sampled_from(["adaptive", "constant"]),
    r=st.floats(0.1, 30.0),
    beta=st.floats(0.03, 0.3),
    tvd=st.sampled_from(["half", "l1"]),
    beta_weighting=st.sampled_from(["per_token", "none"]),
    reduction=st.sampled_from(["sequence_mean", "sequence_sum", "token_mean"]),
    temperature=st.sampled_from([1.0, 0.5, 2.0]),
)


def extrapolated(method, dpo, anchor):
    """[B, S, V] the teacher's logits as the paper writes them, from raw logits."""
    distance = 0.5 * (dpo.softmax(-1) - anchor.softmax(-1)).abs().sum(-1, keepdim=True)
    distance = distance * {"half": 1, "l1": 2}[method.tvd]
    alpha = method.r * distance + method.epsilon
    if method.extrapolation == "constant":
        alpha = torch.full_like(distance, method.beta0 / method.beta)
    if method.reward == "vanilla":
        return alpha * dpo + (1 - alpha) * anchor
    return (1 + alpha) * dpo - alpha * anchor


@holds_for(variants, lengths, seeds, scales)
def test_a_policy_that_equals_the_extrapolated_teacher_has_nothing_to_learn(
    method, lengths, seed, scale
):
    example = draw(method, lengths, seed, scale)
    target = extrapolated(method, example.now["teacher"], example.now["anchor"])
    run = distil_roles(example, policy=target).run(method)
    same(run.total, torch.zeros_like(run.total))
    same(run.gradient(), torch.zeros_like(run.gradient()))


@holds_for(variants, lengths, seeds, scales)
def test_equal_teacher_and_anchor_make_the_teacher_the_target(method, lengths, seed, scale):
    example = draw(method, lengths, seed, scale)
    teacher = example.now["teacher"]
    run = distil_roles(example, anchor=teacher, policy=teacher).run(method)
    assert metrics(method, run.loss)["tvd/mean"] == 0
    same(run.total, torch.zeros_like(run.total))
    same(run.gradient(), torch.zeros_like(run.gradient()))


@holds_for(seeds, st.floats(0.02, 0.5), st.floats(0.02, 0.5), scales)
def test_theorem_one_holds_at_every_position(seed, beta0, beta, scale):
    """sum_v pi (reward) - beta KL(pi || ref) = -beta KL(pi || teacher) + beta log Z."""
    method = AlignDistil(reward="vanilla", extrapolation="constant", beta0=beta0, beta=beta)
    chance = torch.Generator().manual_seed(seed)
    policy, dpo, ref = scale * torch.randn(3, 5, V, generator=chance, dtype=torch.float64)
    outputs = {"policy": policy, "teacher": dpo, "anchor": ref}
    row = method.rows(outputs, torch.zeros(5, dtype=torch.int64))
    mix = beta0 / beta * log_softmax(dpo) + (1 - beta0 / beta) * log_softmax(ref)
    objective = row["expected"] - beta * row["kl_anchor"]
    same(objective, -beta * row["kl"] + beta * mix.logsumexp(-1))


@holds_for(lengths, seeds, st.floats(0.5, 3.0))
def test_contrastive_weight_w_is_vanilla_weight_one_plus_w(lengths, seed, weight):
    plain = AlignDistil(extrapolation="constant", beta=0.1, beta_weighting="none")
    contrastive = dataclasses.replace(plain, beta=0.1 / weight)
    vanilla = dataclasses.replace(plain, beta=0.1 / (1 + weight), reward="vanilla")
    example = draw(contrastive, lengths, seed)
    one, other = example.run(contrastive), example.run(vanilla)
    same(one.total, other.total)
    same(one.gradient(), other.gradient())


@holds_for(lengths, seeds, st.floats(0.1, 30.0))
def test_l1_distance_is_the_papers_with_twice_the_scale(lengths, seed, r):
    half, l1 = AlignDistil(r=2 * r), AlignDistil(r=r, tvd="l1")
    example = draw(half, lengths, seed)
    one, other = example.run(half), example.run(l1)
    same(one.total, other.total)
    assert metrics(half, one.loss)["tvd/mean"] == metrics(l1, other.loss)["tvd/mean"]


@holds_for(lengths, seeds)
def test_the_cap_bounds_alpha_and_nothing_else(lengths, seed):
    free, capped = AlignDistil(r=5.0), AlignDistil(r=5.0, alpha_max=1.0)
    example = draw(free, lengths, seed, scale=3.0)
    one, other = (example.run(m).signals["distil/alpha"] for m in (free, capped))
    same(other, one.clamp(max=1.0))


# --- PPO


def no_step_yet(example):
    return dataclasses.replace(example, now=example.start)


@holds_for(lengths, seeds)
def test_before_the_first_step_ppo_is_plain_policy_gradient(lengths, seed):
    method = PPO()
    run = no_step_yet(draw(method, lengths, seed)).run(method)
    mask = run.batch.mask
    assert metrics(method, run.loss)["clip_fraction"] == 0
    expected = -run.prepared["advantage"] / mask.sum(-1, keepdim=True) / run.batch.n_items
    same(run.signals["policy"].grad, expected * mask)
    gap = run.signals["value"].detach() - run.prepared["return"]
    same(run.signals["value"].grad, gap * mask / mask.sum(-1, keepdim=True) / run.batch.n_items)


@holds_for(lengths, seeds)
def test_undiscounted_returns_are_the_rewards_still_to_come(lengths, seed):
    method = PPO(lam=1.0, gamma=1.0)
    run = draw(method, lengths, seed).run(method)
    rewards = method.token_rewards(run.batch, run.signals)
    to_come = rewards.flip(-1).cumsum(-1).flip(-1)
    same(run.prepared["return"], to_come * run.batch.mask)


@holds_for(lengths, seeds)
def test_whitened_advantages_have_mean_zero_and_variance_one(lengths, seed):
    run = draw(PPO(), lengths, seed).run(PPO())
    counted = run.prepared["advantage"][run.batch.mask]
    same(counted.mean(), torch.zeros_like(counted.mean()))
    same(counted.var(unbiased=False), torch.ones_like(counted.mean()), atol=1e-6)


@pytest.mark.parametrize("scorer", SCORERS)
@each_method
def test_a_row_without_response_contributes_nothing_and_is_never_nan(method, scorer):
    example = draw(method, [(2, 4), (3, 2), (2, 1)], seed=5)
    response = example.batch.response.clone()
    response[0] = False
    batch = dataclasses.replace(example.batch, response=response)
    run = evaluate(method, batch, example.now, SCORERS[scorer], example.start)
    assert torch.isfinite(run.total)
    assert torch.isfinite(run.gradient()).all()
    assert not run.gradient()[0].any()
    assert all(math.isfinite(x) for x in metrics(method, run.loss).values())
