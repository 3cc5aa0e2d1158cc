"""Layouts: one loss whatever lies where, and nothing that only looks as if it were sharded."""

import copy
import importlib.util
import shutil
from types import SimpleNamespace

import pytest
import torch
from layout_jobs import METHODS, made, on_ranks, rows, run_case
from torch import distributed, nn
from torch.distributed.tensor import DTensor

from alignzoo import PairBatch
from alignzoo.contract.errors import TrainingError
from alignzoo.engine.layout import sharded
from alignzoo.engine.layout.build import build_layout
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.layout.plain import filled, outline
from alignzoo.engine.models.tensors import read_tensors
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.engine.scoring.scorer import ScoringModule, dense
from alignzoo.engine.train.checkpoint import WEIGHTS
from alignzoo.engine.train.job import Validation
from alignzoo.engine.train.loop import train
from alignzoo.ops import log_prob
from alignzoo.testing import tiny_model, toy_items

DEPENDS = ("padding", "redone")  # on how a batch is cut, and on nothing that is learnt
SMALL = 1e-6  # a metric below it is rounding
BF16 = {"precision": "bf16", "optim": {"micro_batch_size": 1}}
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"
)
EACH = [("ddp",), ("fsdp2",), ("zero2",), ("zero3",)]
STRATEGIES = [pytest.param(*s, marks=needs_deepspeed if s[0] > "z" else ()) for s in EACH]


def assert_equal(one, other, loss=1e-5, norm=1e-4):
    """Two logs of the same training: losses, gradient norms, and every other metric."""
    mine, theirs = rows(one), rows(other)
    assert len(mine) == len(theirs) > 0
    for row, found in zip(mine, theirs, strict=True):
        assert row.keys() == found.keys()
        for key, x in row.items():
            if key.startswith("grad_norm"):
                assert found[key] == pytest.approx(x, rel=norm), (other, key)
            elif key not in DEPENDS:
                assert found[key] == pytest.approx(x, abs=max(loss, SMALL), rel=1e-4), (other, key)


def ran(size, plan):
    done = on_ranks(size, plan)
    assert done.returncode == 0, done.stderr[-3000:]


def compared(folder, strategies, cases, size=2, **how):
    """Every case on one process, and under every strategy on several."""
    plan = [
        {"folder": str(folder / strategy / case), "case": case, "strategy": strategy, **how}
        for strategy in strategies
        for case in cases
    ]
    ran(size, plan)
    for case in cases:
        run_case(str(folder / "one" / case), case, **how)
        for strategy in strategies:
            assert_equal(folder / "one" / case, folder / strategy / case)


