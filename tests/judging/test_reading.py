"""Only a reply's own, final verdict counts, and a reply that was cut or still thinking has none:
in every judged benchmark alike.
"""

import pytest
from judging_parts import QUICK, Grades, Teacher, questions

from alignzoo import Answer, JudgedBenchmark, PromptSample, Question, Reply, Response
from alignzoo.judging import ask, open_journal, read
from alignzoo.judging.read import meaning
from alignzoo.recipe.registry import load_plugins

RANKS = "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]"
LANGUAGES = {  # benchmark and options -> how its judge says "the first", or a grade; and the other
    ("alpaca_eval", "annotator=text"): ("m", "M"),
    ("alpaca_eval", "annotator=ranking"): (RANKS, RANKS.replace("1}", "2}", 1)),
    ("arena_hard", "revision=2024"): ("[[A>>B]]", "[[B>A]]"),
    ("arena_hard", "revision=2025"): ("[[A>>B]]", "[[B>A]]"),
    ("mt_bench", ""): ("Rating: [[2]]", "Rating: [[9]]"),
    ("mt_bench_pairwise", ""): ("[[A]]", "[[B]]"),
    ("pairwise", ""): ("Verdict: FIRST", "Verdict: SECOND"),
    ("pointwise", ""): ("Grade: [[2]]", "Grade: [[9]]"),
}
ALIKE = pytest.mark.parametrize("spoken", LANGUAGES, ids="-".join)


def benchmark(name, options):
    chosen = dict([options.split("=")]) if options else {}
    return load_plugins().benchmarks[name](**chosen)


def asked():
    """A question that has been followed up, so that no more is asked."""
    answer = Answer(PromptSample("?"), Response("."), 1)
    roles = ("system", "user", "assistant", "user")
    return Question("0", 0, (answer, answer), tuple({"role": r, "content": r} for r in roles))


def value(spoken, text, finish="stop"):
    said = meaning(benchmark(*spoken), asked(), Reply(text, finish=finish))
    return said and said.value


def test_every_judged_benchmark_of_the_zoo_is_tried_here():
    found = load_plugins().benchmarks
    judged = {name for name, cls in found.items() if issubclass(cls, JudgedBenchmark)}
    assert judged == {name for name, _ in LANGUAGES}


@ALIKE
def test_the_verdict_behind_the_reasoning_counts_and_drafts_do_not(spoken):
    draft, final = LANGUAGES[spoken]
    plain = value(spoken, final)
    assert plain is not None and plain != value(spoken, draft)
    assert value(spoken, f"<think>\n{draft}\n</think>\n{final}") == plain
    assert value(spoken, f"{draft}\n</think>\n{final}") == plain


@ALIKE
def test_a_reply_that_is_still_thinking_or_only_thought_has_no_verdict(spoken):
    draft, _ = LANGUAGES[spoken]
    for finish in ("length", "stop", None):
        assert value(spoken, f"<think>\n{draft}", finish) is None
        assert value(spoken, f"<think>The end may be\n{draft}\nbut", finish) is None
        assert value(spoken, f"<think>\n{draft}\n</think>", finish) is None


@ALIKE
def test_a_reply_that_was_cut_has_no_verdict_but_the_one_it_ends_with(spoken):
    draft, final = LANGUAGES[spoken]
    assert value(spoken, f"{draft}\nBut now, looking at", "length") is None
    assert value(spoken, final, "length") == value(spoken, final)


def test_follow_ups_show_the_judge_its_words_without_its_thoughts():
    first = Question("0", 0, asked().answers, asked().messages[:2])
    reply = Reply("<think>[[A>>B]]?</think>Both are good.", finish="stop")
    more = meaning(benchmark("arena_hard", ""), first, reply)
    assert more.messages[-2] == {"role": "assistant", "content": "Both are good."}


def test_the_journal_keeps_the_reply_as_it_came(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path))
    raw = "<think>[[2]]</think>[[9]]"
    teacher = Teacher({"grade 0": raw, "grade 1": "<think>[[2]]"})
    with open_journal(teacher) as journal:
        ask(Grades(), teacher, questions(2), journal,
            again=False, report=lambda standing: None, patience=QUICK)  # fmt: skip
        one, two = read(Grades(), questions(2)(), journal)
    assert (one.reply.text, one.verdict.value) == (raw, 9)
    assert (two.reply.text, two.verdict) == ("<think>[[2]]", None)
