"""Rows of chats: tool calls, ShareGPT's layout, companions of a prompt, null columns."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from story_models import TOOLS, story_tokenizer, write

from alignzoo.contract.errors import DataError
from alignzoo.contract.types import (
    GroupSample,
    LabelledSample,
    PairSample,
    PromptSample,
    Response,
    RolloutBatch,
    TextBatch,
    TextSample,
)
from alignzoo.data.rows import read_row, row_from_sample, sample_from_row
from alignzoo.data.samples import DataSource, load_samples
from alignzoo.data.tokens import Limits, encode_all, prompt_ids

CALLS = [{"type": "function", "function": {"name": "find_dog", "arguments": {"park": "big"}}}]
TOOL_LIST = [{"type": "function", "function": {"name": "find_dog", "parameters": {}}}]
USER = {"role": "user", "content": "Where is the dog?"}
CALLING = {"role": "assistant", "content": None, "tool_calls": CALLS}
FOUND = {"role": "tool", "content": "under the tree"}
ANSWER = {"role": "assistant", "content": "The dog is under the tree."}
SYSTEM = {"role": "system", "content": "Be kind."}


def plain_ids(messages, tools, opening):
    """What plain transformers makes of a chat."""
    return tuple(
        story_tokenizer(TOOLS).apply_chat_template(
            messages, tools=tools, add_generation_prompt=opening, return_dict=False
        )
    )


@pytest.mark.parametrize("content", [None, "", "Looking."])
def test_tool_calls_and_tools_reach_the_template_in_every_kind_of_row(content):
    calling = CALLING | {"content": content}
    chat = [USER, calling, FOUND]
    asked, tokenizer = plain_ids(chat, TOOL_LIST, opening=True), story_tokenizer(TOOLS)
    for row in (
        {"messages": [*chat, ANSWER], "tools": TOOL_LIST},
        {"prompt": chat, "tools": json.dumps(TOOL_LIST)},
        {"prompt": chat, "chosen": [ANSWER], "rejected": "No.", "tools": TOOL_LIST},
        {"prompt": chat, "responses": ["No.", ANSWER], "tools": TOOL_LIST},
        {"prompt": chat, "response": "No.", "label": True, "tools": TOOL_LIST},
    ):
        assert prompt_ids(sample_from_row(row), tokenizer) == asked


def test_an_answer_that_is_a_tool_call_is_learnt_as_the_template_writes_it():
    sample = sample_from_row({"messages": [USER, CALLING], "tools": TOOL_LIST})
    (item,) = encode_all([sample], TextBatch, story_tokenizer(TOOLS), Limits(256)).items
    assert item.rows[0].prompt == plain_ids([USER], TOOL_LIST, opening=True)
    whole = plain_ids([USER, CALLING], TOOL_LIST, opening=False)
    assert item.rows[0].prompt + item.rows[0].response == whole


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, CALLING, FOUND, ANSWER], "tools": TOOL_LIST},
        {"prompt": [USER, CALLING, FOUND], "chosen": [CALLING], "rejected": [ANSWER]},
        {"prompt": [USER], "responses": [CALLING, ANSWER], "scores": [1, 2], "tools": TOOL_LIST},
    ],
)
def test_tool_calls_and_tools_survive_the_data_file_of_a_stage(row):
    sample = sample_from_row(row)
    assert sample_from_row(json.loads(json.dumps(row_from_sample(sample)))) == sample


def test_null_content_without_a_tool_call_is_refused_with_its_place():
    for message in ({"role": "assistant", "content": None}, CALLING | {"tool_calls": []}):
        with pytest.raises(DataError, match=r"messages\[1\].content is missing"):
            sample_from_row({"messages": [USER, message]})
    with pytest.raises(DataError, match=r"tool_calls is a text, not a list"):
        sample_from_row({"messages": [USER, CALLING | {"tool_calls": "find_dog"}]})


@pytest.mark.parametrize(
    ("row", "sample"),
    [
        ({"system": "S", "question": "Q", "response": "A"}, TextSample("S\n\nQ", Response("A"))),
        ({"system": "", "question": "Q", "response": "A"}, TextSample("Q", Response("A"))),
        (
            {"system_prompt": "Be kind.", "prompt": [USER], "response": "A"},
            TextSample((SYSTEM, USER), Response("A")),
        ),
        (
            {"system": "Be kind.", "prompt": "Where is the dog?", "chosen": [ANSWER],
             "rejected": [{"role": "assistant", "content": "No."}]},
            PairSample((SYSTEM, USER), Response(ANSWER["content"]), Response("No.")),
        ),
        (
            {"system": "Be kind.", "messages": [SYSTEM, USER]},
            PromptSample((SYSTEM, USER)),
        ),
        (
            {"instruction": "Where is the dog?", "input": "", "output": "A", "system": "Be kind.",
             "history": [["Hi.", "Hello."]]},
            TextSample(
                (SYSTEM, {"role": "user", "content": "Hi."},
                 {"role": "assistant", "content": "Hello."}, USER),
                Response("A"),
            ),
        ),
        (
            {"conversations": [{"from": "human", "value": "Where is the dog?"},
                               {"from": "gpt", "value": "A"}], "system": "Be kind."},
            TextSample((SYSTEM, USER), Response("A")),
        ),
        (
            {"conversations": [{"from": "human", "value": "Where is the dog?"}],
             "chosen": {"from": "gpt", "value": "A"}, "rejected": {"from": "gpt", "value": "B"}},
            PairSample((USER,), Response("A"), Response("B")),
        ),
        (
            {"conversations": [
                {"from": "human", "value": "Where is the dog?"},
                {"from": "function_call", "value": json.dumps(CALLS[0]["function"])},
                {"from": "observation", "value": "under the tree"},
                {"from": "gpt", "value": "A"}]},
            TextSample((USER, CALLING, FOUND), Response("A")),
        ),
        (
            {"messages": [USER, ANSWER], "label": False},
            LabelledSample((USER,), Response(ANSWER["content"]), False),
        ),
    ],
)  # fmt: skip
def test_what_stands_beside_a_prompt_is_used_where_the_layout_gives_it_a_meaning(row, sample):
    assert sample_from_row(row) == sample


def test_a_system_column_that_contradicts_the_chat_is_refused():
    with pytest.raises(DataError, match="system column and the chat's own system message differ"):
        sample_from_row({"system": "Be rude.", "messages": [SYSTEM, USER]})


def test_columns_that_nobody_uses_are_named_and_counted_and_empty_ones_are_not(tmp_path):
    row = {"prompt": "Q", "chosen": "A", "rejected": "B", "source": "web", "note": None, "x": ""}
    assert read_row(row).ignored == ("source",)
    assert read_row(row).used == ("prompt", "chosen", "rejected")
    other = {key: row[key] for key in ("prompt", "chosen", "rejected")} | {"history": "a text"}
    loaded = load_samples(DataSource(write(tmp_path / "d.jsonl", row, row, other)))
    assert dict(loaded.ignored) == {"source": 2, "history": 1}
    assert dict(loaded.used) == {"prompt": 3, "chosen": 3, "rejected": 3}


def test_a_null_prompt_beside_whole_dialogues_in_a_parquet_file_is_the_shared_part(tmp_path):
    table = {
        "prompt": [None, "Where is the dog?"],
        "chosen": [[USER, CALLING | {"content": "Look."}], [{"role": "assistant", "content": "A"}]],
        "rejected": [[USER, ANSWER], [{"role": "assistant", "content": "B"}]],
    }
    path = tmp_path / "d.parquet"
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    one, other = load_samples(DataSource(str(path))).samples
    assert one.prompt == (USER,) and one.chosen.message["tool_calls"] == CALLS
    assert one.rejected == Response(ANSWER["content"])  # no `tool_calls: null` of the schema
    assert other == PairSample((USER,), Response("A"), Response("B"))


def test_prompts_for_rollouts_keep_their_tools():
    sample = sample_from_row({"prompt": [USER], "responses": ["a", "b"], "tools": TOOL_LIST})
    assert isinstance(sample, GroupSample)
    made = encode_all([sample], RolloutBatch, story_tokenizer(TOOLS), Limits(256))
    assert made.items[0].rows[0].prompt == plain_ids([USER], TOOL_LIST, opening=True)
