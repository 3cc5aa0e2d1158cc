"""What a stage says of its data at the start, and that it trains on rows as they are written."""

from dataclasses import dataclass

import pytest
from small_models import logged, run_stages
from story_models import (
    CUTS_THOUGHTS,
    TOOLS,
    TURNS,
    mean_log_prob,
    one_step,
    story_model,
    story_tokenizer,
    write,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignzoo import Answer, Judge, PromptSample, Response, Score, ScoredBenchmark
from alignzoo.contract.errors import DataError
from alignzoo.contract.progress import Silent
from alignzoo.recipe.blocks import DataSpec
from alignzoo.recipe.registry import load_plugins
from alignzoo.stages.context import StageContext
from alignzoo.stages.label import judged
from alignzoo.stages.reading import read_samples

CALLS = [{"type": "function", "function": {"name": "find_dog", "arguments": {"park": "big"}}}]
SCHEMA = {"type": "object", "properties": {"park": {"type": "string"}}}
TOOL_LIST = [{"type": "function", "function": {"name": "find_dog", "parameters": SCHEMA}}]
HEAD = [
    {"role": "user", "content": "Where is the dog?"},
    {"role": "assistant", "content": "", "tool_calls": CALLS},
    {"role": "tool", "content": "under the tree"},
]
ANSWER = {"role": "assistant", "content": "The dog is under the tree."}
ASK = [{"role": "user", "content": "How many dogs?"}]
CHOSEN = "<think>One is big. One is small. So there are two.</think>Two dogs."
REJECTED = "<think>I see a cat. Cats are dogs. So there is one.</think>Two dogs."
MARKUP = {
    "prompt": "How do I strike text?",
    "response": " Write <s> before it and </s> after it. Then save.",
}


def told(notes):
    """What the notes of a run say, in one line with single spaces."""
    return " ".join(" ".join(notes).split())


def test_sft_on_a_row_with_tools_has_the_loss_of_the_whole_rendered_chat(tmp_path):
    model = story_model(tmp_path / "m", TOOLS)
    data = write(tmp_path / "d.jsonl", {"messages": [*HEAD, ANSWER], "tools": TOOL_LIST})
    notes = run_stages(model, tmp_path / "run", one_step("sft", data))
    (loss,) = [step["loss"] for step in logged(tmp_path / "run/stages/01-it")]
    words = story_tokenizer(TOOLS)
    chat = {"tools": TOOL_LIST, "return_dict": False}
    prompt = words.apply_chat_template(HEAD, add_generation_prompt=True, **chat)
    whole = words.apply_chat_template([*HEAD, ANSWER], **chat)
    right = -mean_log_prob(model, prompt, whole[len(prompt) :])
    assert right == pytest.approx(3.678128, abs=1e-5)
    assert loss == pytest.approx(right, abs=1e-5)
    assert "1 row" in told(notes) and "columns messages, tools" in told(notes)


def test_the_tool_call_of_a_chosen_answer_is_learnt(tmp_path):
    model = story_model(tmp_path / "m", TOOLS)
    calling = {"role": "assistant", "content": "Looking.", "tool_calls": CALLS}
    pair = {"chosen": [calling], "rejected": [{"role": "assistant", "content": "I do not know."}]}
    data = write(tmp_path / "d.jsonl", {"prompt": HEAD[:1], **pair})
    run_stages(model, tmp_path / "run", one_step("simpo", data))
    (step,) = logged(tmp_path / "run/stages/01-it")
    assert step["rewards/chosen"] == pytest.approx(-89.912, abs=1e-3)


def test_content_null_beside_tool_calls_is_data(tmp_path):
    model = story_model(tmp_path / "m", TOOLS)
    messages = [HEAD[0], {**HEAD[1], "content": None}, HEAD[2], ANSWER]
    data = write(tmp_path / "d.jsonl", {"messages": messages})
    run_stages(model, tmp_path / "run", one_step("sft", data))
    words = story_tokenizer(TOOLS)
    prompt = words.apply_chat_template(messages[:3], add_generation_prompt=True, return_dict=False)
    whole = words.apply_chat_template(messages, return_dict=False)
    right = -mean_log_prob(model, prompt, whole[len(prompt) :])
    assert logged(tmp_path / "run/stages/01-it")[0]["loss"] == pytest.approx(right, abs=1e-5)


def test_a_system_column_is_part_of_the_prompt_and_other_columns_are_named(tmp_path):
    model = story_model(tmp_path / "m")
    system = "You are a very kind old wizard who lives in a forest."
    row = {"system": system, "question": "Tell me about the dog.", "source": "web"}
    data = write(tmp_path / "d.jsonl", row | {"chosen": " The dog was happy.", "rejected": " No."})
    notes = run_stages(model, tmp_path / "run", one_step("simpo", data))
    words = story_tokenizer()
    prompt = words(f"{system}\n\nTell me about the dog.").input_ids
    whole = [*words(f"{system}\n\nTell me about the dog. The dog was happy.").input_ids, 2]
    right = 10 * mean_log_prob(model, prompt, whole[len(prompt) :])
    (step,) = logged(tmp_path / "run/stages/01-it")
    assert right == pytest.approx(-52.600, abs=1e-3)
    assert step["rewards/chosen"] == pytest.approx(right, abs=1e-3)
    assert "columns system, question, chosen, rejected ignored source" in told(notes)


def test_letters_of_an_end_token_in_an_answer_are_learnt_as_letters(tmp_path):
    model = story_model(tmp_path / "m")
    notes = run_stages(
        model, tmp_path / "run", one_step("sft", write(tmp_path / "d.jsonl", MARKUP))
    )
    words = story_tokenizer()
    letters = {"split_special_tokens": True}
    prompt = words(MARKUP["prompt"], **letters).input_ids
    whole = [*words(MARKUP["prompt"] + MARKUP["response"], **letters).input_ids, 2]
    right = -mean_log_prob(model, prompt, whole[len(prompt) :])
    assert right == pytest.approx(6.747329, abs=1e-5)
    assert logged(tmp_path / "run/stages/01-it")[0]["loss"] == pytest.approx(right, abs=1e-4)
    assert "letters control tokens that 1 row spell out in text" in told(notes)


def test_reasoning_that_the_template_cuts_is_refused_or_told_as_the_recipe_says(tmp_path):
    model = story_model(tmp_path / "m", CUTS_THOUGHTS)
    answer = {"role": "assistant", "content": CHOSEN}
    data = write(tmp_path / "d.jsonl", {"messages": [*ASK, answer]})
    with pytest.raises(DataError, match=r"d\.jsonl:1: .*leaves out part of the content"):
        run_stages(model, tmp_path / "refused", one_step("sft", data))
    block = {"name": data, "template_cuts": "tell"}
    notes = run_stages(model, tmp_path / "told", one_step("sft", block))
    assert "template leaves out parts of answers (1 row)" in told(notes)


def test_more_pairs_of_equal_answers_than_the_recipe_allows_are_refused(tmp_path):
    model = story_model(tmp_path / "m", CUTS_THOUGHTS)
    data = write(tmp_path / "d.jsonl", {"prompt": ASK, "chosen": CHOSEN, "rejected": REJECTED})
    block = {"name": data, "template_cuts": "tell"}
    with pytest.raises(DataError, match=r"1 of 1 pairs have the same tokens .*data.max_equal: 0.1"):
        run_stages(model, tmp_path / "refused", one_step("simpo", block))
    notes = run_stages(model, tmp_path / "told", one_step("simpo", block | {"max_equal": 1}))
    assert "1 pair of equal answers" in told(notes)


def test_max_bad_covers_a_row_that_the_template_refuses(tmp_path):
    alternating = (
        TURNS + "{% if messages | length > 2 %}{{ raise_exception('too many') }}{% endif %}"
    )
    model = story_model(tmp_path / "m", alternating)
    rows = [{"messages": [*ASK, ANSWER]}, {"messages": [*ASK, ANSWER, *ASK, ANSWER]}]
    data = write(tmp_path / "d.jsonl", *rows, {"messages": "none"})
    with pytest.raises(DataError, match=r"max_bad: 0\.4 allows"):
        run_stages(model, tmp_path / "few", one_step("sft", {"name": data, "max_bad": 0.4}))
    for stage in (one_step("sft", {"name": data, "max_bad": 0.7}), sampled(data, max_bad=0.7)):
        folder = tmp_path / stage.get("stage", "sft")
        notes = run_stages(model, folder, stage)
        (bad,) = folder.rglob("bad_rows.txt")
        one, other = bad.read_text().splitlines()
        assert "d.jsonl:3: messages is a text" in one
        assert "d.jsonl:2: the chat template refuses the messages: too many" in other
        assert "3 rows of" in told(notes) and "left out: 2 unusable" in told(notes)


@pytest.mark.parametrize(("rank", "lists"), [("0", True), ("1", False)])
def test_one_process_of_several_lists_the_bad_rows(tmp_path, monkeypatch, rank, lists):
    data = write(tmp_path / "d.jsonl", {"messages": [*ASK, ANSWER]}, {"messages": "none"})
    folder = tmp_path / "stage"
    folder.mkdir()
    context = StageContext(None, load_plugins(), tmp_path, folder, "it", 1, 1, {}, Silent())
    monkeypatch.setenv("RANK", rank)
    read_samples(DataSpec.model_validate({"name": data, "max_bad": 0.5}), context)
    assert (folder / "bad_rows.txt").exists() == lists


def sampled(data, **more):
    """A generate stage over a file."""
    block = {"name": data, **more}
    return {"name": "g", "stage": "generate", "data": block, "sampling": {"max_new_tokens": 2}}


def test_the_table_says_which_turns_are_learnt_and_all_of_them_change_the_loss(tmp_path):
    model = story_model(tmp_path / "m", TURNS)
    chat = [*ASK, {"role": "assistant", "content": "One."}, *ASK]
    last = {"role": "assistant", "content": "Two."}
    data = write(tmp_path / "d.jsonl", {"messages": [*chat, last]})
    notes = run_stages(model, tmp_path / "last", one_step("sft", data))
    assert "the last turn of the assistant alone, in 1 row others come before it" in told(notes)
    notes = run_stages(model, tmp_path / "all", one_step("sft", {"name": data, "learn": "all"}))
    assert "every turn of the assistant, in 1 row several" in told(notes)
    words, parts = story_tokenizer(TURNS), []
    for upto in (1, 3):
        prompt = words.apply_chat_template(
            chat[:upto], add_generation_prompt=True, return_dict=False
        )
        whole = words.apply_chat_template([*chat, last][: upto + 1], return_dict=False)
        n = len(whole) - len(prompt)
        parts.append((n, n * mean_log_prob(model, prompt, whole[len(prompt) :])))
    right = -sum(value for _, value in parts) / sum(n for n, _ in parts)
    loss = logged(tmp_path / "all/stages/01-it")[0]["loss"]
    assert loss == pytest.approx(right, abs=1e-5)


# --- what a judge reads ---------------------------------------------------------------------------

SEES = "def score(prompt, answer):\n    return 1.0 if '<think>' in answer else 0.0\n"


def thinking_model(folder):
    """The story model with <think> and </think> as special tokens that it samples often."""
    story_model(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    words = AutoTokenizer.from_pretrained(folder)
    words.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    model.resize_token_embeddings(514, mean_resizing=False)
    rows = model.get_input_embeddings().weight.data
    for new, like in ((512, "▁the"), (513, "▁and")):
        rows[new] = rows[words.convert_tokens_to_ids(like)] * 1.1
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def test_a_reward_sees_the_special_tokens_that_the_policy_wrote(tmp_path, monkeypatch):
    model = thinking_model(tmp_path / "m")
    prompts = [{"prompt": p} for p in ("Lily has a big dog.", "Tom saw", "The cat ran to the")]
    data = write(tmp_path / "d.jsonl", *prompts)
    (tmp_path / "judge.py").write_text(SEES)
    monkeypatch.chdir(tmp_path)
    reward = {"judge": "function", "with": {"path": "judge.py:score"}}
    sampling = {"max_new_tokens": 24}
    stage = one_step(
        "grpo",
        data,
        rollout={"prompts": 3, "samples_per_prompt": 4, "sampling": sampling, "reward": reward},
    )
    stage["train"] |= {"batch_size": 12, "micro_batch_size": 12}
    group = {"name": "g", "stage": "generate", "data": data, "samples": 4, "sampling": sampling}
    run_stages(model, tmp_path / "run", stage, group)
    (step,) = logged(tmp_path / "run/stages/01-it")
    assert step["rollout/reward"] == pytest.approx(1 / 3, abs=1e-6)
    answers = (tmp_path / "run/stages/02-g/data.jsonl").read_text()
    assert answers.count("<think>") >= answers.count('"plain"') > 0


@dataclass(frozen=True)
class Thoughts(Judge):
    """How many thoughts it sees in the replies to all turns."""

    name = "thoughts"

    def score(self, answers):
        return [Score(float("".join(a.turns).count("<think>"))) for a in answers]


@dataclass(frozen=True)
class Blind(Thoughts):
    """The same without special tokens."""

    name = "blind"
    reads_special = False


@dataclass(frozen=True)
class Quiz(ScoredBenchmark):
    """Scores by a judge."""

    name = "quiz"
    who: Judge = Thoughts()

    def judge(self):
        return self.who


def test_a_judge_declares_whether_it_reads_special_tokens_and_old_ones_do():
    thought = Response("<think>a</think>b", (1,), True, plain="ab")
    answer = Answer(PromptSample("p"), thought, 1, earlier=(thought,))
    plain = Answer(PromptSample("p"), Response("<think>"), 1)
    assert judged(Thoughts(), [answer, plain]) == [2.0, 1.0]
    assert judged(Blind(), [answer, plain]) == [0.0, 1.0]  # letters that a model spelt are text
    for who, seen in ((Thoughts(), 2.0), (Blind(), 0.0)):
        columns = Quiz(who).measure([[answer]], [[answer]])
        assert columns["score"].values == (seen,) and columns["win_rate"].values == (0.5,)


def test_an_empty_answer_is_learnt_as_written_and_named_and_counted(tmp_path):
    model = story_model(tmp_path / "m")
    rows = ({"prompt": "Tim ran.", "response": answer} for answer in (" He fell.", "", ""))
    data = write(tmp_path / "d.jsonl", *rows)
    train = {"steps": 1, "batch_size": 3, "micro_batch_size": 3, "lr": 1e-9}
    notes = run_stages(model, tmp_path / "run", one_step("sft", data, train=train))
    account = told(notes)
    assert "columns prompt, response items" in account  # of all rows, the empty ones too
    assert f"empty the answer of 2 rows, learnt as an end at once: {data}:2, {data}:3" in account
    words = story_tokenizer()
    prompt = words("Tim ran.").input_ids
    whole = [*words("Tim ran. He fell.").input_ids, 2]
    said = -mean_log_prob(model, prompt, whole[len(prompt) :]) * (len(whole) - len(prompt))
    ended = -mean_log_prob(model, prompt, [2])
    right = (said + 2 * ended) / (len(whole) - len(prompt) + 2)
    assert logged(tmp_path / "run/stages/01-it")[0]["loss"] == pytest.approx(right, abs=1e-5)


def test_an_empty_rejected_answer_is_named_and_data_without_any_text_is_refused(tmp_path):
    model = story_model(tmp_path / "m")
    pair = {"prompt": "Tim ran.", "chosen": " He fell.", "rejected": ""}
    data = write(tmp_path / "d.jsonl", pair, {**pair, "rejected": " No."})
    notes = run_stages(model, tmp_path / "run", one_step("simpo", data))
    assert f"empty the answer of 1 row, learnt as an end at once: {data}:1" in told(notes)
    blank = write(tmp_path / "e.jsonl", *[{"prompt": "Tim ran.", "response": ""}] * 2)
    with pytest.raises(DataError, match=r"e\.jsonl:1: the answer is empty, and so are all others"):
        run_stages(model, tmp_path / "refused", one_step("sft", blank))
