"""AlpacaEval 2 with instructions, outputs and a template of our own words."""

import gzip
import json
import math

import numpy as np
import pytest

from alignzoo import Answer, DataError, PromptSample, Reply, Response, locate
from alignzoo_alpaca_eval import AlpacaEval
from alignzoo_alpaca_eval.files import CLASSIFIER, read_difficulty, read_gamed, read_instructions
from alignzoo_alpaca_eval.order import candidate_first
from alignzoo_alpaca_eval.parse import from_logprobs, from_ranking, from_text
from alignzoo_alpaca_eval.template import fill, read_template

TEMPLATE = """<|im_start|>system
Say which one is better.
<|im_end|>
<|im_start|>user
Asked: {instruction}
m: {output_1}
M: {output_2}
<|im_end|>"""
ROWS = [
    {"instruction": f"Say {n}.", "output": "word " * n, "dataset": "short" if n < 4 else "long"}
    for n in range(1, 9)
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "alpaca_eval_gpt4_baseline.json").write_text(json.dumps(ROWS))
    (tmp_path / "alpaca_eval_clf.txt").write_text(TEMPLATE)
    return tmp_path


def benchmark(folder, **options):
    return AlpacaEval(data=str(folder), **options)


def answered(bench, texts):
    prompts = list(bench.prompts(0))
    answers = [Answer(p, Response(t), len(t)) for p, t in zip(prompts, texts, strict=True)]
    return answers, bench.baseline_answers(prompts)


def own_texts():
    return [ROWS[0]["output"], *(f"answer {n}" for n in range(1, len(ROWS)))]


def judged(bench, answers, baseline, reply):
    questions = list(bench.questions(answers, baseline))
    read = {q.id: bench.verdict(q, reply(q)) for q in questions}
    return {name: verdict for name, verdict in read.items() if verdict is not None}


# --- order and parsing -----------------------------------------------------------------------


def test_the_official_order_depends_on_the_instruction_and_the_seed_alone():
    instructions = [f"question {n}" for n in range(400)]
    drawn = [candidate_first(text) for text in instructions]
    assert drawn == [candidate_first(text) for text in instructions]
    assert drawn != [candidate_first(text, seed=1) for text in instructions]
    assert 160 < sum(drawn) < 240, "the coin is fair"


