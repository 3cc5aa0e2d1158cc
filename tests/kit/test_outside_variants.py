"""Variants of DPO that outsiders wrote from the documentation: each keeps the contract."""

import importlib.util
import math

import pytest
import torch
from logit_models import SCORERS, evaluate
from source_tree import ROOT

from alignzoo import PairBatch
from alignzoo.cli.authoring.checking import Asked, check_command

FOLDER = ROOT / "tests" / "third_party" / "variants"
FILES = sorted(FOLDER.glob("*.py"))
LENGTHS = torch.tensor([5, 3, 4, 2, 5, 4])  # three pairs: (5, 2), (3, 5), (4, 4)


def method(name, **options):
    spec = importlib.util.spec_from_file_location(f"outside_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.register_algorithms()[0](**options)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_the_contract_is_kept(file, capsys):
    assert check_command(str(file), Asked({}), None) == 0
    assert "all promises kept" in capsys.readouterr().out


def inputs():
    torch.manual_seed(2)
    seen = torch.arange(5) < LENGTHS[:, None]
    ids = torch.randint(0, 7, seen.shape) * seen
    batch = PairBatch(ids, seen, seen & (torch.arange(5) > 0))
    tables = {x: torch.randn(6, 5, 7, dtype=torch.float64) for x in ("policy", "reference")}
    return batch, tables


def tokens(batch, tables, row):
    """(log-probability under policy and reference, all of the policy's) of an answer's tokens."""
    logs = {name: x.log_softmax(-1) for name, x in tables.items()}
    for t in range(batch.ids.shape[1] - 1):
        if batch.mask[row, t]:
            word = batch.ids[row, t + 1]
            yield (logs["policy"][row, t, word].item(), logs["reference"][row, t, word].item(),
                   logs["policy"][row, t].tolist())  # fmt: skip


def softplus(x):
    return math.log(1 + math.exp(x))


def mean_of(pairs):
    return sum(pairs) / len(pairs)


def gap(batch, tables, pair, weigh=lambda place, row: 1.0):
    sums = [
        sum(weigh(n, row) * (p - r) for n, (p, r, _) in enumerate(tokens(batch, tables, row), 1))
        for row in (pair, pair + 3)
    ]
    return sums[0] - sums[1]


def test_ld_dpo_equals_its_formula():
    batch, tables = inputs()
    n = batch.mask.sum(-1).tolist()
    shorter = [min(n[i % 3], n[i % 3 + 3]) for i in range(6)]
    weigh = lambda place, row: 1.0 if place <= shorter[row] else 0.3  # noqa: E731
    expected = mean_of([softplus(-0.5 * gap(batch, tables, i, weigh)) for i in range(3)])
    for scorer in SCORERS.values():
        got = evaluate(method("ld_dpo", beta=0.5, alpha=0.3), batch, tables, scorer).total
        assert got.item() == pytest.approx(expected, rel=1e-10)


def test_wpo_equals_its_formula():
    batch, tables = inputs()

    def likely(row):
        each = [p - math.log(sum(math.exp(2 * x) for x in every))
                for p, _, every in tokens(batch, tables, row)]  # fmt: skip
        return math.exp(mean_of(each))

    expected = mean_of([likely(i) * likely(i + 3) * softplus(-0.5 * gap(batch, tables, i))
                        for i in range(3)])  # fmt: skip
    for scorer in SCORERS.values():
        got = evaluate(method("wpo", beta=0.5), batch, tables, scorer).total
        assert got.item() == pytest.approx(expected, rel=1e-10)


def test_beta_dpo_follows_the_batch_and_the_steps_before():
    batch, tables = inputs()
    plug = method("beta_dpo", beta0=0.5, alpha=0.6, momentum=0.9)
    gaps = [gap(batch, tables, i) for i in range(3)]
    state = plug.next_state({"m0": torch.tensor(0.2)}, {"rewards/margin": 0.7})
    assert state["m0"].item() == pytest.approx(0.9 * 0.2 + 0.1 * 1.4)
    world = type("World", (), {"mean": lambda self, x, mask: x[mask].mean(), "state": state})()
    ratio = torch.tensor([[x, 0.0, 0, 0, 0] for x in (*gaps, 0.0, 0, 0)], dtype=torch.float64)
    given = {"start": ratio, "reference": 0 * ratio, "policy": ratio}
    seen = torch.ones(6, 5, dtype=torch.bool)
    whole = PairBatch(seen.long(), seen, seen)
    given |= plug.prepare(whole, given, world)
    beta = 0.5 * (1 + 0.6 * (mean_of(gaps) - 0.32))
    got = plug.loss(whole, given, state).terms.value
    assert got.tolist() == pytest.approx([softplus(-beta * x) for x in gaps])
