"""The pairwise benchmark: prompts, questions, verdicts, columns, and the judge's instruction."""

import json
from dataclasses import replace

import pytest

from alignzoo import Answer, DataError, PromptSample, Reply, Response, Verdict
from alignzoo.testing import check_benchmark
from alignzoo_pairwise.benchmark import Pairwise, drawn_place
from alignzoo_pairwise.prompts import BUILT_IN, read_prompts
from alignzoo_pairwise.reading import preferred
from alignzoo_pairwise.template import fill


def answer(text, prompt="What is it?", earlier=(), **meta):
    response = Response(text)
    told = tuple(Response(t) for t in earlier)
    return Answer(PromptSample(prompt, meta), response, len(text.split()), told)


def questions(benchmark, ours, theirs):
    return list(benchmark.questions(ours, theirs))


def verdicts(benchmark, ours, theirs, words):
    """The verdicts when the judge's words are these, by the id of the question."""
    asked = {q.id: q for q in questions(benchmark, ours, theirs)}
    read = {i: benchmark.verdict(q, Reply(f"Verdict: {words[i]}")) for i, q in asked.items()}
    return {i: verdict for i, verdict in read.items() if verdict is not None}


# --- the contract ------------------------------------------------------------------------------


@pytest.mark.parametrize("orders", ["both", "one"])
def test_it_keeps_the_contract(orders):
    check_benchmark(Pairwise(orders=orders))


def test_its_own_prompts_have_ids_and_several_categories():
    prompts = list(Pairwise().prompts(0))
    assert len(prompts) == 21 == len({p.meta["id"] for p in prompts})
    assert len({p.meta["category"] for p in prompts}) >= 5
    assert len(list(Pairwise(size=3).prompts(0))) == 3


def test_the_settings_change_with_prompts_and_template(tmp_path):
    (tmp_path / "p.txt").write_text("One?\n")
    (tmp_path / "t.md").write_text("{prompt} {first} {second}")
    usual = Pairwise().settings()
    assert Pairwise(prompts_file=str(tmp_path / "p.txt")).settings()["prompts"] != usual["prompts"]
    assert Pairwise(template=str(tmp_path / "t.md")).settings()["template"] != usual["template"]
    assert usual["parser"] == 2


# --- prompts -----------------------------------------------------------------------------------


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_text_file_has_a_prompt_in_every_line(tmp_path):
    found = list(read_prompts(write(tmp_path / "p.txt", "One?\n\n Two? \n")))
    assert [(p.prompt, p.meta["id"]) for p in found] == [("One?", 1), ("Two?", 2)]


def test_rows_may_call_the_prompt_by_any_usual_name_and_keep_their_meta(tmp_path):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    rows = [
        {"prompt": "A", "id": "x", "category": "c", "meta": {"seed": 3}},
        {"instruction": "B", "input": "more"},
        {"messages": chat},
        {"turns": ["D", "and then?"]},
    ]
    one, two, three, four = read_prompts(write(tmp_path / "p.json", json.dumps(rows)))
    assert one == PromptSample("A", {"seed": 3, "id": "x", "category": "c"})
    assert two.prompt == "B\n\nmore"
    assert three.prompt == tuple(chat)
    assert (four.prompt, Pairwise().later_turns(four)) == ("D", ("and then?",))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": 3}', "p.jsonl:2: prompt is neither"),
        ("p.jsonl", '{"prompt": "a"}\n{"pro', "p.jsonl:2: not JSON"),
        ("p.jsonl", '{"text": "a"}', "no prompt under prompt"),
        ("p.jsonl", '{"turns": []}', "turns is not a list of texts"),
        ("p.json", '{"prompt": "a"}', "not a list of prompts"),
        (
            "p.jsonl",
            '{"messages": [{"role": "assistant", "content": "a"}]}',
            "the last message must be the user's, not the assistant's",
        ),
    ],
)
def test_a_bad_row_is_named_with_its_place(tmp_path, name, text, words):
    with pytest.raises(DataError) as error:
        list(read_prompts(write(tmp_path / name, text)))
    assert words in str(error.value)


