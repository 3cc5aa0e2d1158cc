"""A family through the whole product, against plain transformers on single unpadded rows."""

from __future__ import annotations

import json
import random
import shutil
import string
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from family_models import VOCABULARY, Family, letter_ids, save, spare
from safetensors.torch import load_file
from torch.nn.functional import logsigmoid
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from alignzoo.contract.algorithm import Role
from alignzoo.contract.errors import AlignzooError
from alignzoo.contract.rollout import Sampling, sample_key
from alignzoo.contract.stage import ModelRef
from alignzoo.engine.models.load import load_model
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.run import run_recipe

BETA = 0.1  # of DPO
PAIRS = 6
HELD_OUT = 4
Row = tuple[list[int], list[int]]  # prompt, response with its end

REWARD = "def score(prompt, answer):\n    return float(len(set(answer)))\n"
LIMITS = {"loss": 1e-6, "gap": 1e-5, "samples": 3e-5, "export": 1e-6, "scalar": 1e-6}


@dataclass(frozen=True)
class Outcome:
    """What a family's run gave; a column that does not exist for it is None."""

    family: str
    loss: float | None = None  # |DPO loss of step 1 - plain|
    gap: float | None = None  # mean |log p_engine - log p_scorer| a token, while sampling
    samples: float | None = None  # largest error of a sample's log p, and of a greedy choice
    export: float | None = None  # |DPO loss after the step - plain, from the saved folder|
    tensors: str = ""  # what is wrong with the saved tensors
    scalar: float | None = None  # |reward-model loss - plain|
    refused: str = ""
    no_scalar: str = ""
    error: str = ""  # neither exact nor refused

    @property
    def right(self) -> bool:
        """Exact in every column that there is."""
        measured = {name: getattr(self, name) for name in LIMITS}
        good = all(x <= LIMITS[name] for name, x in measured.items() if x is not None)
        return good and not (self.tensors or self.refused or self.error)


def try_family(family: Family, folder: Path) -> Outcome:
    """Train, sample, save and judge one family; every check is against plain transformers."""
    made = {"start": save(family, 1, folder / "start"), "other": save(family, 2, folder / "other")}
    pairs = _write_data(folder)
    try:
        run = _run(_recipe(made, folder), folder / "run")
    except AlignzooError as error:
        return Outcome(family.name, refused=_one_sentence(error))
    except Exception as error:
        return Outcome(family.name, error=f"{type(error).__name__}: {error}")
    saved = run["dpo"] / "model"
    steps = _metrics(run["dpo"])
    start, other, after = (_plain(family, f) for f in (made["start"], made["other"], saved))
    result: dict[str, Any] = {
        "loss": abs(steps["loss"] - dpo_loss(start, other, pairs[:PAIRS])),
        "gap": _metrics(run["rollout"])["rollout/logprob_gap"],
        "samples": max(_shortfall(after, run["answers"]), _sampling_error(after, saved, pairs)),
        "export": abs(steps["validation/loss"] - dpo_loss(after, other, pairs[PAIRS:])),
        "tensors": _tensor_faults(made["start"], saved, start),
    }
    return Outcome(family.name, **result, **_try_scalar(made["start"], folder, pairs))


def _try_scalar(start: Path, folder: Path, pairs: Sequence[tuple[Row, Row]]) -> dict[str, Any]:
    try:
        stage = _run(_scalar_recipe(start, folder), folder / "scalar")["reward"]
    except AlignzooError as error:
        return {"no_scalar": _one_sentence(error)}
    except Exception as error:
        return {"error": f"scalar head: {type(error).__name__}: {error}"}
    model = AutoModelForSequenceClassification.from_pretrained(stage / "model")
    model.float().eval()
    losses = [reward_loss(model, *pair) for pair in pairs[:PAIRS]]
    return {"scalar": abs(_metrics(stage)["loss"] - sum(losses) / len(losses))}


