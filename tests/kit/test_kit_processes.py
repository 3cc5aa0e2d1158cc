"""Several real processes learn what one learns: every method does, and a flawed one is told."""

import json
import math
import os
import re
from typing import ClassVar

import pytest
from test_kit import NEEDED, REGISTRY, Sound

from alignzoo import Loss, Mean, Metric, Term
from alignzoo.contract.errors import PluginError, UsageError
from alignzoo.ops import sequence_sum
from alignzoo.recipe.options import build_options
from alignzoo.testing import check_algorithm, processes
from alignzoo.testing.processes import differences

PROMISE = "two processes give the losses of one"


class SharesAlone(Sound):
    """L = -S(y_w) |y_w| / mean |y_w|. Source: https://example.org."""

    def mean(self, lengths, world):
        return lengths.mean()  # of this process's share

    def prepare(self, batch, signals, world):
        lengths = batch.response[batch.chosen].sum(-1).double()
        return {"share": lengths / self.mean(lengths, world)}

    def loss(self, batch, signals, state):
        total = sequence_sum(signals["policy"], batch.mask)[batch.chosen] * signals["share"]
        return Loss(Term(-total), {"nll": Mean(-total.detach())})


class SharesTogether(SharesAlone):
    """L = -S(y_w) |y_w| / mean |y_w|. Source: https://example.org."""

    def mean(self, lengths, world):
        return world.mean(lengths, lengths > 0)


class LogsItsProcess(Sound):
    """L = -S(y_w), with a metric of the process. Source: https://example.org."""

    metrics: ClassVar = {**Sound.metrics, "number": Metric("of the process")}

    def loss(self, batch, signals, state):
        loss = super().loss(batch, signals, state)
        number = 0 * loss.terms.value.detach() + int(os.environ.get("RANK", "0"))
        return Loss(loss.terms, {**loss.metrics, "number": Mean(number)})


class FailsThere(Sound):
    """L = -S(y_w), on one process. Source: https://example.org."""

    def prepare(self, batch, signals, world):
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise PluginError("three owls do not share")
        return {}


FOLDER = """
from dataclasses import dataclass
from typing import ClassVar
from alignzoo import Algorithm, Loss, Mean, Metric, PairBatch, Term, hookimpl
from alignzoo.ops import log_prob, sequence_sum

@dataclass(frozen=True)
class Alone(Algorithm[PairBatch]):
    '''L = -S(y_w) |y_w| / mean |y_w|. Source: https://example.org.'''

    name = "alone"
    metrics: ClassVar = {"nll": Metric("of the chosen")}

    def signals(self):
        return {"policy": log_prob("policy")}

    def prepare(self, batch, signals, world):
        lengths = batch.response[batch.chosen].sum(-1).double()
        return {"share": lengths / lengths.mean()}

    def loss(self, batch, signals, state):
        total = sequence_sum(signals["policy"], batch.mask)[batch.chosen] * signals["share"]
        return Loss(Term(-total), {"nll": Mean(-total.detach())})

@hookimpl
def register_algorithms():
    return [Alone]
"""


def built(name):
    return build_options(REGISTRY.algorithms[name], NEEDED.get(name, {}))


def test_two_processes_learn_what_one_learns_and_whatever_differs_is_named():
    methods = [built("dpo"), built("ppo"), SharesTogether(), SharesAlone(), LogsItsProcess()]
    *same, alone, logs = differences(methods, 2)
    assert same == [[], [], []]
    assert len(alone) == 2
    assert alone[0].startswith("ddp, step 1: loss is ")
    assert alone[1].startswith("fsdp2, step 1: loss is ")
    told = "step 1: number is 0.4 on 2 processes, 0 on one"  # they have 3 and 2 items
    assert logs == [f"ddp, {told}", f"fsdp2, {told}"]


@pytest.mark.grid
def test_every_algorithm_of_the_zoo_learns_the_same_on_two_processes():
    names = sorted(REGISTRY.algorithms)
    found = differences([built(name) for name in names], 2)
    assert {name: said for name, said in zip(names, found, strict=True) if said} == {}


