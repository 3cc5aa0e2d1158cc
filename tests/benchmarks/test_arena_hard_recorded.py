"""Arena-Hard on upstream's files: prompts byte for byte, replies, counts, columns."""

import json

import pytest
import yaml
from alignzoo_arena_hard import ArenaHard, style_of
from shared_data import shared

from alignzoo import Answer, PromptSample, Question, Reply, Response

CANDIDATES = ("gpt-3.5-turbo-0125", "gpt-4-0613")
BASELINE = "gpt-4-0314"
REAL = "real_judgments_gpt-4-1106-preview_12rows.jsonl"


def rows(*parts):
    text = shared("eval", "arena_hard", *parts).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def judged(model):
    return rows("model_judgment", "synthetic-seeded-v1", f"{model}.jsonl")


def answers(model):
    return {
        row["question_id"]: row["choices"][0]["turns"][0]
        for row in rows("model_answer", f"{model}.jsonl")
    }


def question(candidate=1):
    """As it stands after a first reply without a label, so that no more is asked."""
    answer = Answer(PromptSample("?"), Response("."), 1)
    roles = ("system", "user", "assistant", "user")
    messages = tuple({"role": role, "content": role} for role in roles)
    return Question("0/1", 0, (answer, answer), messages, candidate=candidate)


def parts_of(row, base):
    """What the two prompts of a row are made of, the baseline's answer being known.

    (before the first answer, between the answers, the candidate's answer, after the second).
    """
    first, second = (game["user_prompt"] for game in row["games"])
    head = first[: first.index(base)]
    end = second[second.rindex(base) + len(base) :]
    joint_candidate = first[len(head) + len(base) : len(first) - len(end)]
    candidate_joint = second[len(head) : len(second) - len(end) - len(base)]
    (cut,) = [
        k
        for k in range(len(candidate_joint))
        if candidate_joint[k:] + candidate_joint[:k] == joint_candidate
    ]
    return head, candidate_joint[cut:], candidate_joint[:cut], end


def template_of(parts, text):
    head, joint, _, end = parts
    before, after = head.split(text)
    return f"{before}{{question_1}}{after}{{answer_1}}{joint}{{answer_2}}{end}"


def test_rendered_prompts_equal_the_recorded_ones_byte_for_byte(tmp_path):
    base = answers(BASELINE)
    real = {row["question_id"]: row for row in rows(REAL)}
    parts = {id: parts_of(row, base[id]["content"]) for id, row in real.items()}
    first = next(iter(parts))
    asked = [row for row in rows("question.jsonl") if row["question_id"] in parts]
    text = {row["question_id"]: row["turns"][0]["content"] for row in asked}
    config = {
        "system_prompt": "Judge!",
        "prompt_template": [template_of(parts[first], text[first])],
    }
    (tmp_path / "judge_config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for name in ("question.jsonl", "model_answer"):
        (tmp_path / name).symlink_to(shared("eval", "arena_hard", name))
    benchmark = ArenaHard(data=str(tmp_path))
    prompts = [p for p in benchmark.prompts(seed=0) if p.meta["id"] in real]
    own = [Answer(p, Response(parts[p.meta["id"]][2]), 1) for p in prompts]
    questions = benchmark.questions(own, benchmark.baseline_answers(prompts))
    wanted = [game["user_prompt"] for p in prompts for game in real[p.meta["id"]]["games"]]
    assert [q.messages[-1]["content"] for q in questions] == wanted
    assert len(wanted) == 24


def test_real_replies_are_read_as_they_were_then():
    for row in rows(REAL):
        for place, game in zip((1, 0), row["games"], strict=True):
            verdict = ArenaHard().verdict(question(place), Reply(game["judgment"]))
            assert verdict.label == game["score"]


@pytest.mark.parametrize("model", CANDIDATES)
def test_replies_on_record_give_the_labels_on_record(model):
    for row in judged(model):
        for game in row["games"]:
            verdict = ArenaHard().verdict(question(), Reply(game["judgment"]))
            assert (verdict.label if verdict else None) == game["score"]


@pytest.mark.parametrize("model", [*CANDIDATES, BASELINE])
def test_markdown_counts_equal_those_on_record(model):
    for row in rows("model_answer", f"{model}.jsonl"):
        counts = row["conv_metadata"]
        found = style_of(row["choices"][0]["turns"][0]["content"], counts["token_len"])
        wanted = [sum(counts[f"{what}_count"].values()) for what in ("header", "list", "bold")]
        assert [found.headers, found.lists, found.bold] == wanted


def evaluated(model, pool):
    """The columns from the replies on record."""
    place = shared("eval", "arena_hard")
    benchmark = ArenaHard(data=str(place), pool=str(place) if pool else None)
    prompts = list(benchmark.prompts(seed=0))
    turn_of = answers(model)
    turns = [turn_of[p.meta["id"]] for p in prompts]
    own = [
        Answer(p, Response(turn["content"]), turn["token_len"])
        for p, turn in zip(prompts, turns, strict=True)
    ]
    games = {row["question_id"]: row["games"] for row in judged(model)}
    verdicts = {}
    for index, prompt in enumerate(prompts):
        for number, game in enumerate(games[prompt.meta["id"]], 1):
            verdict = benchmark.verdict(question(2 - number), Reply(game["judgment"]))
            verdicts |= {f"{index}/{number}": verdict} if verdict else {}
    return benchmark.columns(own, benchmark.baseline_answers(prompts), verdicts)


@pytest.mark.parametrize("pool", [False, True], ids=["alone", "pool"])
@pytest.mark.parametrize("model", CANDIDATES)
def test_the_columns_of_recorded_replies_are_upstreams(model, pool):
    expected = json.loads(shared("eval", "expected.json").read_text())["arena_hard"]
    pooled = expected["style_control"]["leaderboard"][model]
    official = pooled if pool else expected["style_control_each_model_alone"][model]
    raw = expected["raw"]["leaderboard"][model]
    found = evaluated(model, pool)
    score, controlled = (found[name].estimate for name in ("score", "style_controlled"))
    assert score.value == pytest.approx(raw["score"], abs=0.01)
    assert controlled.value == pytest.approx(official["score"], abs=0.05)
    assert score.low < raw["lower"] and score.high > raw["upper"], "upstream's is too narrow"
