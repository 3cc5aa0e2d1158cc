"""Arena-Hard: reading verdicts, counting games, style control, files. Upstream's tables are checked
by tests/helpers/parity_arena_hard.py.
"""

import json
import math

import pytest
import yaml

from alignzoo import Answer, DataError, PromptSample, Question, Reply, Response, Verdict
from alignzoo.testing import check_benchmark
from alignzoo_arena_hard import REVISIONS, ArenaHard, distinct_labels, last_label
from alignzoo_arena_hard.benchmark import FOLLOW_UP

TEMPLATE = "Q: {question_1}\nA: {answer_1}\nB: {answer_2}"


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def answer_row(id, text, tokens=None):
    turn = {"content": text} | ({} if tokens is None else {"token_len": tokens})
    return {"question_id": id, "model_id": "m", "choices": [{"index": 0, "turns": [turn]}]}


def judgment_row(id, first, second, judge="j"):
    return {"question_id": id, "judge": judge, "games": [{"score": first}, {"score": second}]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three questions in upstream's form of 2024, with the baseline's answers."""
    monkeypatch.setenv("ALIGNZOO_DATA", str(tmp_path / "nothing"))
    place = tmp_path / "arena"
    lines(
        place / "question.jsonl",
        [
            {"question_id": f"q{i}", "cluster": "sums", "turns": [{"content": f"What is {i}+{i}?"}]}
            for i in range(3)
        ],
    )
    rows = [answer_row(f"q{i}", f"**{2 * i}**, I say", 5) for i in range(3)]
    lines(place / "model_answer" / "gpt-4-0314.jsonl", rows)
    write_config(place, prompt_template=[TEMPLATE])
    return place


def write_config(place, **changes):
    content = {"system_prompt": "Judge!", "prompt_template": TEMPLATE} | changes
    (place / "judge_config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def asked(folder, texts=("zero", "two", "four"), **options):
    """The benchmark, the candidate's answers and the baseline's."""
    benchmark = ArenaHard(data=str(folder), **options)
    prompts = list(benchmark.prompts(seed=0))
    own = [Answer(p, Response(t), len(t.split())) for p, t in zip(prompts, texts, strict=True)]
    return benchmark, own, benchmark.baseline_answers(prompts)


def question(candidate=1, turns=1):
    answer = Answer(PromptSample("?"), Response("."), 1)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    messages += [{"role": "assistant", "content": "a"}, {"role": "user", "content": "u"}][
        : 2 * (turns - 1)
    ]
    return Question("0/1", 0, (answer, answer), tuple(messages), candidate=candidate)


# --- reading ----------------------------------------------------------------------------------


def test_in_2024_all_labels_of_a_reply_must_agree():
    read = ArenaHard().verdict
    assert read(question(), Reply("[[A>B]] so: [[A>B]]")) == Verdict(0.0, 1.0, "A>B")
    assert read(question(), Reply("[[A>B]] or [[B>A]]")) is None
    assert distinct_labels("[[A>B]] [[A>B]] [[A=B]] [B>A]") == ("A>B", "A=B")


def test_in_2024_a_reply_without_a_label_is_followed_up_once():
    follow_up = ArenaHard().verdict(question(), Reply("Both are fine."))
    assert isinstance(follow_up, Question) and follow_up.id == "0/1"
    assert [m["content"] for m in follow_up.messages[-2:]] == ["Both are fine.", FOLLOW_UP]
    assert follow_up.digest != question().digest
    assert ArenaHard().verdict(follow_up, Reply("A tie, [[A=B]]")) == Verdict(0.5, 1.0, "A=B")
    assert ArenaHard().verdict(follow_up, Reply("I cannot say")) is None


def test_in_2025_the_last_label_wins_in_any_case_and_nothing_is_asked_again():
    read = ArenaHard(revision="2025").verdict
    assert read(question(), Reply("[[A>B]] no, [[b>>a]]")) == Verdict(1.0, 3.0, "B>>A")
    assert read(question(), Reply("[[a=b] after all: [B>A]")) == Verdict(1.0, 1.0, "B>A")
    assert read(question(), Reply("Both are fine.")) is None
    assert last_label("[A>B] [[A=B]] [B>A]") == ("A=B",), "double brackets go before single ones"


@pytest.mark.parametrize("label", ["A", "A>>>B", "B=A", ">"])
def test_a_label_that_2024_did_not_know_is_no_verdict(label):
    assert ArenaHard().verdict(question(), Reply(f"[[{label}]]")) is None


def test_mirrored_labels_mean_the_same_in_2025():
    game = REVISIONS["2025"].game
    for one, other in (("A>>B", "B<<A"), ("A>B", "B<A"), ("A=B", "B=A"), ("B>>A", "A<<B")):
        assert game(one, 1, 3) == game(other, 1, 3)


def test_the_value_is_the_candidates_wherever_it_was_shown():
    values = {
        label: [ArenaHard().verdict(question(place), Reply(f"[[{label}]]")) for place in (0, 1)]
        for label in ("A>>B", "A>B", "A=B", "B>A", "B>>A")
    }
    assert {k: [(v.value, v.weight) for v in pair] for k, pair in values.items()} == {
        "A>>B": [(1.0, 3.0), (0.0, 3.0)],
        "A>B": [(1.0, 1.0), (0.0, 1.0)],
        "A=B": [(0.5, 1.0), (0.5, 1.0)],
        "B>A": [(0.0, 1.0), (1.0, 1.0)],
        "B>>A": [(0.0, 3.0), (1.0, 3.0)],
    }


def test_a_strong_verdict_counts_as_often_as_the_recipe_says():
    assert ArenaHard(weight=1).verdict(question(), Reply("[[B>>A]]")).weight == 1.0


# --- questions and columns --------------------------------------------------------------------


def test_every_question_is_asked_in_both_orders(folder):
    benchmark, own, theirs = asked(folder)
    found = list(benchmark.questions(own, theirs))
    assert [q.id for q in found] == ["0/1", "0/2", "1/1", "1/2", "2/1", "2/2"]
    assert [q.candidate for q in found] == [1, 0] * 3
    assert all(q.answers[q.candidate] is own[q.index] for q in found)
    assert [dict(m) for m in found[2].messages] == [
        {"role": "system", "content": "Judge!"},
        {"role": "user", "content": "Q: What is 1+1?\nA: **2**, I say\nB: two"},
    ]
    assert (found[0].decoding.temperature, found[0].decoding.max_tokens) == (0.0, 4096)
    assert {q.id for q in asked(folder, games=1)[0].questions(own, theirs)} == {"0/1", "1/1", "2/1"}


def test_braces_in_answers_are_text(folder):
    benchmark, own, theirs = asked(folder, texts=("{answer_1} {", "}", "{{x}}"))
    said = [q.messages[1]["content"] for q in benchmark.questions(own, theirs)]
    assert [text.endswith(f"B: {a.response.text}") for text, a in zip(said[::2], own, strict=True)]
    assert "A: {answer_1} {\n" in said[1]


def test_prompts_and_baseline_are_read_in_the_form_of_2025_too(folder):
    lines(folder / "question.jsonl", [{"uid": "u1", "prompt": "Hi?", "cluster": "c"}])
    messages = [{"role": "user", "content": "Hi?"},
                {"role": "assistant", "content": {"answer": "Hello"}}]  # fmt: skip
    row = {"uid": "u1", "model": "b", "messages": messages, "metadata": {"token_len": 7}}
    lines(folder / "model_answer" / "gpt-4-0314.jsonl", [row])
    write_config(folder, prompt_template="{QUESTION}|{ANSWER_A}|{ANSWER_B}", max_tokens=16)
    benchmark, own, theirs = asked(folder, texts=("Yo",))
    assert own[0].prompt == ({"role": "user", "content": "Hi?"},)
    assert dict(own[0].sample.meta) == {"id": "u1", "cluster": "c"}
    assert theirs[0].n_tokens == 7
    first, second = benchmark.questions(own, theirs)
    assert [q.messages[1]["content"] for q in (first, second)] == ["Hi?|Hello|Yo", "Hi?|Yo|Hello"]
    assert first.decoding.max_tokens == 16


def test_columns_count_what_was_judged_and_leave_out_the_rest(folder):
    benchmark, own, theirs = asked(folder)
    verdicts = {"0/1": Verdict(1.0, 3.0), "0/2": Verdict(0.5), "2/1": Verdict(0.0)}
    found = benchmark.columns(own, theirs, verdicts)
    assert found["score"].values == (87.5, None, 0.0)
    assert found["score"].estimate.value == pytest.approx(70.0)
    assert found["score"].estimate.low <= 70 <= found["score"].estimate.high
    assert found["tokens"].values == (1.0, 1.0, 1.0)
    strict = asked(folder, revision="2025")[0].columns(own, theirs, verdicts)
    assert strict["score"].values == (87.5, None, None)


def test_without_any_verdict_there_is_no_number(folder):
    benchmark, own, theirs = asked(folder)
    found = benchmark.columns(own, theirs, {})
    judged = [column for name, column in found.items() if name != "tokens"]
    assert [column.estimate for column in judged] == [None] * 5
    assert {column.values for column in judged} == {(None, None, None)}


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_baseline_itself_has_half(folder, revision):
    benchmark, _, theirs = asked(folder, revision=revision)
    ties = {q.id: Verdict(0.5) for q in benchmark.questions(theirs, theirs)}
    found = benchmark.columns(theirs, theirs, ties)
    assert all(c.estimate.value == pytest.approx(50) for c in found.values() if c.estimate)


def test_length_is_counted_alike_for_both_when_the_recipe_says_so(folder):
    benchmark, _, theirs = asked(folder, tokenizer="words")
    assert benchmark.columns(theirs, theirs, {})["tokens"].values == (3.0, 3.0, 3.0)
    recorded = asked(folder)[0].columns(theirs, theirs, {})["tokens"].values
    assert recorded == (5.0, 5.0, 5.0)


def test_a_file_without_counts_is_measured_in_words_on_both_sides(folder):
    benchmark, own, theirs = asked(
        folder, texts=("zero it is", "it is two", "four, no doubt, four")
    )
    verdicts = {q.id: Verdict(0.5) for q in benchmark.questions(own, theirs)}
    found = benchmark.columns(own, theirs, verdicts)
    assert found["tokens"].note == "in words: its file has no counts of tokens"
    in_words = asked(folder, tokenizer="words")[0].columns(own, theirs, verdicts)
    assert found["equal_style"].estimate == in_words["equal_style"].estimate


def test_a_candidate_that_wins_everywhere_has_no_bootstrap_interval_of_its_own(folder):
    benchmark, own, theirs = asked(folder)
    verdicts = {q.id: Verdict(1.0) for q in benchmark.questions(own, theirs)}
    found = benchmark.columns(own, theirs, verdicts)
    assert (found["score"].estimate.value, found["score"].whole) == (100, 100)
    for name in ("score", "style_controlled", "equal_style", "length_controlled"):
        estimate = found[name].estimate
        assert estimate.low == estimate.high == estimate.value, "a point, shown as none or Wilson's"


def test_the_benchmark_keeps_its_contract(folder):
    check_benchmark(ArenaHard(data=str(folder)))


def test_settings_change_with_the_files_and_not_with_their_place(folder, tmp_path):
    before = ArenaHard(data=str(folder)).settings()
    folder.rename(tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere"
    assert ArenaHard(data=str(moved)).settings() == before
    write_config(moved, system_prompt="Judge harder!")
    assert ArenaHard(data=str(moved)).settings() != before


# --- the pool ---------------------------------------------------------------------------------


def write_pool(place, judge="j", **models):
    for name, (texts, labels) in models.items():
        rows = [answer_row(f"q{i}", text, 3) for i, text in enumerate(texts)]
        lines(place / "model_answer" / f"{name}.jsonl", rows)
        games = [judgment_row(f"q{i}", *pair, judge) for i, pair in enumerate(labels)]
        lines(place / "model_judgment" / judge / f"{name}.jsonl", games)


LABELS = [("A>B", "B>A"), ("B>>A", "A>>B"), ("A=B", None)]


def test_a_pool_shares_the_style_effect_and_is_part_of_the_settings(folder, tmp_path):
    texts = ["**bold** reply", "a\n- list", "plain"]
    write_pool(tmp_path / "pool", other=(texts, LABELS))
    alone, own, theirs = asked(folder, texts=("# long answer", "two", "4"))
    benchmark, *_ = asked(folder, pool=str(tmp_path / "pool"))
    verdicts = {"0/1": Verdict(1.0), "1/1": Verdict(0.0), "2/2": Verdict(1.0, 3.0)}
    pooled, single = (b.columns(own, theirs, verdicts) for b in (benchmark, alone))
    assert pooled["score"] == single["score"]
    assert pooled["style_controlled"].estimate != single["style_controlled"].estimate
    assert set(benchmark.settings()["pool"]["models"]) == {"other"}
    assert benchmark.settings()["pool"]["judge"] == "j"


def test_a_pool_does_not_count_the_evaluated_model_twice(folder, tmp_path):
    texts = ["# long answer", "two", "4"]
    write_pool(tmp_path / "pool", other=(texts, LABELS))
    alone, own, theirs = asked(folder, texts=texts)
    benchmark, *_ = asked(folder, pool=str(tmp_path / "pool"))
    verdicts = {"0/1": Verdict(1.0), "1/1": Verdict(0.0)}
    assert benchmark.columns(own, theirs, verdicts) == alone.columns(own, theirs, verdicts)


def test_a_pool_that_met_another_baseline_is_refused_before_anything_is_asked(folder, tmp_path):
    write_pool(tmp_path / "pool", other=(["a", "b", "c"], LABELS))
    benchmark, own, theirs = asked(folder, pool=str(tmp_path / "pool"))
    assert len(list(benchmark.questions(own, theirs))) == 6
    with pytest.raises(DataError, match=r"with\.pool: .* against gpt-4-0314"):
        list(benchmark.questions(own, own))


def test_a_pool_of_two_judges_or_without_answers_is_refused(folder, tmp_path):
    pool = tmp_path / "pool"
    benchmark, *_ = asked(folder, pool=str(pool))
    with pytest.raises(DataError, match=r"no model_judgment/<judge>/<model>\.jsonl"):
        benchmark.settings()
    write_pool(pool, one=(["x"], LABELS[:1]))
    write_pool(pool, judge="k", two=(["x"], LABELS[:1]))
    with pytest.raises(DataError, match="judgments of j and k; a pool has one judge"):
        benchmark.settings()
    (pool / "model_answer" / "two.jsonl").unlink()
    with pytest.raises(DataError, match=r"two\.jsonl has no answers; put them into"):
        benchmark.settings()


# --- files that are wrong ---------------------------------------------------------------------


def test_a_missing_config_says_what_to_fetch_and_where_to_put_it(folder):
    (folder / "judge_config.yaml").unlink()
    benchmark, own, theirs = asked(folder)
    with pytest.raises(DataError, match="template not found; get it with `curl"):
        next(iter(benchmark.questions(own, theirs)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system_prompt": None}, "no text under 'system_prompt'"),
        ({"prompt_template": ["a", "b"]}, "no text under 'prompt_template'"),
        ({"prompt_template": "{question_1} {answer_1}"}, "lacks the field {answer_2}"),
        ({"prompt_template": TEMPLATE + "{ref}"}, "has a field {ref}; known are {question_1}"),
        ({"prompt_template": TEMPLATE + "{"}, "unpaired braces"),
        ({"max_tokens": "many"}, "must be numbers"),
        ({"max_tokens": math.inf}, "must be numbers"),
        ({"temperature": math.nan}, "temperature must be 0 or more"),
        ({"prompt_template": TEMPLATE + "{question_1:>999999999}"}, "formats the field"),
    ],
)
def test_a_config_that_is_none_is_refused_in_one_sentence(folder, changes, message):
    write_config(folder, **changes)
    benchmark, own, theirs = asked(folder)
    with pytest.raises(DataError) as caught:
        next(iter(benchmark.questions(own, theirs)))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "question.jsonl:2: not JSON"),
        ("[" * 100_000, "question.jsonl:2: not JSON"),
        ("[1]", "question.jsonl:2: not a JSON object"),
        ('{"turns": [{"content": "x"}]}', "question.jsonl:2: no 'question_id'"),
        ('{"question_id": "x"}', "question.jsonl:2: no 'turns.0.content'"),
        ('{"question_id": "q0"}', "question.jsonl:2: question q0 again"),
        ('{"question_id": "x", "prompt": 3}', "question.jsonl:2: the question is not a text"),
    ],
)
def test_a_damaged_question_file_is_named_with_its_line(folder, line, message):
    first = (folder / "question.jsonl").read_text().splitlines()[0]
    (folder / "question.jsonl").write_text(f"{first}\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        list(ArenaHard(data=str(folder)).prompts(0))
    assert message in str(caught.value)


def test_a_baseline_without_an_answer_is_refused(folder):
    lines(folder / "model_answer" / "gpt-4-0314.jsonl", [answer_row("q0", "x", 1)])
    with pytest.raises(DataError, match="no answer of gpt-4-0314 to question q1 and 1 others"):
        asked(folder)


def test_a_tokenizer_nobody_has_is_refused(folder, tmp_path):
    benchmark, own, theirs = asked(folder, tokenizer=str(tmp_path))
    with pytest.raises(DataError, match=r"with\.tokenizer"):
        benchmark.columns(own, theirs, {})


@pytest.mark.parametrize("count", ["9", -9, 1.5, 10**400, None])
def test_a_count_on_file_that_is_none_is_left_to_the_words(folder, count):
    lines(
        folder / "model_answer" / "gpt-4-0314.jsonl",
        [answer_row(f"q{n}", "two words", tokens=count) for n in range(3)],
    )
    _, _, theirs = asked(folder)
    assert {answer.n_tokens for answer in theirs} == {2}
