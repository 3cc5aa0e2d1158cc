"""Other programs' answers are read as they are, and no row is lost without a word."""

import gzip
import json
from pathlib import Path

import pytest
from shared_data import shared

from alignzoo.contract.errors import DataError
from alignzoo.contract.types import GroupSample, PromptSample, Response
from alignzoo.data.rows import row_from_sample
from alignzoo.judging.outputs import looks_like_outputs, match, read_outputs

CHAT = [{"role": "user", "content": "Hi?"}]
ARENA = {
    "question_id": "q1",
    "model_id": "m",
    "choices": [{"index": 0, "turns": [{"content": "Hello.", "token_len": 7}]}],
    "conv_metadata": {"bold_count": {"**": 0}},
}
ARENA_LATER = {
    "uid": "q1",
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be kind."},
        *CHAT,
        {"role": "assistant", "content": {"answer": "Hello."}},
    ],
    "metadata": {"token_len": 7},
}
MT = {"question_id": 81, "model_id": "m", "choices": [{"turns": ["Hello.", "Bye."]}]}


def written(folder, *rows, name="outputs.jsonl"):
    path = folder / name
    text = json.dumps(list(rows)) if ".jsonl" not in name else "\n".join(map(json.dumps, rows))
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi?", "output": "Hello."},
        {"instruction": "Hi?", "response": "Hello.", "generator": "m", "dataset": "helpful_base"},
        {"question": "Hi?", "answer": "Hello.", "label": "anything"},
        {"messages": CHAT, "completion": "Hello."},
        {"messages": [*CHAT, {"role": "assistant", "content": "Hello."}]},
        {"prompt": "Hi?", "responses": ["Hello."], "scores": None},
        row_from_sample(GroupSample("Hi?", (Response("Hello.", (5, 6, 2)),))),
        ARENA,
        ARENA_LATER,
        {"question_id": "q1", "choices": [{"turns": ["Hello."]}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["o.jsonl", "o.json", "o.jsonl.gz", "o.json.gz"])
def test_every_known_form_of_a_row_gives_its_answer(tmp_path, row, name):
    prompt = PromptSample("Hi?", {"id": "q1"})
    outputs = read_outputs(written(tmp_path, row, name=name))
    assert [output.turns for output in outputs] == [("Hello.",)]
    assert [answer.turns for answer in match(outputs, [prompt], name)] == [("Hello.",)]
    assert match(outputs, [prompt], name)[0].sample is prompt


def test_a_text_prompt_and_one_user_message_are_the_same_prompt(tmp_path):
    outputs = read_outputs(written(tmp_path, {"prompt": "Hi?", "output": "Hello."}))
    assert match(outputs, [PromptSample(tuple(CHAT))], "o")[0].response.text == "Hello."


def test_both_turns_of_mt_bench_answers_are_kept(tmp_path):
    (answer,) = match(
        read_outputs(written(tmp_path, MT)), [PromptSample("Hi?", {"id": 81})], "outputs"
    )
    assert answer.turns == ("Hello.", "Bye.")
    assert answer.response.text == "Bye."


def test_earlier_replies_of_a_run_of_ours_are_kept(tmp_path):
    row = {"prompt": "Hi?", "responses": ["Bye."], "turns": [["Hello."]], "meta": {"id": "81"}}
    (output,) = read_outputs(written(tmp_path, row))
    assert (output.turns, output.id) == (("Hello.", "Bye."), "81")


@pytest.mark.parametrize(
    ("row", "n"),
    [
        (ARENA, 7),
        (ARENA_LATER, 7),
        ({"prompt": "Hi?", "output": "three words here"}, 3),
        ({"prompt": "Hi?", "output": "three words here", "meta": {"token_len": 4}}, 4),
        ({"prompt": "Hi?", "responses": ["three words here"], "n_tokens": 5}, 5),
        ({"prompt": "Hi?", "responses": [{"text": "Hello.", "ids": [5, 6, 2]}]}, 2),
    ],
    ids=str,
)
def test_tokens_are_those_the_file_counts_else_words(tmp_path, row, n):
    outputs = read_outputs(written(tmp_path, row))
    assert match(outputs, [PromptSample("Hi?", {"id": "q1"})], "o")[0].n_tokens == n


def test_who_answered_and_what_the_file_says_about_it_is_kept(tmp_path):
    (output,) = read_outputs(written(tmp_path, ARENA))
    assert output.generator == "m"
    assert output.meta["conv_metadata"] == {"bold_count": {"**": 0}}


def test_answers_come_in_the_order_of_the_prompts_and_others_are_left_out(tmp_path):
    rows = [{"prompt": text, "output": text.upper()} for text in "abc"]
    outputs = read_outputs(written(tmp_path, *rows))
    found = match(outputs, [PromptSample("c"), PromptSample("a")], "outputs")
    assert [answer.response.text for answer in found] == ["C", "A"]


def test_an_id_does_not_pair_a_row_with_another_text(tmp_path):
    outputs = read_outputs(written(tmp_path, {"id": "1", "prompt": "x", "output": "y"}))
    with pytest.raises(DataError, match="answers 0 of the 1 prompts"):
        match(outputs, [PromptSample("z", {"id": "1"})], "o.jsonl")


def test_equal_prompts_are_told_apart_by_their_ids(tmp_path):
    rows = [{"id": i, "prompt": "x", "output": f"y{i}"} for i in (1, 2)]
    outputs = read_outputs(written(tmp_path, *rows))
    found = match(outputs, [PromptSample("x", {"id": i}) for i in (2, 1)], "o.jsonl")
    assert [answer.response.text for answer in found] == ["y2", "y1"]
    with pytest.raises(DataError, match=r":2: answers the same prompt as .*:1"):
        match(outputs, [PromptSample("x")], "o.jsonl")


def test_a_missing_answer_is_counted_and_named(tmp_path):
    outputs = read_outputs(written(tmp_path, {"prompt": "a", "output": ""}))
    with pytest.raises(DataError) as error:
        match(outputs, [PromptSample("a"), PromptSample("b" * 99, {"id": 7})], "o.jsonl")
    assert str(error.value).startswith(
        f"o.jsonl: answers 1 of the 2 prompts; first missing: 7 ('{'b' * 60}...'); with `partial"
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "a", "output": "b"}] * 2, ":2: answers the same prompt as .*:1; keep one"),
        ([MT, MT], ":2: answers the same prompt as .*:1"),
        ([{"prompt": "a"}], ":1: a prompt without an answer; the row has prompt"),
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}], ":1: chosen and rejected, which"),
        ([{"prompt": "a", "responses": ["b", "c"]}], ":1: 2 answers; keep the one"),
        ([{"prompt": "a", "output": 3}], ":1: output is a number"),
        ([{"output": "b"}], ":1: no prompt"),
        ([{"question_id": 1, "choices": []}], ":1: choices is 0 entries, not one"),
        ([{"question_id": 1, "choices": "b"}], ":1: choices is a text"),
        ([{"question_id": 1, "choices": ["b"]}], r":1: choices\[0\].turns is missing"),
        ([{"question_id": 1, "choices": [{"turns": [1]}]}], r"turns\[0\] is a number"),
        ([{"choices": [{"turns": ["b"]}]}], ":1: choices without a question_id"),
        ([{"prompt": "a", "responses": ["b"], "turns": ["c"]}], ":1: turns is not a list with"),
        (["text"], ":1: a text, not an object"),
        ([], "has no answers"),
    ],
    ids=str,
)
def test_a_row_that_is_no_answer_is_refused_in_one_sentence(tmp_path, rows, message):
    with pytest.raises(DataError, match=message) as error:
        read_outputs(written(tmp_path, *rows))
    assert "\n" not in str(error.value)


