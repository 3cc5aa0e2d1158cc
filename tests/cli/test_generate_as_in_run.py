"""`alignzoo generate` computes as the run that its model comes from: precision and attention."""

import json

import pytest
import yaml
from accelerate.state import AcceleratorState

from alignzoo.engine.models import load

PROMPTS = ["the fox", "the owl sees", "a berry", "what is the fox like ?"]
RECIPE = """
name: x
model: facts
seed: 4
threads: 1
precision: bf16
attn_implementation: eager
stages:
  - name: sft
    algorithm: sft
    data: {name: facts.sft, with: {size: 16}}
    train: {steps: 1, batch_size: 4, micro_batch_size: 4}
  - name: answers
    stage: generate
    policy: sft
    data: prompts.jsonl
    samples: 8
    sampling: {max_new_tokens: 32}
"""


@pytest.fixture(autouse=True)
def _one_precision():
    """A process has one precision, but tests share a process."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


def test_answers_of_a_bf16_run_are_those_of_its_own_generate_stage(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS]
    (tmp_path / "prompts.jsonl").write_text("".join(lines))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    status, _, err = cli("run", "recipe.yaml", "--output", "run")
    assert status == 0, err
    kept = (tmp_path / "run/stages/02-answers/data.jsonl").read_text().splitlines()
    texts = [[r["text"] for r in json.loads(row)["responses"]] for row in kept]
    asked = []
    plain = load.set_attention
    monkeypatch.setattr(load, "set_attention", lambda m, ref: asked.append(ref) or plain(m, ref))

    def answers():
        words = ("--samples", "8", "--seed", "4", "--max-new-tokens", "32")
        status, out, err = cli("generate", "run/sft", "--prompts", "prompts.jsonl", *words)
        assert status == 0, err
        rows = [json.loads(line) for line in out.splitlines()]
        return [[r if isinstance(r, str) else r["text"] for r in row["responses"]] for row in rows]

    assert answers() == texts
    assert [ref.attn_implementation for ref in asked] == ["eager"]
    written = yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())
    (tmp_path / "run/recipe.yaml").write_text(yaml.safe_dump(written | {"precision": "fp32"}))
    assert answers() != texts  # so many tokens show how they were computed
