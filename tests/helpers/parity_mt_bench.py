"""MT-Bench against the official program's numbers, on judgments of real models."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignzoo_mt_bench.benchmark import MTBench
from alignzoo_mt_bench.files import prompts_file, read_references, read_templates, references_file
from alignzoo_mt_bench.grades import overall, read_grade

from alignzoo import Answer, PromptSample, Question, Reply, Response

FOLDER = "mt_bench"
TOLERANCE = 1e-9
OFFICIAL = "gpt-4"  # whose references the recorded prompts hold
TITLES = {"First turn": "first_turn", "Second turn": "second_turn", "Average": "average"}
PRINTED = re.compile(r"^(\S+)(?: +[12])? +(\d+\.\d+)$", re.MULTILINE)


def check(folder: Path, expected: Mapping[str, Any]) -> set[tuple[str, ...]]:
    """Compare every number of the section; the key paths that were found equal."""
    checked: set[tuple[str, ...]] = set()
    for path in sorted((folder / FOLDER / "model_judgment").glob("*.jsonl")):
        if path.name in expected:
            rows = read_rows(path)
            found = figures(rows, folder / FOLDER)
            wanted = expected[path.name]
            checked |= {(FOLDER, path.name, *leaf) for leaf in equal(found, wanted, path.name)}
            if printed(wanted.get("official_printout", "")) == rounded(found, wanted):
                checked.add((FOLDER, path.name, "official_printout"))
    return checked


def equal(
    found: Mapping[str, Any], wanted: Mapping[str, Any], place: str
) -> Iterator[tuple[str, ...]]:
    """The paths of equal numbers; AssertionError at the first that differs."""
    for key in found.keys() & wanted.keys():
        if isinstance(found[key], dict):
            yield from ((key, *leaf) for leaf in equal(found[key], wanted[key], f"{place}.{key}"))
        else:
            assert abs(found[key] - wanted[key]) <= TOLERANCE, (
                f"{place}.{key}: {found[key]}, not {wanted[key]}"
            )
            yield (key,)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a judgment file with what our parser reads in each: (grade, words) or None."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row | {"read": read_grade(row["judgment"])} for row in rows]


def figures(rows: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """Everything the section holds beside the printout, from a file's rows."""
    models = dict.fromkeys(row["model"] for row in rows)
    read = [row["read"] for row in rows]
    return {
        "models": {m: model_figures([r for r in rows if r["model"] == m], folder) for m in models},
        "parse_mismatch_with_stored_score": sum(
            (grade[0] if grade else -1) != row["score"]
            for row, grade in zip(rows, read, strict=True)
        ),
        "backup_regex_used": sum(
            grade is not None and not grade[1].startswith("[[") for grade in read
        ),
    }


def model_figures(rows: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, float]:
    """One model's figures: those of the benchmark's own columns, and the counts."""
    grades = {turn: [r["read"] for r in rows if r["turn"] == turn and r["read"]] for turn in (1, 2)}
    twice = Counter((row["question_id"], row["turn"]) for row in rows)
    means = {
        "first_turn": overall([[grade] for grade, _ in grades[1]]),
        "second_turn": overall([[grade] for grade, _ in grades[2]]),
        "average": overall([[grade] for turn in (1, 2) for grade, _ in grades[turn]]),
    }
    if max(twice.values()) == 1:
        columns = by_benchmark(rows, folder)
        assert all(abs(columns[key] - means[key]) < TOLERANCE for key in means)
    return means | {
        "n_turn1": len(grades[1]),
        "n_turn2": len(grades[2]),
        "n_error": sum(row["read"] is None for row in rows),
        "n_duplicates": sum(twice.values()) - len(twice),
    }


