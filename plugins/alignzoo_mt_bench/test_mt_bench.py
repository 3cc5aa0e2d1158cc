import json
import math
import statistics

import pytest

from alignzoo import Answer, DataError, PromptSample, Reply, Response, Verdict
from alignzoo_mt_bench.benchmark import MTBench
from alignzoo_mt_bench.files import Template, read_questions, read_references
from alignzoo_mt_bench.grades import estimate, overall, read_grade, read_winner
from alignzoo_mt_bench.pairwise import MTBenchPairwise, outcome
from alignzoo_mt_bench.prompts import fill

QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["Name a {answer}.", "And one more?"]},
    {"question_id": 2, "category": "math", "turns": ["What is 2 + 3?", "And times 4?"]},
    {"question_id": 3, "category": "stem", "turns": ["Why is snow white?", "And ice?"]},
]
REFERENCES = [{"question_id": 2, "choices": [{"turns": ["5", "20"]}]}]
SINGLE = "Asked: {question}\nSaid: {answer}"
BOTH = "{question_1}|{answer_1}|{question_2}|{answer_2}"
PAIR = "{question}: {answer_a} or {answer_b}"
PAIR_BOTH = "{question_1} {answer_a_1} {answer_b_1} {question_2} {answer_a_2} {answer_b_2}"
TEMPLATES = {
    "single-v1": ("Be fair.", SINGLE),
    "single-math-v1": ("Be fair.", SINGLE + "\nRight: {ref_answer_1}"),
    "single-v1-multi-turn": ("Look at the second.\n\n", BOTH),
    "single-math-v1-multi-turn": ("Look at the second.", BOTH + "|{ref_answer_1}|{ref_answer_2}"),
    "pair-v2": ("Compare.", PAIR),
    "pair-math-v1": ("Compare.", PAIR + ", right: {ref_answer_1}"),
    "pair-v2-multi-turn": ("Compare.", PAIR_BOTH),
    "pair-math-v1-multi-turn": ("Compare.", PAIR_BOTH + " {ref_answer_1} {ref_answer_2}"),
}


def write_rows(path, rows):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def folder(tmp_path):
    templates = [
        {"name": name, "system_prompt": system, "prompt_template": text}
        for name, (system, text) in TEMPLATES.items()
    ]
    write_rows(tmp_path / "question.jsonl", QUESTIONS)
    write_rows(tmp_path / "judge_prompts.jsonl", templates)
    write_rows(tmp_path / "reference_answer" / "gpt-4-1106-preview.jsonl", REFERENCES)
    return tmp_path


def answers(benchmark, *turns):
    """One answer per prompt; its replies end with the number of the turn."""
    turns = turns or ("first", "second")
    earlier = tuple(Response(text) for text in turns[:-1])
    return [Answer(p, Response(turns[-1]), 1, earlier) for p in benchmark.prompts(0)]


def graded(benchmark, **said):
    """Columns when the judge says `said["_2_1"]` to question "2/1" and so on."""
    mine = answers(benchmark)
    asked = {question.id: question for question in benchmark.questions(mine, mine)}
    read = {
        id_: benchmark.verdict(asked[id_], Reply(text))
        for key, text in said.items()
        for id_ in [key[1:].replace("_", "/")]
    }
    known = {id_: verdict for id_, verdict in read.items() if verdict is not None}
    return benchmark.columns(mine, mine, known)


# --- reading replies -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "grade", "words"),
    [
        ("Good. Rating: [[8]]", 8, "[[8]]"),
        ("[[7.5]]", 7.5, "[[7.5]]"),
        ("[[7.]]", 7, "[[7.]]"),
        ("[[3]] or rather [[9]]", 3, "[[3]]"),
        ("As [1] says. [[9]]", 9, "[[9]]"),
        ("As [1] says: 9", 1, "[1]"),
        ("Rating: [10]", 10, "[10]"),
        ("[[11]]", 11, "[[11]]"),
        ("[[007]]", 7, "[[007]]"),
    ],
)
def test_the_first_double_bracket_is_the_grade_else_the_first_single_one(text, grade, words):
    assert read_grade(text) == (grade, words)


@pytest.mark.parametrize(
    "text", ["", "8", "[[eight]]", "[[8/10]]", "[[-1]]", "$ERROR$", "[[" + "9" * 400 + "]]"]
)
def test_a_reply_without_a_number_in_brackets_is_no_verdict(folder, text):
    assert read_grade(text) is None


