"""Rows beyond the model's context: cut or left out aloud, or refused with both numbers."""

import pytest
from small_models import logged, run_stages, word_model, write_rows

from alignzoo.contract.errors import DataError


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))


def sft(data, **train):
    return {"name": "it", "algorithm": "sft", "data": data, "train": {"lr": 1e-9} | train}


def test_a_row_longer_than_the_context_is_cut_there_and_that_is_said(tmp_path):
    model = word_model(tmp_path / "m", context=32)
    long = {"prompt": "the cat", "response": " sat on a mat" * 30}
    data = write_rows(tmp_path / "d.jsonl", [long, {"prompt": "hello", "response": " you"}])
    notes = run_stages(model, tmp_path / "r", sft(data, batch_size=1, shuffle=False))
    metrics = logged(tmp_path / "r" / "stages" / "01-it")
    assert [row["response_length"] for row in metrics] == [30, 2]
    assert f"it: max_length of {data} is 32, the model's context" in notes
    assert "it: 1 of 2 items cut to the length limit" in notes


def test_a_max_length_beyond_the_context_is_refused_before_training(tmp_path):
    model = word_model(tmp_path / "m", context=32)
    data = write_rows(tmp_path / "d.jsonl", [{"prompt": "hello", "response": " you"}])
    with pytest.raises(DataError, match=r"max_length: 33 is more than the context .* is 32"):
        run_stages(model, tmp_path / "r", sft({"name": data, "max_length": 33}))


def test_a_max_length_of_exactly_the_context_is_trained_with(tmp_path):
    model = word_model(tmp_path / "m", context=32)
    data = write_rows(tmp_path / "d.jsonl", [{"prompt": "hello", "response": " you" * 60}])
    run_stages(model, tmp_path / "r", sft({"name": data, "max_length": 32}))
    assert logged(tmp_path / "r/stages/01-it")[0]["response_length"] == 31


@pytest.mark.parametrize("narrow", ["policy", "reference"])
def test_the_narrowest_model_of_a_stage_sets_the_length_whichever_role_it_has(tmp_path, narrow):
    contexts = {"policy": 48, "reference": 48} | {narrow: 24}
    policy, reference = (word_model(tmp_path / r, context=n) for r, n in contexts.items())
    row = {"prompt": "the cat", "chosen": " sat on" * 30, "rejected": " a mat" * 30}
    data = write_rows(tmp_path / "d.jsonl", [row])
    stage = {
        "name": "it",
        "algorithm": "dpo",
        "roles": {"reference": reference},
        "data": {"name": data},
        "train": {"lr": 1e-9, "batch_size": 1},
    }
    notes = run_stages(policy, tmp_path / "r", stage)
    assert f"it: max_length of {data} is 24, the model's context" in notes
    assert logged(tmp_path / "r/stages/01-it")[0]["response_length"] == 24 - 2
    stage["data"]["max_length"] = 25
    with pytest.raises(DataError, match=rf"25 is more than .*{narrow}', which is 24"):
        run_stages(policy, tmp_path / "s", stage)


def test_many_rows_left_out_are_one_line_with_counts_and_the_first_three_places(tmp_path):
    model = word_model(tmp_path / "m", context=32)
    rows = [{"prompt": "hello", "response": " you" * (60 if n % 2 else 1)} for n in range(40)]
    data = write_rows(tmp_path / "d.jsonl", rows)
    notes = run_stages(model, tmp_path / "r", sft({"name": data, "too_long": "drop"}))
    (line,) = [note for note in notes if "items left out, too long" in note]
    assert "20 of 40 items" in line and line.count(str(data)) == 3 and "\n" not in line


def test_what_stages_say_alike_of_the_same_data_is_said_once_in_a_run(tmp_path):
    model = word_model(tmp_path / "m", context=32)
    long = {"prompt": "the cat", "response": " sat on a mat" * 30}
    data = write_rows(tmp_path / "d.jsonl", [long, {"prompt": "hello", "response": " you"}])
    rates = {"one": 1e-9, "two": 2e-9, "three": 3e-9}
    stages = [sft(data, batch_size=2, lr=lr) | {"name": name} for name, lr in rates.items()]
    stages[2]["data"] = {"name": data, "limit": 1}
    notes = run_stages(model, tmp_path / "r", *stages)
    (whole,) = [note for note in notes if note.startswith("one: 2 rows of")]
    assert "columns" in whole and "tokens" in whole
    assert f"two: 2 rows of {data}: the same as in stage 'one'" in notes
    assert "one: 1 of 2 items cut to the length limit" in notes
    assert f"two: warning 1 about {data}: the same as in stage 'one'" in notes
    (other,) = [note for note in notes if note.startswith("three: 1 row of")]
    assert "columns" in other


def rollout(data, **sampling):
    return {
        "name": "it",
        "algorithm": "ppo",
        "data": data,
        "train": {"lr": 1e-9, "batch_size": 2, "steps": 1},
        "rollout": {"prompts": 2, "sampling": sampling},
    }


def test_a_prompt_that_leaves_no_room_for_an_answer_is_told_before_sampling(tmp_path):
    model = word_model(tmp_path / "m", context=32)
    prompts = [{"prompt": "hello" + " you" * n} for n in (1, 2, 20)]
    data = write_rows(tmp_path / "d.jsonl", prompts)
    notes = run_stages(model, tmp_path / "r", rollout(data, max_new_tokens=16))
    assert (
        "it: 1 of 3 prompts are longer than 16 tokens (context 32, less max_new_tokens 16) and "
        "left out" in notes
    )
    with pytest.raises(DataError, match="2 of 3 prompts are longer than 2 tokens"):
        strict = {"name": data, "too_long": "error"}
        run_stages(model, tmp_path / "s", rollout(strict, max_new_tokens=30))


def test_sampling_from_another_distribution_than_the_policy_s_is_said(tmp_path):
    model = word_model(tmp_path / "m")
    data = write_rows(tmp_path / "d.jsonl", [{"prompt": "hello"}, {"prompt": "the cat"}])
    notes = run_stages(model, tmp_path / "r", rollout(data, max_new_tokens=4, top_p=0.9))
    assert any(
        "ppo takes answers for samples of the policy, but with top_p 0.9" in n for n in notes
    )
    plain = run_stages(model, tmp_path / "s", rollout(data, max_new_tokens=4))
    assert not any("takes answers for samples" in n for n in plain)