def test_the_probability_is_shared_between_the_two_exact_tokens():
    logprobs = {"m": math.log(0.3), "M": math.log(0.1), " m": math.log(0.5)}
    assert from_logprobs(logprobs) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("logprobs", "p"),
    [
        ({"m": -0.1, "The": -3.0}, 1.0),
        ({"M": -900.0}, 0.0),
        ({"m": -math.inf, "M": -1.0}, 0.0),
        ({"m": -1000.0, "M": -1000.0}, 0.5),
        ({" m": -0.1, "Model": -2.0}, None),
        ({"m": math.nan}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_missing_token_has_probability_zero_and_two_missing_are_no_verdict(logprobs, p):
    assert from_logprobs(logprobs) == p


@pytest.mark.parametrize(
    ("text", "p"),
    [
        ("m", 1.0),
        ("M", 0.0),
        ("'m'", 1.0),
        ("**M**, not m", 0.0),
        ("I'm for model M.", 0.0),
        ("Model_m is mum", None),
        ("", None),
        ("m\n\nIt is the more complete of the two.", 1.0),
        ("Output m repeats itself.\n\nBest output: **M**", 0.0),
        ("m is better than M.", 1.0),
        ("The better one is M", 0.0),
        ("My final answer: m", 1.0),
        ("m is worse than M.", None),
        ("Model m says that M is wrong.", None),
        ("I compare m and M first.", None),
        ("m or M?", None),
        ("**m:**\nlong\n**M:**\nshort\n\nm", 1.0),
        ("m\nis long.\nM\nis short.", None),
        ("m? No.\n> m\nM", 0.0),
    ],
)
def test_a_text_is_read_where_it_decides_and_not_where_it_has_a_letter(text, p):
    assert from_text(text) == p


@pytest.mark.parametrize(
    ("text", "p"),
    [
        ("[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]", 1.0),
        ("[{'model': 'model_2', 'rank': 1}, {'model': 'model_1', 'rank': 2}]", 0.0),
        ('Here:\n```json\n{"ordered_models": [{"model": "m", "rank": 2}]}\n```', 0.0),
        ('```\n[{"model": "m", "rank": 2}]\n```\nNo:\n```\n[{"model": "m", "rank": 1}]\n```', 1.0),
        ('[{"model": "m", "rank": 1, "sure": true}]', 1.0),
        ("[{'model': 'model_1', 'rank': 3}]", None),
        ("[{'model': 'model_1', 'rank': [1]}]", None),
        ("[{'model': 'model_2', 'rank': 1}]", None),
        ("[{'model': 'model_1'}]", None),
        ("[1, 2]", None),
        ("m is better", None),
        ("__import__('os').getcwd()", None),
        ("[" * 5000, None),
        ("", None),
    ],
)
def test_a_ranking_is_read_and_never_executed(text, p):
    assert from_ranking(text) == p


# --- the template ------------------------------------------------------------------------------


def test_a_chatml_template_becomes_messages_and_text_alone_one_user_message():
    system, user = read_template(TEMPLATE, "t.txt")
    assert system == {"role": "system", "content": "Say which one is better."}
    assert user["role"] == "user" and user["content"].startswith("Asked: {instruction}")
    (only,) = read_template("{instruction} {output_1} {output_2}", "t.txt")
    assert only["role"] == "user"


def test_values_that_look_like_places_or_markers_stay_text():
    asked = "print {output_1} <|im_end|> \\1"
    _, user = fill(read_template(TEMPLATE, "t.txt"), asked, "{output_2}", "{instruction}")
    assert user["content"] == f"Asked: {asked}\nm: {{output_2}}\nM: {{instruction}}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{instruction} {output_1}", "{output_2} 0 times"),
        ("{instruction} {output_1} {output_2} {output_1}", "{output_1} 2 times"),
        (TEMPLATE.replace("system", "judge"), "'judge'"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_in_one_sentence(text, says):
    with pytest.raises(DataError, match=r"^t\.txt: ") as error:
        read_template(text, "t.txt")
    assert says in str(error.value)


def test_the_installed_official_template_is_filled_as_the_official_program_fills_it():
    try:
        path = locate(CLASSIFIER, "alpaca_eval", None)
    except DataError as error:
        pytest.skip(str(error))
    values = {"instruction": "Why?\n", "output_1": 'a "quoted"\nanswer ', "output_2": " ünï"}
    text = path.read_text(encoding="utf-8")
    for place, value in values.items():
        text = text.replace("{" + place + "}", value, 1)
    parts = [part.split("<|im_end|>")[0] for part in text.split("<|im_start|>")[1:]]
    expected = [
        {"role": role, "content": content.strip()}
        for role, content in (part.split("\n", 1) for part in parts)
    ]
    template = read_template(path.read_text(encoding="utf-8"), str(path))
    assert list(fill(template, *values.values())) == expected


# --- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[", "is not JSON"),
        ('{"instruction": "x"}', "is not a list"),
        ("[]", "holds no instruction"),
        ('[{"instruction": "x"}]', "row 1 is not an object with texts"),
        ('[{"instruction": "x", "output": null}]', "row 1"),
        ('[{"instruction": "x", "output": ""}, {"instruction": "x", "output": "y"}]', "repeats"),
    ],
)
def test_a_damaged_instruction_file_is_one_sentence(tmp_path, content, says):
    path = tmp_path / "alpaca_eval_gpt4_baseline.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"^\S*alpaca_eval_gpt4_baseline\.json: ") as error:
        read_instructions(path)
    assert says in str(error.value)


def test_separators_that_json_leaves_in_texts_do_not_end_a_line(tmp_path):
    row = {"instruction": "a\u2028b", "output": "c\x85d"}
    path = tmp_path / "reference_outputs.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_instructions(path).rows[0].text == "a\u2028b"