def test_an_absent_file_or_template_is_found_before_anything_runs(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        Pairwise(prompts_file=str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="unknown kind of file"):
        Pairwise(prompts_file=str(write(tmp_path / "p.csv", "")))
    with pytest.raises(DataError, match="no readable template"):
        Pairwise(template=str(tmp_path / "none.md"))
    with pytest.raises(DataError, match=r"no \{first\}, \{second\}"):
        Pairwise(template=str(write(tmp_path / "t.md", "{prompt}")))


# --- questions ---------------------------------------------------------------------------------


def test_both_orders_show_the_pair_once_each_way_round():
    one, two = questions(Pairwise(), [answer("ours")], [answer("theirs")])
    assert [q.candidate for q in (one, two)] == [0, 1]
    assert [[a.response.text for a in q.answers] for q in (one, two)] == [
        ["ours", "theirs"],
        ["theirs", "ours"],
    ]
    assert one.digest != two.digest
    text = one.messages[0]["content"]
    assert text.index("What is it?") < text.index("ours") < text.index("theirs")


def test_one_order_depends_on_the_prompt_and_not_on_the_answers():
    prompts = [f"prompt {i}" for i in range(200)]
    places = [drawn_place(answer("a", prompt)) for prompt in prompts]
    assert places == [drawn_place(answer("b", prompt)) for prompt in prompts]
    assert 70 < sum(places) < 130
    asked = questions(
        Pairwise(orders="one"), [answer("a", p) for p in prompts], [answer("b", p) for p in prompts]
    )
    assert [q.candidate for q in asked] == places


def test_equal_answers_are_not_asked_about_and_are_a_tie():
    ours, theirs = [answer("same"), answer("a")], [answer("same"), answer("b")]
    assert {q.index for q in questions(Pairwise(), ours, theirs)} == {1}
    assert Pairwise().columns(ours, theirs, {})["win_rate"].values == (0.5, None)


def test_without_a_baseline_there_is_nothing_to_ask():
    with pytest.raises(DataError, match="name the other one with `baseline`"):
        questions(Pairwise(), [answer("a")], None)


def test_slots_are_filled_at_once_so_that_braces_in_an_answer_stay():
    filled = fill(
        "{prompt}|{first}|{second}", answer("{second}", "{first}"), answer("x{0}{prompt}")
    )
    assert filled == "{first}|{second}|x{0}{prompt}"


def test_a_conversation_is_shown_with_its_speakers():
    chat = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"})
    prompt = (*chat, {"role": "user", "content": "Well?"})
    filled = fill("{prompt}", answer("a", prompt), answer("b", prompt))
    assert filled == "User: Hi\n\nAssistant: Hello\n\nUser: Well?"


def test_answers_of_several_turns_are_shown_as_the_whole_exchange():
    first = answer("two", "P", earlier=("one",), turns=["and then?"])
    filled = fill("{first}", first, answer("x", "P"))
    assert filled == "Assistant: one\n\nUser: and then?\n\nAssistant: two"


# --- replies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "word"),
    [
        ("Good.\n\nVerdict: FIRST", "first"),
        ("verdict: second.", "second"),
        ("**Verdict:** TIE", "tie"),
        ("**Verdict: SECOND**\n", "second"),
        ("Final verdict - [[FIRST]]", "first"),
        ("My verdict is: the second answer", "second"),
        ("# Verdict\n\nTIE", "tie"),
        ("Verdict: FIRST\nNo, wait.\nVerdict: SECOND", "second"),
        ("Both are fine.\nTIE", "tie"),
        ("<think>Verdict: FIRST</think>\nVerdict: SECOND", "second"),
        ("<think>Verdict: FIRST", None),
        ("Verdict: FIRST, SECOND or TIE", None),
        ("Verdict: FIRST/SECOND", None),
        ("Verdict: FIRST\nThe second answer is wrong.", "first"),
        ("Verdict: first or second", None),
        ("Verdict: FIRST (second has a mistake)", "first"),
        ("Verdict: ...", None),
        ("The first answer is better.", None),
        ("Verdict: FIRSTLY", None),
        ("", None),
        ("To reach a verdict, first weigh both: only 2 is right.\n\nSECOND wins.", "second"),
        ("Before giving a verdict, first I would need the question.", None),
        ("My verdict is the first answer is weaker.\n\n**SECOND**", "second"),
        ("The verdict: second answer is wrong.\n\nFinal decision: FIRST", "first"),
        ("Verdict: FIRST\n\nNote: this verdict, second only to correctness.", "first"),
        (
            "Verdict: FIRST\n\nI would not revisit this verdict. Second thoughts help no one.",
            "first",
        ),
        ("Verdict: SECOND\n\n(The verdict: first read both, then compare.)", "second"),
        ("Verdict: \u200bSECOND", "second"),
        ("**Verdict:** `SECOND`", "second"),
        ("Verdict: Second answer", "second"),
        ("Verdict: It is a TIE", "tie"),
        ("Verdict: FIRST?\nLet me see.", None),
        ("The second answer ends so:\n> Verdict: SECOND\nI cannot decide", None),
        ("Answer 1 says 'Verdict: FIRST' to win me over. I cannot decide", None),
        ("'Verdict: FIRST'\nis what answer 1 says. I cannot decide", None),
        ("Verdict: FIRST (or SECOND)", None),
        ("Verdict: the first answer is worse", None),
        ("The winner is FIRST.", "first"),
        ("Verdict: FIRST\nNo.\n**SECOND**", "second"),
    ],
)
def test_a_reply_is_read_as_a_person_would(reply, word):
    assert preferred(reply) == word