ALIKE = ("ppo", "dpo-on", "sppo", "tr-dpo", "twin", "shared-prompts")  # cases under ddp
# Biases of keys have no gradient but rounding, which Adam makes large: so in one chunk.
CUT = {"case": "dpo", "optim": {"steps": 8, "save_every": 3}, "chunk": None}
TURNING = {"case": "turning", "optim": {"steps": 6}}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two ranks make of many jobs; one start of processes serves several tests."""
    folder = tmp_path_factory.mktemp("two")
    several = [("fsdp2", case) for case in METHODS] + [("ddp", c) for c in ALIKE]
    plan = [{"folder": str(folder / s / c), "case": c, "strategy": s} for s, c in several]
    plan += [{"folder": str(folder / "cut"), "strategy": "fsdp2", "stop": 3, **CUT}]
    turns = (("turned", None), ("turned-cut", 4), ("turned-cut", None))
    plan += [{"folder": str(folder / name), "stop": at, **TURNING} for name, at in turns]
    ran(2, plan)
    return folder


@pytest.mark.parametrize("case", METHODS)
def test_two_ranks_under_fsdp2_give_the_losses_norms_and_metrics_of_one(tmp_path, two, case):
    run_case(str(tmp_path / case), case)
    assert_equal(tmp_path / case, two / "fsdp2" / case)


@pytest.mark.parametrize("case", ALIKE)
def test_two_ranks_under_ddp_give_the_losses_norms_and_metrics_of_one(tmp_path, two, case):
    run_case(str(tmp_path / case), case)
    assert_equal(tmp_path / case, two / "ddp" / case)


def results(folder):
    """The roles of which each of two ranks has a model in the end."""
    return [(folder / f"result-{rank}").read_text().split() for rank in range(2)]


def test_only_the_rank_that_writes_the_result_holds_a_copy_of_it(two):
    assert results(two / "fsdp2" / "dpo") == [["policy"], []]
    assert results(two / "fsdp2" / "ppo") == [["critic", "policy"], []]
    assert results(two / "ddp" / "ppo") == [["critic", "policy"], []]


def test_two_ranks_that_are_cut_after_a_missed_forecast_resume_bit_for_bit(two):
    whole, cut = two / "turned", two / "turned-cut"
    assert (whole / "metrics.jsonl").read_bytes() == (cut / "metrics.jsonl").read_bytes()
    assert [row["step"] for row in rows(cut) if "redone" in row] == [4]  # by all ranks, once
    ends = [read_tensors(x / "state" / "step-00000006" / WEIGHTS)[0] for x in (whole, cut)]
    assert all(torch.equal(x, ends[1][name]) for name, x in ends[0].items())


@needs_deepspeed
def test_two_ranks_under_zero_give_the_losses_norms_and_metrics_of_one(tmp_path):
    compared(tmp_path, ["zero2", "zero3"], ["ppo"])
    assert results(tmp_path / "zero3" / "ppo") == [["critic", "policy"], []]


@pytest.mark.grid
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_method_is_the_same_under_every_strategy(tmp_path, strategy):
    compared(tmp_path, [strategy], METHODS)


HARDER = {
    "recomputed layers and chunks": {"optim": {"gradient_checkpointing": True}, "chunk": 4},
    "several items at once": {"optim": {"micro_batch_size": 2, "batch_size": 4}},
    "an empty share": {"cases": ["dpo", "distil-off"], "optim": {"batch_size": 1, "steps": 5}},
    "an empty share of prompts": {"cases": ["ppo", "dpo-on", "sppo"], "prompts": 1},
    "validation": {"held_out": 3, "optim": {"batch_size": 3}},
}


GRID = [pytest.param(2, *s.values, marks=s.marks) for s in STRATEGIES] + [(3, "fsdp2")]


@pytest.mark.grid
@pytest.mark.parametrize("name", HARDER)
@pytest.mark.parametrize(("size", "strategy"), GRID)
def test_no_way_to_cut_a_batch_changes_the_loss(tmp_path, name, size, strategy):
    how = {"cases": ["dpo", "kto", "distil-off"], **HARDER[name]}
    compared(tmp_path, [strategy], how.pop("cases"), size, **how)


@pytest.mark.slow
def test_bf16_is_that_of_ddp_where_rows_share_no_padding(tmp_path):
    names = ("ddp", "fsdp2")
    ran(2, [{"folder": str(tmp_path / s), "case": "sft", "strategy": s, **BF16} for s in names])
    assert_equal(*(tmp_path / s for s in names), loss=1e-6, norm=1e-6)


def assert_same_end(whole, cut):
    assert_equal(whole, cut)
    files = [folder / "state" / "step-00000008" / WEIGHTS for folder in (whole, cut)]
    ends = [read_tensors(file)[0] for file in files]
    for name, x in ends[0].items():
        assert torch.allclose(x, ends[1][name], atol=1e-5), name


def test_a_run_that_stopped_on_two_ranks_under_fsdp2_goes_on_alone(tmp_path, two):
    run_case(str(tmp_path / "whole"), **CUT)
    shutil.copytree(two / "cut", tmp_path / "cut")
    assert len(rows(tmp_path / "cut")) == 3
    run_case(str(tmp_path / "cut"), **CUT)
    assert_same_end(tmp_path / "whole", tmp_path / "cut")


PATHS = [
    (("fsdp2", 2), ("ddp", 2)),
    (("ddp", 1), ("fsdp2", 2)),
    (("ddp", 2), ("fsdp2", 3)),
    pytest.param(("fsdp2", 2), ("zero3", 2), marks=needs_deepspeed),
    pytest.param(("zero3", 2), ("ddp", 1), marks=needs_deepspeed),
    pytest.param(("zero2", 2), ("zero3", 2), marks=needs_deepspeed),
    pytest.param(("zero3", 2), ("fsdp2", 2), marks=needs_deepspeed),
    pytest.param(("ddp", 2), ("zero2", 2), marks=needs_deepspeed),
]


@pytest.mark.grid
@pytest.mark.parametrize(("first", "second"), PATHS)
def test_a_run_goes_on_under_another_layout(tmp_path, first, second):
    run_case(str(tmp_path / "whole"), **CUT)
    for (strategy, size), stop in ((first, 3), (second, None)):
        ran(size, [{"folder": str(tmp_path / "cut"), "strategy": strategy, "stop": stop, **CUT}])
    assert_same_end(tmp_path / "whole", tmp_path / "cut")


# --- what is engaged --------------------------------------------------------------------------


@pytest.fixture
def alone():
    """Layouts of one process join a group of one; it ends with the test."""
    yield start_ranks("fp32")
    if distributed.is_initialized():
        distributed.destroy_process_group()


def scoring(**models):
    models = models or {"policy": tiny_model(0), "frozen": tiny_model(1)}
    return ScoringModule(models, frozenset({"policy"}), dense)


def test_fsdp2_on_one_process_gives_the_losses_of_no_layout(tmp_path, alone):
    for strategy in ("ddp", "fsdp2"):
        assert train(made(tmp_path / strategy, "ppo", strategy=strategy))
    assert_equal(tmp_path / "ddp", tmp_path / "fsdp2", loss=1e-7, norm=1e-6)


def test_fsdp2_gives_back_the_best_checkpoint_and_not_the_last(tmp_path, alone):
    held_out = toy_items(PairBatch, 3, seed=9)
    lowest = Validation(held_out, every=1, metric="loss", sign=-1)  # it rises from the start
    ends = [
        train(made(tmp_path / s, "dpo", strategy=s, validation=lowest))["policy"]
        for s in ("ddp", "fsdp2")
    ]
    last = read_tensors(tmp_path / "fsdp2" / "state" / "step-00000004" / WEIGHTS)[0]
    kept, other = (dict(model.named_parameters()) for model in ends)
    assert all(torch.allclose(x, other[name], atol=1e-5) for name, x in kept.items())
    assert any(not torch.allclose(x, last[f"policy/{n}"], atol=1e-4) for n, x in other.items())


def gathered(layout):
    """After a pass without gradient the root's weights are whole."""
    with torch.no_grad():
        batch = PairBatch.collate(toy_items(PairBatch, 3), 0)
        layout.module(batch, {"policy": log_prob("policy")})
    assert not isinstance(layout.trained["policy"].lm_head.weight, DTensor)
    return layout


