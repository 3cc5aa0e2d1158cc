"""ZeRO: what is read of DeepSpeed's insides, what is refused, and what is never compiled."""

import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import pytest
from test_router_loss import mixture

from alignzoo.contract.errors import TrainingError
from alignzoo.engine.layout.build import check_strategy
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.layout.zero import Zero3
from alignzoo.engine.scoring.scorer import ScoringModule, dense

INSIDES = """
import os, torch
from alignzoo.contract.errors import TrainingError
from alignzoo.engine.layout import zero
from alignzoo.engine.layout.build import build_layout
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.parallel.agreement import end
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.scoring.scorer import ScoringModule, dense
from alignzoo.ops import log_prob
from alignzoo.testing import tiny_model, toy_items
from alignzoo import TextBatch

batch = TextBatch.collate(toy_items(TextBatch, 4), 0)
ranks = start_ranks("fp32")


def scoring():
    models = {"policy": tiny_model(0), "reference": tiny_model(1)}
    return ScoringModule(models, frozenset({"policy"}), dense)


def loss(module):
    return module(batch, {"x": log_prob("policy")})["x"].sum() * 100


plain = scoring()
loss(plain).backward()
expected = torch.cat([p.grad.flatten() for p in plain.parameters() if p.grad is not None]).norm()
for strategy in ("zero2", "zero3"):
    layout = build_layout(ranks, scoring(), Optim(), strategy)
    with layout.unsynced(last=True):
        layout.backward(loss(layout.module))
    parts = [x for found in layout.optimizer.averaged_gradients.values() for x in found]
    norm = torch.cat([x.flatten() for x in parts]).norm()
    assert torch.allclose(norm, expected), (strategy, norm, expected)
    assert torch.allclose(layout.clip(1.0)["policy"].float(), expected)
    clipped = torch.cat([x.flatten() for x in parts]).norm()
    assert torch.allclose(clipped, torch.tensor(1.0), atol=1e-4), (strategy, clipped)
    layout.step()
    assert sum(1 for name, _ in layout.moments() if name.endswith("/step")) == len(layout.learning)
    assert {float(x) for name, x in layout.moments() if name.endswith("/step")} == {1.0}
    real = zero.Zero._config

    def without(self, real=real):
        config = real(self)
        config["zero_optimization"]["stage"] = 1
        return config

    zero.Zero._config = without
    try:
        build_layout(ranks, scoring(), Optim(), strategy)
    except TrainingError as error:
        assert "is not engaged" in str(error), (strategy, error)
    else:
        raise AssertionError(f"{strategy}: stage 1 was taken for it")
    zero.Zero._config = real
assert not os.listdir(os.environ["TORCH_EXTENSIONS_DIR"]), "something was compiled"
print("fine")
end(0)
print("fine")
"""


@pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"
)
def test_partitions_hold_the_gradient_another_stage_is_found_and_nothing_is_compiled(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    command = [sys.executable, "-c", INSIDES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "fine" in done.stdout


def test_zero_without_deepspeed_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    check_strategy("fsdp2")
    for strategy in ("zero2", "zero3"):
        words = rf"strategy: {strategy} needs DeepSpeed.*pip install 'alignzoo\[deepspeed\]'"
        with pytest.raises(TrainingError, match=words):
            check_strategy(strategy)


def test_zero_with_a_broken_deepspeed_says_what_is_wrong_with_it(tmp_path, monkeypatch):
    (tmp_path / "deepspeed.py").write_text("raise RuntimeError('no such kernel')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "deepspeed", raising=False)
    with pytest.raises(TrainingError, match=r"cannot be imported here: RuntimeError: no such kern"):
        check_strategy("zero3")


def test_zero3_refuses_a_mixture_of_experts():
    module = ScoringModule({"policy": mixture()}, frozenset({"policy"}), dense)
    with pytest.raises(TrainingError, match=r"zero3 has not been tried with a mixture .*'policy'"):
        Zero3(SimpleNamespace(size=1), module, Optim())