def test_a_verdict_is_seen_from_the_candidates_side():
    benchmark = Pairwise()
    one, two = questions(benchmark, [answer("ours")], [answer("theirs")])
    said = Reply("Verdict: FIRST")
    assert benchmark.verdict(one, said) == Verdict(1.0, label="FIRST")
    assert benchmark.verdict(two, said) == Verdict(0.0, label="FIRST")
    assert benchmark.verdict(one, Reply("Verdict: TIE")).value == 0.5
    assert benchmark.verdict(one, Reply("no idea")) is None


def test_a_judge_that_scores_fits_too():
    one, two = questions(Pairwise(), [answer("ours")], [answer("theirs")])
    assert Pairwise().scored(one, (3.0, 1.0)).value == Pairwise().scored(two, (1.0, 3.0)).value == 1


# --- columns -----------------------------------------------------------------------------------

OURS = [answer(f"ours {i}", f"prompt {i}") for i in range(3)]
THEIRS = [answer(f"theirs {i}", f"prompt {i}") for i in range(3)]


def columns(words, benchmark=None):
    benchmark = benchmark or Pairwise()
    said = verdicts(benchmark, OURS, THEIRS, words)
    found = benchmark.columns(OURS, THEIRS, said)
    return {name: column.values for name, column in found.items()}


def test_win_rate_is_the_mean_of_both_orders_and_disagreement_is_a_tie():
    found = columns(
        {"0/1": "FIRST", "0/2": "SECOND",  # ours, twice
         "1/1": "FIRST", "1/2": "FIRST",  # whatever is first
         "2/1": "TIE", "2/2": "FIRST"}  # a tie, and theirs
    )  # fmt: skip
    assert found["win_rate"] == (1.0, 0.5, 0.25)
    assert found["consistency"] == (1.0, 0.0, 0.0)
    assert found["first_bias"] == (0.5, 1.0, 0.75)
    assert found["length"] == (2.0, 2.0, 2.0)


def test_a_prompt_with_half_its_verdicts_has_no_value():
    found = columns(
        {"0/1": "FIRST", "0/2": "?", "1/1": "?", "1/2": "?", "2/1": "TIE", "2/2": "TIE"}
    )
    assert found["win_rate"] == (None, None, 0.5)
    assert found["consistency"] == (None, None, 1.0)
    assert found["first_bias"] == (None, None, 0.5)


def test_with_one_order_there_is_no_consistency_to_speak_of():
    benchmark = Pairwise(orders="one")
    asked = questions(benchmark, OURS, THEIRS)
    words = {q.id: "FIRST" if q.candidate == 0 else "SECOND" for q in asked}
    found = columns(words, benchmark)
    assert found["win_rate"] == (1.0, 1.0, 1.0)
    assert "consistency" not in found


def test_the_mean_of_a_panel_is_a_verdict_like_any_other():
    said = {"0/1": Verdict(0.75), "0/2": Verdict(1.0), "1/1": Verdict(0.25), "1/2": Verdict(0.75)}
    found = Pairwise().columns(OURS, THEIRS, said)
    assert found["win_rate"].values == (0.875, 0.5, None)
    assert found["consistency"].values == (1.0, 0.0, None)


def test_the_files_that_come_with_it_are_in_its_folder():
    assert BUILT_IN.is_file()
    assert replace(Pairwise(), size=2).size == 2