def test_a_long_row_of_digits_is_read_in_no_time():
    assert read_grade("[[" + "1" * 200_000) is None


def test_a_judge_that_thinks_aloud_can_be_given_room(folder):
    benchmark = MTBench(str(folder), max_tokens=9000)
    asked = benchmark.questions(answers(benchmark), None)
    assert {question.decoding.max_tokens for question in asked} == {9000}


def test_a_number_outside_its_scale_is_no_verdict_unless_the_official_reading_is_named(folder):
    benchmark, official = MTBench(str(folder)), MTBench(str(folder), strict=False)
    (question, *_) = benchmark.questions(answers(benchmark), None)
    for text in ("[[0]]", "[[11]]", "[[1989]]", "In [1989] it was right."):
        assert benchmark.verdict(question, Reply(text)) is None
    assert benchmark.verdict(question, Reply("[[10]]")).value == 10
    by_references = MTBench(str(folder), "gpt-4")
    for named in (official, by_references):
        assert named.verdict(question, Reply("[[1989]]")) == Verdict(1989.0, label="[[1989]]")
    assert MTBench(str(folder), "gpt-4", strict=True).verdict(question, Reply("[[11]]")) is None


@pytest.mark.parametrize(
    ("text", "winner"),
    [("[[B]]", "[[B]]"), ("not [[B]] but [[A]]", "[[A]]"), ("[[C]]", "[[C]]"), ("[A]", None)],
)
def test_a_winner_is_the_first_known_label_in_the_order_a_b_c(text, winner):
    assert read_winner(text) == winner


# --- numbers -------------------------------------------------------------------------------


def test_the_average_is_over_rows_not_over_turns_or_questions():
    rows = [[8, 4], [7], []]
    assert overall(rows) == pytest.approx(19 / 3)
    assert overall([]) is None


def test_the_interval_treats_both_turns_of_a_question_as_one():
    apart = [[float(x)] for x in range(40)]
    together = [[float(x), float(x)] for x in range(40)]
    assert estimate(apart) == estimate(together)
    found = estimate(apart)
    half = 1.96 * statistics.pstdev(range(40)) / math.sqrt(40)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


def test_columns_count_only_what_was_read(folder):
    columns = graded(MTBench(str(folder)), _1_1="[[8]]", _1_2="[[4]]", _2_1="[[7]]", _3_1="bad")
    assert columns["average"].estimate.value == pytest.approx(19 / 3)
    assert columns["first_turn"].estimate.value == 7.5
    assert columns["second_turn"].estimate.value == 4
    assert columns["average"].values == (6, 7, None)
    assert columns["second_turn"].values == (4, None, None)
    assert columns["category/writing"].estimate.value == 6
    assert columns["category/stem"].estimate is None
    assert columns["length"].values == (11, 11, 11)


def test_without_a_single_grade_there_is_no_number(folder):
    for column in ("average", "first_turn", "second_turn", "category/math"):
        found = graded(MTBench(str(folder)), _1_1="bad")[column]
        assert (found.estimate, set(found.values)) == (None, {None})


def test_grades_outside_the_scale_are_counted(folder):
    said = {"_1_1": "[[11]]", "_1_2": "[[0]]", "_2_1": "[[10]]"}
    columns = graded(MTBench(str(folder), strict=False), **said)
    assert columns["out_of_range"].values == (2, 0, 0)
    assert columns["average"].estimate.value == 7
    assert columns["average"].note == "2 of 3 grades are outside 1 to 10 and count"
    assert "official reading" in columns["average"].doc
    usual = graded(MTBench(str(folder)), **said)["average"]
    assert (usual.estimate.value, usual.note) == (10, "")


# --- prompts, for the models and for the judge -----------------------------------------------


def test_models_are_asked_both_turns_with_the_settings_of_the_category(folder):
    benchmark = MTBench(str(folder))
    prompts = list(benchmark.prompts(0))
    assert prompts[1] == PromptSample(
        ({"role": "user", "content": "What is 2 + 3?"},),
        {"id": "2", "category": "math", "second_turn": "And times 4?"},
    )
    assert [benchmark.later_turns(p) for p in prompts] == [
        ("And one more?",),
        ("And times 4?",),
        ("And ice?",),
    ]
    assert [benchmark.sampling(p) for p in prompts] == [
        {"temperature": t, "max_new_tokens": 1024} for t in (0.7, 0.0, 0.1)
    ]


def test_an_unknown_category_is_sampled_like_writing(folder):
    prompt = PromptSample("x", {"category": "poetry"})
    assert MTBench(str(folder)).sampling(prompt)["temperature"] == 0.7