def test_a_mean_of_one_process_is_found_in_a_folder_and_by_nothing_else(cli, tmp_path):
    module = tmp_path / "alignzoo_shares_alone.py"
    module.write_text(FOLDER)
    status, out, _ = cli("check", module, "--processes", "2", "--strategy", "ddp")
    assert status == 1
    (broken,) = [line for line in out.splitlines() if "BROKEN" in line]
    assert PROMISE in broken and "ddp, step 1: loss is" in broken
    assert "`world.mean`" in out
    line = FOLDER[: FOLDER.index("def prepare")].count("\n") + 1
    assert f"alignzoo_shares_alone.py:{line}: {PROMISE}" in out
    assert "1 broken" in out


@pytest.mark.slow
def test_an_error_of_one_process_is_a_broken_promise_with_its_words():
    with pytest.raises(PluginError, match=f"{PROMISE}: .*three owls do not share"):
        check_algorithm(FailsThere(), 2, ["ddp"])


def test_a_method_that_cannot_be_sent_to_other_processes_is_told_why():
    class Hidden(Sound):
        """L = -S(y_w). Source: https://example.org."""

    with pytest.raises(PluginError, match=r"cannot import Hidden .* at the top of a module"):
        differences([Hidden()], 2)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["sft", "--processes", "2", "--strategy", "fsdp"], "no strategy 'fsdp'.*fsdp2"),
        (["sft", "--strategy", "ddp"], "--strategy needs --processes"),
        (["facts.sft", "--processes", "2"], "--processes tries algorithms"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_starts(cli, words, what):
    status, _, err = cli("check", *words)
    assert status == 2
    assert re.search(what, err)


def test_less_than_one_process_is_refused():
    with pytest.raises(UsageError, match="0 processes; one at least"):
        check_algorithm(Sound(), 0)


STEP = {
    "step": 1.0,
    "loss": 0.5,
    "grad_norm/policy": 40.0,
    "kl": 2.0,
    "small": 0.01,
    "padding": 0.3,
}
LOGS = {  # what several processes logged at step 1 where one logged STEP -> what is told
    "the same": ({}, ""),
    "a loss within rounding": ({"loss": 0.500009}, ""),
    "a loss beyond it": ({"loss": 0.500012}, "loss is 0.500012 on 2 processes, 0.5 on one"),
    "a loss that is no number": ({"loss": math.nan}, "loss is nan on 2 processes"),
    "a norm within 1e-4 of its size": ({"grad_norm/policy": 40.0039}, ""),
    "a norm beyond it": ({"grad_norm/policy": 40.0041}, "grad_norm/policy is 40.0041"),
    "a metric beyond 1e-4 of its size": ({"kl": 2.00021}, "kl is 2.00021"),
    "a small metric within 1e-5": ({"small": 0.010009}, ""),
    "a small metric beyond it": ({"small": 0.010011}, "small is 0.010011"),
    "padding depends on how a batch is cut": ({"padding": 0.9}, ""),
    "a metric that one does not log": ({"more": 1.0}, "more is not logged by both"),
}


def told(folder, several):
    """What is told of one step alone and those of two processes."""
    plan = processes._Plan(folder, 2, ("ddp",), ())
    for name, rows in ((processes.ALONE, [STEP]), ("ddp", several)):
        place = folder / "0" / name
        place.mkdir(parents=True)
        (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(processes._told(plan, 0))


@pytest.mark.parametrize("name", LOGS)
def test_a_figure_that_differs_by_more_than_rounding_is_told(tmp_path, name):
    changed, what = LOGS[name]
    said = told(tmp_path, [STEP | changed])
    assert [s[: len(f"ddp, step 1: {what}")] for s in said] == [f"ddp, step 1: {what}"] * bool(what)


def test_another_number_of_steps_is_told(tmp_path):
    assert told(tmp_path, [STEP, STEP]) == ["ddp: 2 steps on several processes, 1 on one"]
