"""Small recipes in which a judge behind a server says what sampled answers are worth."""

import json
from pathlib import Path

import yaml
from judge_server import MODEL


def asked(url, **more):
    """The judge behind the server; prices per million tokens."""
    prices = {"price_in": 1.0, "price_out": 2.0}
    return {"judge": "openai", "with": {"model": MODEL, "url": url, "timeout": 3, **prices}, **more}


def recipe(reward, *, steps=2, samples=2, **rollout):
    sampling = {"max_new_tokens": 6}
    block = {"prompts": 4, "samples_per_prompt": samples, "sampling": sampling, **rollout}
    stage = {
        "name": "it",
        "algorithm": "dpo",
        "data": {"name": "facts.prompts", "with": {"size": 16}},
        "rollout": {**block, "reward": reward},
        "train": {"steps": steps, "batch_size": 4, "micro_batch_size": 4, "save_every": 1},
        "log_samples": False,
    }
    return {"name": "r", "model": "facts", "threads": 1, "stages": [stage]}


def write(name, content):
    Path(f"{name}.yaml").write_text(yaml.safe_dump(content))
    return f"{name}.yaml", "--output", name


def rows(name, stage="01-it"):
    path = Path(name) / "stages" / stage / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]
