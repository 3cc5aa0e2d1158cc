"""Judged results stay true when files have gaps, judges change, and verdicts come late."""

import json
from dataclasses import replace

import judged_plugins
import pytest
from alignzoo_judges.replay import Replay
from judged_files import LONG, recipe, rows, run
from judged_plugins import ASKED, Longer, registry

from alignzoo import Capabilities, PluginError, PromptSample, Response, Verdict
from alignzoo.contract.evaluation import Answer
from alignzoo.contract.verdicts import JudgeError
from alignzoo.judging import ask, open_journal, read
from alignzoo.leaderboard import read_leaderboard
from alignzoo.recipe.blocks import Recipe
from alignzoo.store.folders import model_folder

MUTE = {"name": "clerk", "with": {"mood": "mute"}}


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    ASKED.clear()


def file_of(place, texts):
    rows = [{"prompt": f"prompt {i}", "output": text} for i, text in texts.items()]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(place)


def duel(models, baseline, **more):
    block = {"benchmark": "longer", "models": models, "baseline": baseline, "judge": "clerk"}
    return Recipe.model_validate(
        {"name": "r", "model": models[0], "stages": [], "evaluate": [block | more]}
    )


def judgments(folder):
    (file,) = folder.glob("evaluations/01-longer/*ours.jsonl/judgments.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_gaps_in_both_files_leave_pairs_of_answers_to_the_same_prompt(tmp_path):
    theirs = file_of(tmp_path / "theirs.jsonl", {1: "b1", 2: "b2", 3: "b3"})
    ours = file_of(tmp_path / "ours.jsonl", {0: "a0", 1: "a1 and more", 2: "a"})
    run(duel([ours], theirs, partial=True), tmp_path / "r")
    (file,) = (tmp_path / "r/evaluations/01-longer").glob("*ours.jsonl/answers.jsonl")
    pairs = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(p["responses"], p["baseline"]) for p in pairs] == [
        (["a1 and more"], ["b1"]),
        (["a"], ["b2"]),
    ]
    cell = rows(tmp_path / "r")["ours.jsonl"]["columns"]["win_rate"]
    assert (cell["mean"], cell["diff_mean"]) == (0.5, 0.0)


def test_files_of_one_name_in_two_folders_are_two_models(tmp_path, monkeypatch):
    file_of(tmp_path / "work/a/out.jsonl", dict.fromkeys(range(4), "middle"))
    file_of(tmp_path / "a/out.jsonl", dict.fromkeys(range(4), "the longest of all"))
    file_of(tmp_path / "work/c.jsonl", dict.fromkeys(range(4), "longer than it"))
    monkeypatch.chdir(tmp_path / "work")
    run(duel(["../a/out.jsonl", "c.jsonl"], "a/out.jsonl"), tmp_path / "r")
    assert rows(tmp_path / "r")["c.jsonl"]["columns"]["win_rate"]["mean"] == 1.0
    names = ["a/b", "a--b", "/a/b", "../a/b", "./a/b", "a", "x" * 300, "x" * 301]
    assert len({model_folder(name) for name in names}) == len(names)
    assert model_folder("org/model") == "org--model"


def test_a_result_with_few_verdicts_does_not_pass_a_higher_bar_later(tmp_path):
    run(recipe(tmp_path, MUTE, min_parsed=0), tmp_path / "r")
    with pytest.raises(JudgeError, match="0 of 4"):
        run(recipe(tmp_path, MUTE), tmp_path / "r")
    assert len(ASKED) == 4


def test_results_with_other_verdicts_are_two_rows_whatever_the_order_of_the_runs(
    tmp_path, monkeypatch
):
    run(recipe(tmp_path, MUTE, min_parsed=0), tmp_path / "a")
    monkeypatch.setattr(judged_plugins.ClerkSession, "word", lambda self, question: "SECOND")
    run(recipe(tmp_path, MUTE, min_parsed=0), tmp_path / "b", again=True)
    for order in ("ab", "ba"):
        (section,) = read_leaderboard([tmp_path / name for name in order])
        found = [row.counts.parsed for row in section.rows if not row.is_baseline]
        assert sorted(found) == [0, 4]


def test_tokens_on_record_are_part_of_a_result(tmp_path):
    for n_tokens, name in ((3, "a"), (9, "b")):
        what = recipe(tmp_path)
        lines = [{"prompt": f"prompt {i}", "output": LONG[i], "n_tokens": n_tokens}
                 for i in range(4)]  # fmt: skip
        file = tmp_path / "ours.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        run(what, tmp_path / name)
    results = {rows(tmp_path / name)["ours.jsonl"]["result"] for name in "ab"}
    assert len(results) == 2