def test_a_truncated_file_and_a_missing_one_are_told(tmp_path):
    path = written(tmp_path, {"prompt": "a", "output": "b"})
    path.write_text(path.read_text() + '\n{"prompt": "c"')
    with pytest.raises(DataError, match=":2: not JSON"):
        read_outputs(path)
    with pytest.raises(DataError, match="no such file"):
        read_outputs(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("name", "answer"),
    [("o.json", True), ("o.jsonl.gz", True), ("gpt-4.5", False), ("org/model", False)],
)
def test_a_target_that_ends_like_a_data_file_is_one(name, answer):
    assert looks_like_outputs(Path(name)) is answer


def test_a_folder_is_never_a_file_of_answers(tmp_path):
    (tmp_path / "o.json").mkdir()
    assert not looks_like_outputs(tmp_path / "o.json")


def test_real_files_of_the_benchmarks_are_read_whole():
    for path in sorted(shared("eval", "arena_hard", "model_answer").glob("*.jsonl")):
        outputs = read_outputs(path)
        assert len(outputs) == 500
        assert all(
            output.n_tokens == output.meta["conv_metadata"]["token_len"] for output in outputs
        )
    alpaca = read_outputs(shared("eval", "alpaca_eval", "reference_outputs.jsonl.gz"))
    assert len(alpaca) == 805
    assert {output.generator for output in alpaca} == {"gpt4_1106_preview"}


def test_real_answers_pair_with_the_real_questions():
    lines = shared("eval", "arena_hard", "question.jsonl").read_text().splitlines()
    prompts = [
        PromptSample(row["turns"][0]["content"], {"id": row["question_id"]})
        for row in map(json.loads, lines)
    ]
    path = shared("eval", "arena_hard", "model_answer", "gpt-4-0314.jsonl")
    assert len(match(read_outputs(path), prompts, path.name)) == 500
