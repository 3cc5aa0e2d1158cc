"""Whole run folders as `run` leaves them, without a model: for tests of the report."""

import json
import math

import yaml
from board_runs import HOSTILE, JudgedRun

TRAIN = {"steps": 40, "batch_size": 8, "micro_batch_size": 8}
MODELS = {"base": 0.5, "dpo": 0.6, "grpo": 0.8}
SHARES = {
    "base": {"forward": 0.8, "rest": 0.2},
    "dpo": {"forward": 0.9, "rest": 0.1},
    "grpo": {"sampling": 0.625, "forward": 0.25, "rest": 0.125},
}
ACTING = "\x1b[2J \u202egnp.exe"
SAID = ("it is blue .", "it is really blue .", "it is green .", "it is green and blue .", "blue .")


def recipe(seed=3, rails=None):
    """A supervised stage, a preference method and one that samples."""
    stages = [
        {"name": "base", "algorithm": "sft", "data": "facts.sft", "train": TRAIN},
        {
            "name": "dpo",
            "algorithm": "dpo",
            "policy": "base",
            "data": "pairs.jsonl",
            "train": TRAIN,
        },
        {
            "name": "grpo",
            "algorithm": "grpo",
            "policy": "dpo",
            "data": {"name": "facts.prompts"},
            "rollout": {"samples_per_prompt": 2, "reward": {"judge": "facts.oracle"}},
            "train": TRAIN,
            "rails": rails or {},
        },
    ]
    return {"name": "small", "model": "facts", "seed": seed, "stages": stages}


def metrics(stage, step, steps):
    """A row of metrics.jsonl."""
    share = step / steps
    if stage == "base":
        own = {"nll": 3 * math.exp(-3 * share)}
    elif stage == "dpo":
        own = {"loss": 0.69 - 0.2 * share, "rewards/margin": share}
    else:
        own = {
            "rollout/reward": share,
            "rollout/truncated": 0.6 * share,
            "kl_full/reference": share**2,
        }
    return {"step": step, **own, "grad_norm": 1.0 + math.sin(step), "lr": 1e-3}


class FullRun(JudgedRun):
    """A run with stages, logs, samples over time and judged answers."""

    def __init__(self, folder, seed=3, steps=40, rails=None, **how):
        super().__init__(folder, MODELS, **how)
        self.seed, self.steps, self.rails = seed, steps, rails
        self.reused = ()

    def write(self):
        """Write the folder and return it."""
        super().write()
        text = yaml.safe_dump(recipe(self.seed, self.rails), sort_keys=False)
        (self.folder / "recipe.yaml").write_text(text)
        pieces = {
            name: {"status": "reused"}
            if name in self.reused
            else {"status": "done", "seconds": 61.5}
            for name in MODELS
        }
        record = {
            "recipe": "small",
            "status": "done",
            "started": "2026-01-02T03:04:05+00:00",
            "versions": {"alignzoo": "0.1.0", "torch": "2.13"},
            "plugins": ["alignzoo_duel@1#abc"],
            "pieces": pieces,
        }
        (self.folder / "run.json").write_text(json.dumps(record))
        for number, name in enumerate(MODELS, 1):
            self.write_stage(number, name)
        return self.folder

    def write_stage(self, number, name):
        """One stage's logs."""
        folder = self.folder / "stages" / f"{number:02d}-{name}"
        folder.mkdir(parents=True)
        steps = range(1, self.steps + 1)
        lines = [json.dumps(metrics(name, step, self.steps)) for step in steps]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        times = [json.dumps({"step": step, "seconds": 0.5}) for step in steps]
        times.append(json.dumps({"work": "stage", "seconds": 20.0, "shares": SHARES[name]}))
        (folder / "timing.jsonl").write_text("\n".join(times) + "\n")
        (folder / "stage.json").write_text(json.dumps({"status": "done"}))
        rows = [self.sample(moment, prompt) for moment in range(5) for prompt in range(8)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "logged_samples.jsonl").write_text(text)

    def sample(self, moment, prompt):
        """What the policy answered at one of five moments."""
        hostile = f" {HOSTILE}{ACTING}" if prompt == 0 else ""
        return {
            "step": round(moment * self.steps / 4),
            "prompt": prompt,
            "asked": f"question {prompt} ?{hostile}",
            "answer": SAID[moment] + hostile,
            "tokens": 4 + moment,
            "ended": moment != 3,
        }