def by_benchmark(rows: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, float]:
    """The three columns as a run computes them: prompts, questions, verdicts, columns."""
    benchmark = MTBench(str(folder), OFFICIAL)
    answers = [answer_of(prompt, ("", "")) for prompt in benchmark.prompts(0)]
    said = {f"{row['question_id']}/{row['turn']}": row["judgment"] for row in rows}
    verdicts = {
        question.id: verdict
        for question in benchmark.questions(answers, None)
        if question.id in said
        and (verdict := benchmark.verdict(question, Reply(said[question.id]))) is not None
    }
    columns = benchmark.columns(answers, None, verdicts)
    return {name: columns[name].estimate.value for name in TITLES.values()}


# --- the printed tables --------------------------------------------------------------------


def printed(text: str) -> dict[str, list[tuple[str, str]]]:
    """The official printout: by table, models and numbers in their order."""
    tables = re.split(r"#{10} (.+?) #{10}\n", text)[1:]
    return {
        TITLES[t]: PRINTED.findall(body) for t, body in zip(tables[::2], tables[1::2], strict=True)
    }


def rounded(
    found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> dict[str, list[tuple[str, str]]]:
    """Our numbers as the official tables show them: sorted, with the digits printed there."""
    tables = printed(wanted.get("official_printout", ""))
    return {
        table: [(m, f"{figure:.{digits(rows)}f}") for m, figure in ranked(found["models"], table)]
        for table, rows in tables.items()
    }


def ranked(models: Mapping[str, Any], table: str) -> list[tuple[str, float]]:
    """Models and one of their figures, best first."""
    return sorted(((m, f[table]) for m, f in models.items()), key=lambda pair: -pair[1])


def digits(rows: Sequence[tuple[str, str]]) -> int:
    """Decimals in a table."""
    return len(rows[0][1].partition(".")[2])


# --- recorded prompts ----------------------------------------------------------------------


def recorded_prompts(folder: Path) -> dict[str, dict[tuple[str, int], str]]:
    """By model, the user message of every question whose rendering was recorded."""
    found: dict[str, dict[tuple[str, int], str]] = {}
    for path in sorted((folder / FOLDER / "model_judgment").glob("*.jsonl")):
        for row in read_rows(path):
            if row.get("user_prompt"):
                own = found.setdefault(row["model"], {})
                own[str(row["question_id"]), row["turn"]] = row["user_prompt"]
    return found


def recovered_answers(
    recorded: Mapping[tuple[str, int], str], benchmark: MTBench, folder: Path
) -> list[Answer]:
    """The answers that the recorded second-turn prompts show, one per prompt.

    The texts around the answers are taken from the template by plain string replacement, apart
    from the code under test.
    """
    return [
        answer_of(prompt, replies(recorded[prompt.meta["id"], 2], prompt, folder))
        for prompt in benchmark.prompts(0)
    ]


def replies(shown: str, prompt: PromptSample, folder: Path) -> tuple[str, str]:
    """Both replies, cut out of a recorded second-turn prompt."""
    references = read_references(references_file(OFFICIAL, str(folder / FOLDER)))
    guide = references.get(prompt.meta["id"])
    name = "single-v1-multi-turn" if guide is None else "single-math-v1-multi-turn"
    text = read_templates(prompts_file(str(folder / FOLDER)))[name].text
    slots = {"question_1": prompt.prompt[0]["content"], "question_2": prompt.meta["second_turn"]}
    for slot, value in (
        slots | dict(zip(("ref_answer_1", "ref_answer_2"), guide or (), strict=False))
    ).items():
        text = text.replace("{" + slot + "}", value)
    before, between, after = re.split(r"\{answer_[12]\}", text)
    assert shown.startswith(before) and shown.endswith(after)
    first, second = shown[len(before) : len(shown) - len(after)].split(between)
    return first, second


def answer_of(prompt: PromptSample, turns: tuple[str, str]) -> Answer:
    """An answer with two replies."""
    return Answer(prompt, Response(turns[1]), len(turns[1].split()), (Response(turns[0]),))


def user_message(question: Question) -> str:
    """What the judge is shown."""
    return question.messages[-1]["content"]
