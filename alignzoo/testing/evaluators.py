"""The promises of judges and benchmarks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from alignzoo.contract.evaluation import (
    Answer,
    Benchmark,
    Judge,
    RewardBenchmark,
    Score,
    scores_alone,
)
from alignzoo.contract.types import PromptSample, Response
from alignzoo.contract.verdicts import AskedJudge, JudgedBenchmark
from alignzoo.testing.checks import Check, Trial, documented, raise_broken, require, try_all
from alignzoo.testing.comparing import compare_trials
from alignzoo.testing.judged import SHOWN, TEXTS, asked_judge_trials, judged_benchmark_trials


def check_judge(judge: Judge, prompts: Sequence[PromptSample]) -> None:
    """Raise PluginError with every promise of the contract that a judge breaks."""
    raise_broken(judge.name, run_judge_checks(judge, prompts))


def run_judge_checks(judge: Judge, prompts: Sequence[PromptSample]) -> list[Check]:
    """Try a judge on short, empty and long answers to some prompts it understands.

    One that can only compare is not asked for scores.
    """
    if isinstance(judge, AskedJudge):
        return try_all(asked_judge_trials(judge, prompts), judge)
    answers = [
        Answer(prompt, Response(text, ended=bool(text)), len(text.split()))
        for prompt in prompts[:SHOWN]
        for text in TEXTS
    ]
    scored = try_all(_scorer(judge, answers), judge, "score") if scores_alone(type(judge)) else []
    compared = try_all(compare_trials(judge, prompts), judge, "compare")
    return [*scored, *compared, *try_all(_explains(judge), judge)]


def _explains(judge: Judge) -> Iterator[tuple[str, Trial]]:
    yield "docstring", lambda: documented(judge)


def _scorer(judge: Judge, answers: Sequence[Answer]) -> Iterator[tuple[str, Trial]]:
    yield "one finite score per answer, in order", lambda: _scores(judge, answers)
    yield "the same answers get the same scores", lambda: _repeat(judge, answers)
    yield "a score does not depend on its neighbours", lambda: _alone(judge, answers)
    yield "no answers, no scores", lambda: _none(judge)


def _scores(judge: Judge, answers: Sequence[Answer]) -> str:
    scores = judge.score(answers)
    require(len(scores) == len(answers), f"{len(scores)} scores for {len(answers)} answers")
    odd = [s for s in scores if not isinstance(s, Score) or not math.isfinite(s.value)]
    require(not odd, f"not a finite Score: {odd[:1]}")
    names = {tuple(sorted(score.features)) for score in scores}
    require(len(names) == 1, f"features differ between answers: {sorted(names)[:2]}")
    return f"{len(scores)} answers"


def _repeat(judge: Judge, answers: Sequence[Answer]) -> str:
    require(judge.score(answers) == judge.score(answers), "a second call gives other scores")
    return ""


def _alone(judge: Judge, answers: Sequence[Answer]) -> str:
    together = judge.score(answers)
    alone = [score for answer in reversed(answers) for score in judge.score([answer])]
    require(together == alone[::-1], "scored one by one, the scores differ")
    return ""


def _none(judge: Judge) -> str:
    require(list(judge.score([])) == [], "scores without answers")
    return ""


def check_benchmark(benchmark: Benchmark) -> None:
    """Raise PluginError with every promise of the contract that a benchmark breaks."""
    raise_broken(benchmark.name, run_benchmark_checks(benchmark))


def run_benchmark_checks(benchmark: Benchmark) -> list[Check]:
    """Try a benchmark on made-up answers to its first prompts, if it has any, or on rewards."""
    if isinstance(benchmark, RewardBenchmark):
        return try_all(_rewarded(benchmark), benchmark, "judge_rewards")
    first = try_all(_prompted(benchmark), benchmark, "prompts")
    return first + (try_all(_benchmark(benchmark), benchmark, "measure") if first[0].kept else [])


def _prompted(benchmark: Benchmark) -> Iterator[tuple[str, Trial]]:
    yield "prompts depend on the seed alone", lambda: _prompts(benchmark)
    yield "docstring", lambda: documented(benchmark)


def _benchmark(benchmark: Benchmark) -> Iterator[tuple[str, Trial]]:
    if isinstance(benchmark, JudgedBenchmark):
        yield from judged_benchmark_trials(benchmark)
        return
    yield "columns hold a finite value per prompt", lambda: _columns(benchmark)
    yield "a model ties with itself", lambda: _tie(benchmark)
    yield "columns are explained", lambda: _explained(benchmark)


def _rewarded(benchmark: RewardBenchmark) -> Iterator[tuple[str, Trial]]:
    yield "docstring", lambda: documented(benchmark)
    yield "columns hold a finite value per pair", lambda: _of_pairs(benchmark)


def _of_pairs(benchmark: RewardBenchmark) -> str:
    """Some above, some below, a tie, and numbers far apart."""
    chosen, rejected = (0.5, -1.0, 2.0, 1e9, 0.0), (0.25, 3.0, 2.0, -1e9, -0.0)
    columns = benchmark.judge_rewards(chosen, rejected)
    require(bool(columns), "no columns")
    for name, column in columns.items():
        known = [x for x in column.values if x is not None]
        require(len(column.values) == len(chosen), f"{name}: {len(column.values)} values")
        require(all(map(math.isfinite, known)), f"{name}: values are not finite")
        require(bool(column.doc), f"{name}: no doc")
    require(columns == benchmark.judge_rewards(chosen, rejected), "a second call differs")
    return ", ".join(columns)


def _prompts(benchmark: Benchmark) -> str:
    prompts = list(benchmark.prompts(0))
    require(bool(prompts), "no prompts")
    require(prompts == list(benchmark.prompts(0)), "the same seed gives other prompts")
    return f"{len(prompts)} prompts"


def _answers(benchmark: Benchmark) -> list[list[Answer]]:
    prompts = list(benchmark.prompts(0))[:SHOWN]
    return [[Answer(p, Response(t), len(t.split())) for t in TEXTS] for p in prompts]


def _columns(benchmark: Benchmark) -> str:
    answers = _answers(benchmark)
    columns = benchmark.measure(answers, answers)
    for name, column in columns.items():
        require(len(column.values) == len(answers), f"{name} has {len(column.values)} values")
        odd = [x for x in column.values if x is None or not math.isfinite(x)]
        require(not odd, f"{name} has a value that is not finite")
    return ", ".join(columns)


def _tie(benchmark: Benchmark) -> str:
    answers = _answers(benchmark)
    column = benchmark.measure(answers, answers).get("win_rate")
    if column is None:
        return "no win rate"
    odd = [x for x in column.values if x is None or abs(x - 0.5) > 1e-9]
    require(not odd, f"win rates {odd[:3]}")
    return "win rate .5"


def _explained(benchmark: Benchmark) -> str:
    answers = _answers(benchmark)
    columns = benchmark.measure(answers, None)
    judged = [name for name, column in columns.items() if column.better and not column.doc]
    require(not judged, f"no explanation of {', '.join(judged)}")
    return f"{len(columns)} columns"