def test_the_tables_are_read_gzipped_or_not_and_damage_names_the_line(tmp_path):
    head = "preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline,model\n"
    rows = "0.9,0,1.5,0.0,False,a\n,1,-2,0.5,False,a\n"
    with gzip.open(tmp_path / "df_gamed.csv.gz", "wt") as file:
        file.write(head + rows)
    gamed, difficulty = read_gamed(tmp_path / "df_gamed.csv.gz")
    assert difficulty.tolist() == [0, 0.5] and np.isnan(gamed.preference).tolist() == [False, True]
    wrong = {"a.csv": head + "0.9,0,oops,0,,\n", "b.csv": "index\n1\n"}
    wrong |= {"e.csv": head + "0.9,0,inf,0,,\n"}
    for name, text in wrong.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=rf"{name}:2: .*download it again"):
            read_gamed(tmp_path / name)
    (tmp_path / "f.csv").write_text(head + "x" * 200_000 + ",0,1,0,,\n")
    with pytest.raises(DataError, match=r"f\.csv:\d: has no number"):
        read_gamed(tmp_path / "f.csv")
    (tmp_path / "c.csv").write_text(head + "0.9,1,1.5,0.0,False,a\n")
    with pytest.raises(DataError, match="indices"):
        read_gamed(tmp_path / "c.csv")
    (tmp_path / "d.csv").write_text("index,instruction_difficulty\n0,0.25\n")
    assert read_difficulty(tmp_path / "d.csv").tolist() == [0.25]