def test_a_judge_sees_the_template_of_the_category_and_turn(folder):
    benchmark = MTBench(str(folder))
    asked = {q.id: q for q in benchmark.questions(answers(benchmark), None)}
    shown = {id_: tuple(m["content"] for m in q.messages) for id_, q in asked.items()}
    assert shown == {
        "1/1": ("Be fair.", "Asked: Name a {answer}.\nSaid: first"),
        "1/2": ("Look at the second.\n\n", "Name a {answer}.|first|And one more?|second"),
        "2/1": ("Be fair.", "Asked: What is 2 + 3?\nSaid: first\nRight: 5"),
        "2/2": ("Look at the second.", "What is 2 + 3?|first|And times 4?|second|5|20"),
        "3/1": ("Be fair.", "Asked: Why is snow white?\nSaid: first"),
        "3/2": ("Look at the second.\n\n", "Why is snow white?|first|And ice?|second"),
    }
    assert {(q.decoding.max_tokens, q.decoding.temperature) for q in asked.values()} == {(2048, 0)}
    assert [q.index for q in asked.values()] == [0, 0, 1, 1, 2, 2]


def test_a_scoring_judge_scores_the_reply_to_the_turn(folder):
    benchmark = MTBench(str(folder))
    shown = [q.answers[0].turns for q in benchmark.questions(answers(benchmark), None)]
    assert shown[:2] == [("first",), ("first", "second")]
    (question, *_) = benchmark.questions(answers(benchmark), None)
    assert benchmark.scored(question, [6.5]).value == 6.5


def test_an_answer_that_looks_like_a_slot_stays_as_it_is():
    template = Template("t", "", "{{{question}}} {answer}")
    (message,) = fill(template, {"question": "{answer}", "answer": "{question}"})
    assert message == {"role": "user", "content": "{{answer}} {question}"}


def test_the_reference_file_is_named_or_given_by_its_path(folder):
    own = folder / "mine.jsonl"
    rows = [{"question_id": 2, "choices": [{"turns": ["five", "twenty"]}]}]
    write_rows(own, rows)
    write_rows(folder / "reference_answer" / "my-judge.jsonl", rows)
    by_path, by_name = MTBench(str(folder), str(own)), MTBench(str(folder), "my-judge")
    for benchmark in (by_path, by_name):
        asked = {q.id: q for q in benchmark.questions(answers(benchmark), None)}
        assert asked["2/1"].messages[1]["content"].endswith("Right: five")
    assert by_path.settings()["references_sha256"] == by_name.settings()["references_sha256"]
    assert by_path.settings()["references"] == "mine"


def test_every_file_decides_the_settings(folder):
    benchmark = MTBench(str(folder))
    files = ("question.jsonl", "judge_prompts.jsonl", "reference_answer/gpt-4-1106-preview.jsonl")
    for name in files:
        before = benchmark.settings()
        with (folder / name).open("a") as file:
            file.write("\n")
        assert benchmark.settings() != before


# --- what a user sees ------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [("only",), ("a", "b", "c")])
def test_answers_with_another_number_of_turns_are_refused(folder, turns):
    benchmark = MTBench(str(folder))
    with pytest.raises(DataError, match=r"question 1 has (one reply|3 replies); a reply to each"):
        list(benchmark.questions(answers(benchmark, *turns), None))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("question.jsonl", "the 80 questions not found; get it with `curl"),
        ("judge_prompts.jsonl", "the judge prompts not found; get it with `curl"),
        ("reference_answer/gpt-4-1106-preview.jsonl", "references of gpt-4-1106-preview not found"),
    ],
)
def test_a_missing_file_is_told_before_anything_is_sampled(folder, name, sentence, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_DATA", str(folder / "empty"))
    benchmark = MTBench(str(folder))
    mine = answers(benchmark)
    (folder / name).unlink()
    for ask in (lambda: benchmark.prompts(0), lambda: list(benchmark.questions(mine, None))):
        with pytest.raises(DataError, match=sentence) as error:
            ask()
        assert "\n" not in str(error.value)


def test_a_missing_reference_answer_is_told(folder):
    benchmark = MTBench(str(folder))
    write_rows(folder / "reference_answer" / "gpt-4-1106-preview.jsonl", [])
    with pytest.raises(DataError, match=r"no reference answer to question 2 \(math\)"):
        list(benchmark.questions(answers(benchmark), None))


def test_a_missing_judge_prompt_is_told(folder):
    benchmark = MTBench(str(folder))
    write_rows(folder / "judge_prompts.jsonl", [])
    with pytest.raises(DataError, match="has no 'single-v1'"):
        list(benchmark.questions(answers(benchmark), None))


def test_a_slot_that_nothing_fills_is_told():
    with pytest.raises(DataError, match=r"nothing fills \{anwser\} of judge prompt 't'"):
        fill(Template("t", "", "{anwser}"), {"answer": "x"})


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["not json"], ":1: not an object"),
        ([{}], ":1: has no `question_id`"),
        ([{"question_id": 1, "category": "a", "turns": ["one"]}], "`turns` is not two texts"),
        ([QUESTIONS[0], QUESTIONS[0]], ":2: a second question 1"),
    ],
)
def test_a_damaged_question_file_is_told_with_the_line(tmp_path, rows, sentence):
    write_rows(tmp_path / "q.jsonl", rows)
    with pytest.raises(DataError, match=sentence):
        read_questions(tmp_path / "q.jsonl")