def test_replies_of_two_revisions_under_one_name_never_meet_in_a_result(tmp_path, monkeypatch):
    run(recipe(tmp_path, limit=2), tmp_path / "a")
    other = property(lambda self: Capabilities("clerk-1", "r2"))
    monkeypatch.setattr(judged_plugins.ClerkSession, "capabilities", other)
    with pytest.raises(JudgeError, match=r"now clerk-1 \(r2\).*by clerk-1 \(r1\).*revision"):
        run(recipe(tmp_path), tmp_path / "b")
    assert len(ASKED) == 2


def test_two_judges_of_one_plugin_are_told_apart_in_what_a_panel_leaves(tmp_path):
    contrary = {"name": "clerk", "with": {"mood": "contrary"}}
    run(recipe(tmp_path, ["clerk", contrary]), tmp_path / "r")
    assert {row["judge"] for row in judgments(tmp_path / "r")} == {"clerk#1", "clerk#2"}


def test_questions_with_one_id_are_the_benchmarks_error(tmp_path, monkeypatch):
    ask_all = Longer.questions
    monkeypatch.setattr(
        Longer, "questions", lambda self, a, b: (replace(q, id="0") for q in ask_all(self, a, b))
    )
    with pytest.raises(PluginError, match=r"'longer'.*one id"):
        run(recipe(tmp_path), tmp_path / "r")


def test_an_option_written_out_and_its_default_make_one_table(tmp_path):
    run(recipe(tmp_path), tmp_path / "a")
    run(recipe(tmp_path, **{"with": {"size": 4}}), tmp_path / "b")
    assert len(read_leaderboard([tmp_path / "a", tmp_path / "b"])) == 1


def insists(benchmark, question, reply):
    """Asks once more when a reply says nothing."""
    if reply.text in ("FIRST", "SECOND"):
        return Verdict(float(reply.text == "SECOND"), label=reply.text)
    again = ({"role": "user", "content": f"{question.messages[0]['content']} Decide!"},)
    return None if question.repeat else replace(question, messages=again, repeat=1)


def test_a_run_whose_follow_ups_found_no_verdict_can_be_replayed(tmp_path, monkeypatch):
    monkeypatch.setattr(Longer, "verdict", insists)
    monkeypatch.setattr(
        judged_plugins.ClerkSession, "word", lambda self, q: "hm" if q.index == 0 else "SECOND"
    )
    run(recipe(tmp_path, min_parsed=0.5), tmp_path / "r")
    assert [row.get("followed") for row in judgments(tmp_path / "r")][:3] == [True, None, None]
    benchmark, judge = Longer(), Replay(path=str(tmp_path / "r"))
    answers = [
        answer(prompt, text) for prompt, text in zip(benchmark.prompts(0), LONG, strict=True)
    ]
    theirs = [answer(prompt, "short") for prompt in benchmark.prompts(0)]

    def questions():
        return benchmark.questions(answers, theirs)

    with open_journal(judge) as journal:
        ask(benchmark, judge, questions, journal, again=False, report=lambda standing: None)
        found = [one.verdict and one.verdict.value for one in read(benchmark, questions(), journal)]
    assert found == [None, 1.0, 1.0, 1.0]


def answer(prompt: PromptSample, text: str) -> Answer:
    return Answer(prompt, Response(text), 1)


def test_follow_ups_of_questions_that_share_a_text_stay_within_the_judges_batch(monkeypatch):
    sizes = []
    replies = judged_plugins.ClerkSession.replies

    async def counted(self, questions):
        sizes.append(len(questions))
        return await replies(self, questions)

    def each(benchmark, question, reply):
        own = ({"role": "user", "content": f"{question.id}|a|b"},)
        return Verdict(1.0) if question.repeat else replace(question, messages=own, repeat=1)

    same = ({"role": "user", "content": "same|a|b"},)
    ask_all = Longer.questions
    monkeypatch.setattr(
        Longer, "questions", lambda s, a, b: (replace(q, messages=same) for q in ask_all(s, a, b))
    )
    monkeypatch.setattr(Longer, "verdict", each)
    monkeypatch.setattr(judged_plugins.ClerkSession, "replies", counted)
    monkeypatch.setattr(judged_plugins.Clerk, "batch_size", 2)
    benchmark, judge = Longer(), judged_plugins.Clerk()
    answers = [answer(prompt, "x") for prompt in benchmark.prompts(0)]
    with open_journal(judge) as journal:
        ask(benchmark, judge, lambda: benchmark.questions(answers, answers), journal, again=False,
            report=lambda standing: None)  # fmt: skip
    assert sizes == [1, 2, 2]


def test_a_preview_leaves_out_what_the_evaluation_leaves_out(tmp_path, capsys):
    from alignzoo.cli.evaluating.preview import preview_command

    preview_command(recipe(tmp_path, ours=LONG[:3], partial=True), registry(), {})
    assert "question 0" in capsys.readouterr().out
