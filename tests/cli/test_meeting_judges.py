"""A judge that cannot be used is found before anything is sampled for it."""

import pytest
from tiny_models import CHAT, model_folder, word_tokenizer

WORDS = ("--benchmark", "pairwise", "--judge", "openai", "--set", "judge.with.model=m",
         "--limit", "3", "--set", "sampling.max_new_tokens=4")  # fmt: skip


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Two models, an empty cache, and no key."""
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    tokenizer = word_tokenizer(chat_template=CHAT)
    return [model_folder(tmp_path / f"m{seed}", tokenizer, seed=seed) for seed in (1, 2)]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ((), "OPENAI_API_KEY is not set"),
        (("--set", "judge.with.url=http://127.0.0.1:9/v1"), "cannot be reached"),
    ],
)
def test_a_missing_key_or_server_is_found_before_sampling(cli, tmp_path, models, more, sentence):
    ours, theirs = models
    status, out, err = cli(
        "eval", ours, "--baseline", theirs, *WORDS, *more, "--output", tmp_path / "r"
    )
    assert status == 1 and sentence in err
    assert not list((tmp_path / "r").rglob("answers.jsonl"))
    assert "/3" not in out  # no step of any sampling