def test_a_cut_file_and_one_that_is_no_text_are_told(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question_id": 1')
    with pytest.raises(DataError, match=":1: not JSON"):
        read_questions(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_questions(path)
    write_rows(path, [{"question_id": 1, "choices": []}])
    with pytest.raises(DataError, match="`turns` as MT-Bench"):
        read_references(path)


# --- pairwise --------------------------------------------------------------------------------


def test_the_second_game_swaps_the_answers(folder):
    benchmark = MTBenchPairwise(str(folder))
    mine, theirs = answers(benchmark, "m1", "m2"), answers(benchmark, "t1", "t2")
    asked = {q.id: q for q in benchmark.questions(mine, theirs)}
    assert len(asked) == 12
    shown = {id_: q.messages[1]["content"] for id_, q in asked.items() if id_.startswith("2/")}
    assert shown == {
        "2/1/1": "What is 2 + 3?: m1 or t1, right: 5",
        "2/1/2": "What is 2 + 3?: t1 or m1, right: 5",
        "2/2/1": "What is 2 + 3? m1 t1 And times 4? m2 t2 5 20",
        "2/2/2": "What is 2 + 3? t1 m1 And times 4? t2 m2 5 20",
    }
    for question in asked.values():
        assert question.answers[question.candidate].turns[0] == "m1"


def test_a_letter_is_read_by_the_side_the_candidate_stands_on(folder):
    benchmark = MTBenchPairwise(str(folder))
    mine = answers(benchmark)
    first, second, *_ = benchmark.questions(mine, mine)
    found = [
        [benchmark.verdict(q, Reply(f"[[{x}]]")).value for x in "ABC"] for q in (first, second)
    ]
    assert found == [[1, 0, 0.5], [0, 1, 0.5]]
    assert benchmark.verdict(first, Reply("[[D]]")) is None


@pytest.mark.parametrize(
    ("games", "result"),
    [((1, 1), 1), ((0, 0), 0), ((1, 0), 0.5), ((0.5, 0.5), 0.5), ((1, 0.5), 0.5), ((0, 0.5), 0.5)],
)
def test_a_match_is_won_only_when_both_games_are(games, result):
    assert outcome(*games) == result


def test_pairwise_shares_are_over_matches_with_two_readable_games(folder):
    columns = graded(
        MTBenchPairwise(str(folder)),
        **{"_1_1_1": "[[A]]", "_1_1_2": "[[B]]"},  # won
        **{"_1_2_1": "[[A]]", "_1_2_2": "[[A]]"},  # each order another winner
        **{"_2_1_1": "[[B]]", "_2_1_2": "[[A]]"},  # lost
        **{"_3_1_1": "[[A]]", "_3_1_2": "hm"},  # unreadable
    )
    shares = {name: c.estimate and c.estimate.value for name, c in columns.items()}
    third = pytest.approx(1 / 3)
    assert shares == {
        "win_rate_adjusted": 0.5,
        "wins": third,
        "losses": third,
        "ties": third,
        "first_turn": 0.5,
        "second_turn": 0.5,
        "consistency": pytest.approx(2 / 3),
        "length": None,
    }
    assert columns["win_rate_adjusted"].values == (0.75, 0, None)


def test_pairwise_needs_another_model(folder):
    benchmark = MTBenchPairwise(str(folder))
    with pytest.raises(DataError, match="compares two models; name the other"):
        list(benchmark.questions(answers(benchmark), None))