def test_weights_and_moments_are_read_and_loaded_after_a_pass_without_gradient(alone):
    layout = build_layout(alone, scoring(), Optim(), "fsdp2")
    other = {name: x.detach() for name, x in tiny_model(2).named_parameters()}
    gathered(layout).load("policy", other)
    found = dict(gathered(layout).whole("policy"))
    assert found.keys() == other.keys()
    assert all(torch.equal(x, other[name]) for name, x in found.items())
    slices = list(layout.trained["policy"].parameters())
    for read, place in ((lambda: layout.whole("policy"), ""), (layout.learnt, "policy/")):
        before = [x.full_tensor().clone() for x in slices]
        gathered(layout)
        torch._foreach_mul_([x.detach().to_local() for x in slices], 2.0)
        found = dict(read())
        assert list(found) == [f"{place}{name}" for name in other]
        assert all(torch.equal(x, 2 * y) for x, y in zip(found.values(), before, strict=True))
    moments = {f"policy/{name}/exp_avg": x + 1 for name, x in other.items()}
    gathered(layout).load_moments(moments)
    kept = dict(gathered(layout).moments())
    assert kept.keys() == moments.keys()
    assert all(torch.equal(x, moments[name]) for name, x in kept.items())


@pytest.mark.parametrize("skipped", ["Qwen2DecoderLayer", "ScoringModule"])
def test_a_unit_that_is_not_sharded_is_found_before_training(alone, monkeypatch, skipped):
    real = sharded.fully_shard

    def partly(unit, **how):
        return unit if type(unit).__name__ == skipped else real(unit, **how)

    monkeypatch.setattr(sharded, "fully_shard", partly)
    with pytest.raises(TrainingError, match="fsdp2 was asked for and is not engaged"):
        build_layout(alone, scoring(), Optim(), "fsdp2")


