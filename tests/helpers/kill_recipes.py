"""One small recipe per kind of stage, on files made beforehand, for killing and flipping."""

from __future__ import annotations

import json
from pathlib import Path

HEAD = "name: small\nmodel: facts\nthreads: 1\n"
TRAIN = "batch_size: 8, micro_batch_size: 4, lr: 1e-3, save_every: 2"
KINDS = {
    "train offline": f"""
stages:
  - name: dpo
    algorithm: dpo
    data: {{name: PAIRS, skip: 8}}
    validation: {{data: {{name: PAIRS, limit: 8}}, every: 2}}
    train: {{steps: 5, {TRAIN}}}
""",
    "train on-policy": f"""
stages:
  - name: grpo
    algorithm: grpo
    data: {{name: facts.prompts, with: {{size: 16}}}}
    rollout:
      prompts: 4
      samples_per_prompt: 2
      sampling: {{max_new_tokens: 6}}
      reward: {{judge: facts.oracle}}
    train: {{steps: 4, {TRAIN}}}
""",
    "generate": """
stages:
  - name: answers
    stage: generate
    data: {name: facts.prompts, with: {size: 12}}
    samples: 2
    batch_size: 8
    sampling: {max_new_tokens: 6}
""",
    "label": """
stages:
  - {name: pairs, stage: label, data: {name: GROUPS}, judge: function, with: {path: "JUDGE"}}
""",
    "evaluate": """
stages: []
evaluate:
  - benchmark: facts
    with: {size: 12}
    models: [initial]
    samples: 2
    batch_size: 8
    sampling: {max_new_tokens: 6}
""",
}


def write_recipe(kind: str, folder: Path) -> Path:
    """The recipe of a kind with the files it reads."""
    prompts = [f"What is {n} ?" for n in range(24)]
    pairs = [
        {"prompt": p, "chosen": f"it is {n} .", "rejected": "no idea ."}
        for n, p in enumerate(prompts)
    ]
    groups = [
        {"prompt": p, "responses": [f"it is {n} .", "no idea at all .", "well ."]}
        for n, p in enumerate(prompts)
    ]
    for name, rows in (("pairs", pairs), ("groups", groups)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    (folder / "judge.py").write_text("def longest(prompt, answer):\n    return len(answer)\n")
    text = (HEAD + KINDS[kind]).replace("PAIRS", str(folder / "pairs.jsonl"))
    text = text.replace("JUDGE", f"{folder / 'judge.py'}:longest")
    file = folder / f"{kind.replace(' ', '-')}.yaml"
    file.write_text(text.replace("GROUPS", str(folder / "groups.jsonl")))
    return file


def results(folder: Path) -> dict[str, bytes]:
    """Bytes of everything that must not depend on how the run went."""
    names = ("metrics.jsonl", "data.jsonl", "answers.jsonl", "scores.json")
    files = [f for f in folder.rglob("*") if f.name in names or f.suffix == ".safetensors"]
    kept = [f for f in (folder / "scores.jsonl", folder / "leaderboard.md", *files) if f.exists()]
    return {str(f.relative_to(folder)): f.read_bytes() for f in kept if "state" not in f.parts}


def leftovers(folder: Path) -> list[str]:
    """What only a run that goes on may hold."""
    return [str(f) for f in folder.rglob("*") if f.suffix == ".tmp" or f.name == "state"]