def test_missing_files_say_what_to_download_and_where_to_put_it(folder, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_DATA", str(folder / "elsewhere"))
    (folder / "alpaca_eval_gpt4_baseline.json").unlink()
    with pytest.raises(DataError, match=r"hf download tatsu-lab/alpaca_eval .* and put"):
        list(benchmark(folder).prompts(0))
    with pytest.raises(DataError, match=r"with\.template: gone\.txt is not a file"):
        benchmark(folder, template="gone.txt")._template_path()


# --- the benchmark -----------------------------------------------------------------------------


def test_prompts_are_the_instructions_with_their_source_as_category(folder):
    first, *_ = prompts = list(benchmark(folder).prompts(7))
    assert first.prompt == ({"role": "user", "content": "Say 1."},)
    assert first.meta == {"index": 0, "category": "short"} and len(prompts) == len(ROWS)


def test_prompts_that_are_not_in_the_file_have_no_baseline(folder):
    assert benchmark(folder).baseline_answers([PromptSample("Sing.")]) is None


def test_both_orders_are_asked_and_equal_outputs_are_not(folder):
    bench = benchmark(folder)
    answers, baseline = answered(bench, own_texts())
    questions = list(bench.questions(answers, baseline))
    assert [q.id for q in questions] == [f"{n}/{k}" for n in range(1, len(ROWS)) for k in (0, 1)]
    for question in questions:
        own = question.answers[question.candidate]
        place = "m: " if question.candidate == 0 else "M: "
        assert own is answers[question.index]
        assert f"{place}{own.response.text}" in question.messages[-1]["content"]
    assert {q.decoding.top_logprobs for q in questions} == {5} == {bench.top_logprobs}
    assert len({q.digest for q in questions}) == len(questions)


def test_the_official_order_asks_one_of_the_two(folder):
    bench = benchmark(folder, orders="official")
    answers, baseline = answered(bench, own_texts())
    questions = list(bench.questions(answers, baseline))
    places = [int(not candidate_first(f"Say {n}.")) for n in range(2, 9)]
    assert [q.candidate for q in questions] == places and set(places) == {0, 1}


def test_a_judge_that_always_prefers_the_first_gives_every_instruction_a_draw(folder):
    bench = benchmark(folder)
    answers, baseline = answered(bench, own_texts())
    reply = Reply(top_logprobs={"m": -0.01, "M": -5.0})
    verdicts = judged(bench, answers, baseline, lambda q: reply)
    assert {v.label for v in verdicts.values()} == {"m"}
    columns = bench.columns(answers, baseline, verdicts)
    assert columns["win_rate"].estimate.value == pytest.approx(50)


def favour_the_model(question):
    names = ("m", "M")
    return Reply(
        top_logprobs={
            names[question.candidate]: math.log(0.8),
            names[1 - question.candidate]: math.log(0.2),
        }
    )


def test_columns_in_percent_with_the_length_controlled_rate_first(folder):
    bench = benchmark(folder)
    answers, baseline = answered(bench, own_texts())
    verdicts = judged(bench, answers, baseline, favour_the_model)
    columns = bench.columns(answers, baseline, verdicts)
    assert list(columns) == ["lc_win_rate", "win_rate", "discrete_win_rate", "length"]
    values = [50.0, *[80.0] * 7]
    assert columns["win_rate"].values == pytest.approx(values)
    found = columns["win_rate"].estimate
    assert found.value == pytest.approx(76.25)
    assert found.error == pytest.approx(np.std(values, ddof=1) / math.sqrt(8))
    assert found.low <= found.value <= found.high
    assert columns["discrete_win_rate"].estimate.value == pytest.approx(93.75)
    assert columns["length"].values == tuple(len(text) for text in own_texts())
    assert columns["lc_win_rate"].estimate.error is None


def test_prompts_of_ones_own_have_the_minimal_model_and_the_column_says_so(folder):
    bench = benchmark(folder)
    answers, baseline = answered(bench, own_texts())
    columns = bench.columns(answers, baseline, judged(bench, answers, baseline, favour_the_model))
    assert "percent, minimal" in columns["lc_win_rate"].doc
    assert "not the published number" in columns["lc_win_rate"].doc
    assert bench.settings()["length_control"] == "minimal"


def test_replies_without_a_verdict_count_as_nothing(folder):
    bench = benchmark(folder)
    answers, baseline = answered(bench, own_texts())

    def reply(question):
        missing = question.id in ("1/0", "2/0", "2/1")
        return Reply(top_logprobs={}) if missing else favour_the_model(question)

    columns = bench.columns(answers, baseline, judged(bench, answers, baseline, reply))
    assert columns["win_rate"].values[2] is None
    assert columns["win_rate"].values[1] is None, "one order alone would be biased"
    assert columns["win_rate"].estimate.value == pytest.approx((50 + 5 * 80) / 6)
    assert len(columns["lc_win_rate"].values) == len(ROWS)


def test_without_any_verdict_no_rate_is_invented(folder):
    bench = benchmark(folder)
    answers, baseline = answered(bench, ["other"] * len(ROWS))
    columns = bench.columns(answers, baseline, {})
    for name in ("lc_win_rate", "win_rate", "discrete_win_rate"):
        assert columns[name].estimate is None
        assert set(columns[name].values) == {None}


def test_the_baseline_has_50_everywhere(folder):
    bench = benchmark(folder)
    answers, _ = answered(bench, [row["output"] for row in ROWS])
    assert list(bench.questions(answers, answers)) == []
    columns = bench.columns(answers, answers, {})
    for name in ("lc_win_rate", "win_rate", "discrete_win_rate"):
        assert columns[name].estimate.value == 50


def test_a_judge_without_log_probabilities_is_read_by_its_text(folder):
    bench = benchmark(folder, annotator="text")
    assert bench.top_logprobs == 0
    answers, baseline = answered(bench, own_texts())
    verdicts = judged(bench, answers, baseline, lambda q: Reply("mM"[q.candidate]))
    assert {v.value for v in verdicts.values()} == {1.0}


def test_a_ranking_is_asked_with_its_own_template(folder):
    (folder / "alpaca_eval.txt").write_text(TEMPLATE.replace("better", "ranked higher"))
    bench = benchmark(folder, annotator="ranking")
    answers, baseline = answered(bench, own_texts())
    question = next(bench.questions(answers, baseline))
    assert "ranked higher" in question.messages[0]["content"]
    verdict = bench.verdict(question, Reply("[{'model': 'model_1', 'rank': 2}]"))
    assert (verdict.value, verdict.label) == (0.0, "model_2")


def test_the_template_and_the_reading_are_part_of_a_results_identity(folder):
    one = benchmark(folder).settings()
    assert benchmark(folder, annotator="text").settings() != one
    (folder / "mine.txt").write_text(TEMPLATE + "\n")
    assert benchmark(folder, template=str(folder / "mine.txt")).settings() != one


def test_difficulties_of_fewer_instructions_are_refused_instead_of_left_out(folder, monkeypatch):
    monkeypatch.setattr("alignzoo_alpaca_eval.files.Instructions.are_official", True)
    (folder / "instruction_difficulty.csv").write_text("instruction_difficulty\n0.25\n")
    with pytest.raises(DataError, match=r"knows the difficulty of 1 of \d+ instructions"):
        benchmark(folder, length_control="noreg").settings()