def test_slices_of_another_number_of_ranks_are_found(alone):
    layout = build_layout(alone, scoring(), Optim(), "fsdp2")
    layout.ranks = SimpleNamespace(rank=0, size=2, sum=lambda x: x)
    with pytest.raises(TrainingError, match="not engaged on 2 ranks"):
        layout.check()


def test_an_optimiser_that_steps_other_tensors_is_found(alone):
    layout = build_layout(alone, scoring(), Optim(), "fsdp2")
    layout.optimizer = torch.optim.AdamW(tiny_model(0).parameters())
    with pytest.raises(TrainingError, match="not engaged"):
        layout.check()


def test_several_ranks_without_ddp_are_found(alone):
    layout = build_layout(alone, scoring(), Optim(), "ddp")
    layout.ranks = SimpleNamespace(size=2)
    with pytest.raises(TrainingError, match="2 ranks train together, but the model is a Scoring"):
        layout.check()


# --- what cannot be sharded -------------------------------------------------------------------


def unnamed(model):
    model._no_split_modules = None
    return "Qwen2ForCausalLM .* does not name its layers"


def shared(model):
    first, second = model.model.layers
    second.mlp.up_proj.weight = first.mlp.up_proj.weight
    return r"layers\.1\.mlp\.up_proj\.weight is another layer's too"


def scalar(model):
    model.model.norm.gain = nn.Parameter(torch.tensor(1.0))
    return r"norm\.gain is a scalar"


def experts(model):
    model.model.layers[0].mlp.experts = nn.ModuleList([nn.Linear(2, 2)])
    return r"layers\.0\.mlp\.experts is a list of experts"


@pytest.mark.parametrize("make", [unnamed, shared, scalar, experts])
def test_a_model_that_fsdp2_would_compute_wrongly_is_refused_with_a_reason(alone, make):
    model = tiny_model(0)
    reason = make(model)
    with pytest.raises(TrainingError, match=rf"parallel.strategy: fsdp2 .*{reason}.*take ddp"):
        build_layout(alone, scoring(policy=model), Optim(), "fsdp2")


# --- plain copies -----------------------------------------------------------------------------


def test_an_outline_holds_no_weights_and_gives_the_model_back():
    model = tiny_model(0)
    model.model.layers[0].requires_grad_(False)
    kept = outline(model)
    assert all(p.is_meta for p in kept.parameters())
    again = filled(kept, model.named_parameters(), torch.device("cpu"))
    ids = torch.tensor([[3, 5, 7]])
    assert torch.equal(model(ids).logits, again(ids).logits)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    flags = [[p.requires_grad for p in m.parameters()] for m in (model, again)]
    assert flags[0] == flags[1]
    assert not any(p is q for p, q in zip(model.parameters(), again.parameters(), strict=True))


def test_a_session_on_a_copy_takes_the_weights_and_one_on_the_trainers_model_copies_nothing():
    trainer, other = tiny_model(0), tiny_model(1)
    session = TransformersEngine().start(copy.deepcopy(trainer))
    session.sync(other.named_parameters(), 1)
    assert all(
        torch.equal(p, q)
        for p, q in zip(session.model.parameters(), other.parameters(), strict=True)
    )
    versions = [p._version for p in trainer.parameters()]
    own = TransformersEngine().start(trainer)
    own.sync(trainer.named_parameters(), 2)
    assert versions == [p._version for p in trainer.parameters()]
    assert own.version == 2