def _one_sentence(error: AlignzooError) -> str:
    text = str(error)
    assert text and "\n" not in text and "unexpected" not in text.lower(), text
    return text


# --- the recipes --------------------------------------------------------------------------------


def _write_data(folder: Path) -> list[tuple[Row, Row]]:
    """Pairs as rows of ids: `pairs.jsonl` to train on and `held.jsonl` for validation."""
    noise = random.Random(0)

    def words(low: int, high: int) -> str:
        return "".join(noise.choices(string.ascii_letters, k=noise.randint(low, high)))

    made = [(words(1, 9), words(1, 24), words(1, 24)) for _ in range(PAIRS + HELD_OUT)]
    lines = [json.dumps({"prompt": p, "chosen": c, "rejected": r}) for p, c, r in made]
    (folder / "pairs.jsonl").write_text("\n".join(lines[:PAIRS]))
    (folder / "held.jsonl").write_text("\n".join(lines[PAIRS:]))
    (folder / "reward.py").write_text(REWARD)
    return [((_ids(p), [*_ids(c), 1]), (_ids(p), [*_ids(r), 1])) for p, c, r in made]


def _ids(text: str) -> list[int]:
    return [letter_ids()[letter] for letter in text]


def _recipe(models: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    pairs = {"name": str(folder / "pairs.jsonl")}
    once = {"steps": 1, "lr": 1e-3, "batch_size": PAIRS, "micro_batch_size": 4, "warmup": 0}
    stop = spare(450, VOCABULARY)
    sampling = {"max_new_tokens": 24, "stop": stop}
    dpo = {
        "name": "dpo",
        "algorithm": "dpo",
        "with": {"beta": BETA},
        "roles": {"reference": str(models["other"])},
        "data": pairs,
        "validation": {"data": {"name": str(folder / "held.jsonl")}, "every": 1},
        "train": once,
    }
    rollout = {
        "name": "rollout",
        "algorithm": "grpo",
        "data": pairs,
        "train": once | {"batch_size": 24},
        "rollout": {
            "samples_per_prompt": 4,
            "sampling": sampling,
            "reward": {"judge": "function", "with": {"path": f"{folder / 'reward.py'}:score"}},
        },
    }
    answers = {
        "name": "answers",
        "stage": "generate",
        "policy": "dpo",
        "data": pairs,
        "sampling": sampling | {"temperature": 0},
    }
    stages = [dpo, rollout, answers]
    return {"name": "family", "model": str(models["start"]), "threads": 1, "stages": stages}


def _scalar_recipe(start: Path, folder: Path) -> dict[str, Any]:
    """One step too small to change the weights, so that the saved ones are those of its loss."""
    train = {"steps": 1, "lr": 1e-30, "batch_size": PAIRS}
    stage = {
        "name": "reward",
        "algorithm": "reward_model",
        "data": {"name": str(folder / "pairs.jsonl")},
        "train": train,
    }
    return {"name": "scalar", "model": str(start), "threads": 1, "stages": [stage]}


class Silent:
    """Progress that says nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def _run(recipe: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """{stage: its folder}."""
    shutil.rmtree(folder, ignore_errors=True)
    run_recipe(Recipe.model_validate(recipe), json.dumps(recipe), load_plugins(), folder, Silent())
    return {path.name.split("-", 1)[1]: path for path in (folder / "stages").iterdir()}


def _metrics(stage: Path) -> dict[str, float]:
    return json.loads((stage / "metrics.jsonl").read_text().splitlines()[0])


# --- the same in plain transformers -------------------------------------------------------------


def _plain(family: Family, folder: Path) -> PreTrainedModel:
    """The model without the product: no noise, eager loading, evaluation mode."""
    auto = AutoModelForMultimodalLM if family.wrapper else AutoModelForCausalLM
    model: PreTrainedModel = auto.from_pretrained(folder)
    return model.float().eval()


@torch.no_grad()
def log_prob(model: PreTrainedModel, row: Row) -> float:
    """log p(response | prompt) of one unpadded row, in nats."""
    prompt, response = row
    ids = torch.tensor([[*prompt, *response]])
    steps = model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)[0, :-1]
    chosen = steps.gather(1, ids[0, 1:, None])[len(prompt) - 1 :]
    return float(chosen.double().sum())


def dpo_loss(
    policy: PreTrainedModel, reference: PreTrainedModel, pairs: Sequence[tuple[Row, Row]]
) -> float:
    """Mean of -log sigmoid(beta ([S_pi - S_ref](y_w) - [S_pi - S_ref](y_l)))."""

    def gain(row: Row) -> float:
        return log_prob(policy, row) - log_prob(reference, row)

    margins = torch.tensor(
        [gain(chosen) - gain(rejected) for chosen, rejected in pairs], dtype=torch.float64
    )
    return float(-logsigmoid(BETA * margins).mean())


@torch.no_grad()
def reward_loss(model: PreTrainedModel, chosen: Row, rejected: Row) -> float:
    """-log sigmoid(r_w - r_l), r at the last token of an unpadded row."""

    def reward(row: Row) -> float:
        ids = torch.tensor([[*row[0], *row[1]]])
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return float(model.score(hidden[0, -1]))

    difference = torch.tensor(reward(chosen) - reward(rejected), dtype=torch.float64)
    return float(-logsigmoid(difference))


@torch.no_grad()
def _sampling_error(plain: PreTrainedModel, saved: Path, pairs: Sequence[tuple[Row, Row]]) -> float:
    """Largest |log p| that the engine notes off that of an uncached forward of the row alone."""
    prompts = [prompt for (prompt, _), _ in pairs for _ in range(3)]
    sampling = Sampling(max_new_tokens=24, stop_ids=tuple(range(450, VOCABULARY)))
    model = load_model(load_plugins().hooks, ModelRef(str(saved)), Role())
    with closing(TransformersEngine().start(model)) as session:
        done = session.generate(prompts, sampling, [sample_key(n) for n in range(len(prompts))])
    worst = 0.0
    for prompt, completion in zip(prompts, done, strict=True):
        ids = torch.tensor([[*prompt, *completion.ids]])
        steps = plain(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        right = steps.log_softmax(-1).gather(1, torch.tensor(completion.ids)[:, None])[:, 0]
        worst = max(worst, float((right - torch.tensor(completion.log_probs)).abs().max()))
    return worst


@torch.no_grad()
def _shortfall(model: PreTrainedModel, stage: Path) -> float:
    """How many nats the worst greedy token is below the likeliest of an uncached full forward."""
    worst = 0.0
    for line in (stage / "data.jsonl").read_text().splitlines():
        row = json.loads(line)
        prompt = _ids(row["prompt"])
        for response in row["responses"]:
            ids = response["ids"]
            logits = model(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0]
            steps = logits[len(prompt) - 1 : -1].float().log_softmax(-1)
            taken = steps.gather(1, torch.tensor(ids)[:, None])[:, 0]
            worst = max(worst, float((steps.max(-1).values - taken).max()))
    return worst


def _tensor_faults(start: Path, saved: Path, model: PreTrainedModel) -> str:
    """Names must be the checkpoint's, and what is not the language model must keep its bytes."""
    before, after = _tensors(start), _tensors(saved)
    if before.keys() != after.keys():
        lost, new = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
        return f"{len(lost)} tensors lost ({', '.join(lost[:2])}), {len(new)} new"
    towers = [n for n in before if any(part in n for part in ("vision", "visual", "projector"))]
    moved = [n for n in towers if not torch.equal(before[n], after[n])]
    learnt = sum(not torch.equal(before[n], after[n]) for n in before)
    if learnt < (len(before) - len(towers)) / 2:
        return f"only {learnt} of {len(before)} tensors learnt"
    return f"{len(moved)} tensors of towers changed" if moved else ""


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        k: x for file in sorted(folder.glob("*.safetensors")) for k, x in load_file(file).items()
    }
