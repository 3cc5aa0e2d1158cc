"""Datasets, stages, judges, benchmarks: every promise has a flawed plug-in that is caught."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from safetensors.torch import load_file, save_file
from test_kit import PROMPTS, Length

from alignzoo import (
    Column,
    Dataset,
    GroupSample,
    PluginError,
    PromptSample,
    Response,
    Role,
    Score,
    ScoredBenchmark,
    Stage,
    TextSample,
    option,
)
from alignzoo.testing import (
    check_dataset,
    check_stage,
    run_benchmark_checks,
    run_dataset_checks,
    run_judge_checks,
    run_stage_checks,
)
from alignzoo.testing.comparing import compare_trials


def broken(checks):
    return {c.promise: c for c in checks if not c.kept}


def caught(checks, promise):
    found = broken(checks)
    assert promise in found
    assert "tests/kit/test_kit" in found[promise].where


def made(base, **members):
    """A flawed variant; a class statement would need a name and a docstring each."""
    members = {"__doc__": "Differs.", "__module__": __name__, **members}
    return type("Flawed", (base,), members)


# --- datasets -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows(Dataset):
    """Questions with answers."""

    name = "rows"
    size: int = option(3, "number of rows", gt=0)

    def samples(self, seed):
        return [TextSample(f"q{seed}{n}", Response(f"a{n}")) for n in range(self.size)]


@dataclass
class Thawed(Dataset):
    """Questions with answers."""

    name = "thawed"
    size: int = field(default=1)
    samples = Rows.samples


class Drained(Rows):
    """Gives its samples once."""

    left: ClassVar = iter([PromptSample("q")] * 3)

    def samples(self, seed):
        return self.left


def shuffled(self, seed):
    return [PromptSample(str(random.random()))]


DATASETS = [
    (made(Rows, __doc__=None), "docstring"),
    (Thawed, "options are frozen and survive YAML"),
    (Thawed, "options are explained"),
    (made(Rows, samples=lambda self, seed: []), "it yields samples"),
    (made(Rows, samples=lambda self, seed: [{"prompt": "q"}]), "it yields samples"),
    (made(Rows, samples=shuffled), "equal seeds give equal samples, whatever else is random"),
    (Drained, "equal seeds give equal samples, whatever else is random"),
    (
        made(Rows, samples=lambda self, seed: [PromptSample("q", {"at": (1, 2)})]),
        "a sample survives being written and read",
    ),
]


@pytest.mark.parametrize(("flawed", "promise"), DATASETS)
def test_a_flawed_dataset_is_told_which_promise_it_breaks_and_where(flawed, promise):
    caught(run_dataset_checks(flawed()), promise)


def test_a_sound_dataset_passes_and_every_promise_of_one_has_a_flawed_plugin():
    check_dataset(Rows())
    promises = {c.promise for c in run_dataset_checks(Rows())}
    assert promises == {promise for _, promise in DATASETS}
    with pytest.raises(PluginError, match="breaks 1 promises"):
        check_dataset(made(Rows, samples=shuffled)())


# --- stages ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Halve(Stage):
    """Halves the weights of a model and keeps the better answers."""

    name = "halve"
    reads_models: ClassVar = {"policy": Role(doc="what is halved")}
    reads_data: ClassVar = (GroupSample,)
    factor: float = option(0.5, "what the weights are multiplied by", gt=0)

    def run(self, inputs):
        out, source = inputs.folder / "model", Path(inputs.models["policy"].name)
        out.mkdir()
        for file in source.glob("*.json"):
            (out / file.name).write_bytes(file.read_bytes())
        weights = {
            name: self.factor * x for name, x in load_file(source / "model.safetensors").items()
        }
        save_file(weights, out / "model.safetensors", {"format": "pt"})
        rows = [{"prompt": s.prompt, "response": s.responses[0].text} for s in inputs.data]
        self.write(inputs, rows)
        inputs.log({"rows": len(rows)})

    def write(self, inputs, rows):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (inputs.folder / "data.jsonl").write_text(lines)


@dataclass
class Melted(Stage):
    """Halves the weights of a model."""

    name = "melted"
    factor: float = field(default=1.0)
    run = Halve.run


class Unread(Halve):
    """Halves what it does not declare."""

    reads_models: ClassVar = None


def nothing(self, inputs):
    inputs.log({})


def no_number(self, inputs):
    Halve.run(self, inputs)
    inputs.log({"loss": float("nan")})


def by_chance(self, inputs, rows):
    random.shuffle(rows)
    Halve.write(self, inputs, [*rows, {"prompt": str(random.random())}])


def torn(self, inputs, rows):
    (inputs.folder / "data.jsonl").write_text('{"answer": "no prompt"}\n')


def blank(self, inputs, rows):
    (inputs.folder / "data.jsonl").write_text("")


def hollow(self, inputs):
    Halve.run(self, inputs)
    (inputs.folder / "model/model.safetensors").unlink()


LEAVES = "it leaves a model or samples"
STAGES = [
    (made(Halve, __doc__=None), "docstring"),
    (Melted, "options are frozen and survive YAML"),
    (Melted, "options are explained"),
    (Unread, "it says which models and data it reads"),
    (made(Halve, reads_data=None), "it says which models and data it reads"),
    (made(Halve, run=nothing), LEAVES),
    (made(Halve, write=torn), LEAVES),
    (made(Halve, write=blank), LEAVES),
    (made(Halve, run=hollow), LEAVES),
    (made(Halve, run=no_number), "it logs finite numbers"),
    (made(Halve, write=by_chance), "equal inputs give equal files"),
]


@pytest.mark.parametrize(("flawed", "promise"), STAGES)
def test_a_flawed_stage_is_told_which_promise_it_breaks_and_where(flawed, promise):
    caught(run_stage_checks(flawed()), promise)


def test_a_sound_stage_passes_and_every_promise_of_one_has_a_flawed_plugin():
    check_stage(Halve())
    assert {c.promise for c in run_stage_checks(Halve())} == {promise for _, promise in STAGES}


# --- judges and benchmarks ------------------------------------------------------------------------


def moody(self, answers):
    return [Score(random.random()) for _ in answers]


JUDGES = [
    (
        made(Length, score=lambda self, answers: [Score(0.0)]),
        "one finite score per answer, in order",
    ),
    (made(Length, score=moody), "the same answers get the same scores"),
    (
        made(Length, score=lambda self, a: [Score(float(n)) for n, _ in enumerate(a)]),
        "a score does not depend on its neighbours",
    ),
    (made(Length, score=lambda self, a: [Score(0.0)] * max(1, len(a))), "no answers, no scores"),
    (made(Length, __doc__=None), "docstring"),
]


@pytest.mark.parametrize(("flawed", "promise"), JUDGES)
def test_a_flawed_judge_is_told_which_promise_it_breaks_and_where(flawed, promise):
    caught(run_judge_checks(flawed(), PROMPTS), promise)


def test_every_promise_of_a_scoring_judge_has_a_flawed_plugin():
    comparing = {promise for promise, _ in compare_trials(Length(), PROMPTS)}  # test_kit_compare.py
    found = {c.promise for c in run_judge_checks(Length(), PROMPTS)}
    assert found - comparing == {p for _, p in JUDGES} and comparing < found


@dataclass(frozen=True)
class Words(ScoredBenchmark):
    """Counts words."""

    name = "words"
    column: ClassVar = Column((0.5, 0.5), "half", better=1)

    def prompts(self, seed):
        return PROMPTS

    def measure(self, answers, baseline):
        return {"win_rate": self.column}


def drawn(self, seed):
    return [PromptSample(str(random.random()))]


BENCHMARKS = [
    (made(Words, prompts=drawn), "prompts depend on the seed alone"),
    (made(Words, __doc__=None), "docstring"),
    (
        made(Words, column=Column((0.5,), "half", better=1)),
        "columns hold a finite value per prompt",
    ),
    (made(Words, column=Column((0.9, 0.9), "tilted", better=1)), "a model ties with itself"),
    (made(Words, column=Column((0.5, 0.5), "", better=1)), "columns are explained"),
]


@pytest.mark.parametrize(("flawed", "promise"), BENCHMARKS)
def test_a_flawed_benchmark_is_told_which_promise_it_breaks_and_where(flawed, promise):
    caught(run_benchmark_checks(flawed()), promise)


def test_every_promise_of_a_benchmark_with_a_rule_has_a_flawed_plugin():
    checks = run_benchmark_checks(Words())
    assert all(c.kept for c in checks)
    assert {c.promise for c in checks} == {p for _, p in BENCHMARKS}
