"""alignzoo and TRL at the same work: the same model, rows, batch and number of updates.

    python benchmarks/vs_trl.py [--only dpo grpo] [--peers FOLDER] [--json]

Llama with H = 256, 4 layers, V = 32,000, random weights, float32, one thread; batches of 16 pairs
or answers, 8 in one forward and backward. Lengths are sixteen quantiles of those of hh-rlhf, which
has a few longer rows; sampled answers have 48 tokens. Each runs as its own command, in turns with
the other, long once, once with one batch. The difference is shown, so that imports, loading and
writing are out. `NAME_cpu` is TRL over alignzoo (above 1: alignzoo is faster), `NAME_rss` alignzoo
over TRL, at the peak of the whole process.

Samples for people (`log_samples`) are off: TRL's trainers draw none. `dpo` includes the reference
pass of both, `dpo_cached` is an epoch whose reference values are known. `aligndistil` reads three
models; TRL's nearest loss, with two, stands beside it.

TRL lives in an environment of its own that this script makes in build/peers with pip, and asks a
package index for it; `--peers` names another, such as one made where an index is. Two to four
minutes of one core a row.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from measured import ROOT, Bar, Spent, beyond, in_turns, middle, parser, progress, show, spent
from trl_data import SMALL, Size, make_models, write_rows

CASE = Path(__file__).with_name("trl_case.py")
TRL = "1.16"
RUN = count()


@dataclass(frozen=True)
class Row:
    """A method here, and the trainer there that does the same."""

    algorithm: str
    rows: str  # of trl_data.ROWS
    trainer: str
    module: str = "trl"
    options: Mapping[str, Any] = field(default_factory=dict)  # here
    settings: Mapping[str, Any] = field(default_factory=dict)  # there
    roles: Mapping[str, str] = field(default_factory=dict)
    samples: int = 0  # to a prompt; 0: the rows have answers
    rewarded: bool = False
    scalar: bool = False
    epochs: bool = False  # the longer run reads the same rows once more


PAIRS = {"max_length": 2048}
DISTILLED = {"samples": 1, "module": "trl", "trainer": "DistillationTrainer"}
ROWS = {
    "dpo": Row("dpo", "pairs", "DPOTrainer", settings={**PAIRS, "beta": 0.1}),
    "dpo_cached": Row(
        "dpo",
        "pairs",
        "DPOTrainer",
        settings={**PAIRS, "beta": 0.1, "precompute_ref_log_probs": True},
        epochs=True,
    ),
    "kto": Row("kto", "labels", "KTOTrainer", settings=PAIRS),
    "simpo": Row(
        "simpo",
        "pairs",
        "CPOTrainer",
        module="trl.experimental.cpo",
        options={"beta": 2.0, "gamma_ratio": 0.25},
        settings={
            **PAIRS,
            "loss_type": "simpo",
            "cpo_alpha": 0.0,
            "beta": 2.0,
            "simpo_gamma": 0.5,
        },
    ),
    "reward_model": Row("reward_model", "pairs", "RewardTrainer", settings=PAIRS, scalar=True),
    "sft": Row("sft", "texts", "SFTTrainer", settings=PAIRS),
    "grpo": Row(
        "grpo",
        "prompts",
        "GRPOTrainer",
        options={"kl_coef": 0.04},
        settings={"beta": 0.04},
        samples=4,
        rewarded=True,
    ),
    "rloo": Row(
        "rloo",
        "prompts",
        "RLOOTrainer",
        options={"kl_coef": 0.05},
        settings={"beta": 0.05},
        samples=4,
        rewarded=True,
    ),
    "distillation": Row(
        "gkd", "prompts", roles={"teacher": "teacher"}, settings={"beta": 0.5}, **DISTILLED
    ),
    "online_dpo": Row(
        "dpo",
        "prompts",
        "OnlineDPOTrainer",
        module="trl.experimental.online_dpo",
        settings={"beta": 0.1, "max_length": 2048},
        samples=2,
        rewarded=True,
    ),
    "aligndistil": Row(
        "aligndistil",
        "prompts",
        options={"r": 2.0},
        roles={"teacher": "teacher", "anchor": "model"},
        settings={"beta": 1.0},
        **DISTILLED,
    ),
}
MUST = {"dpo": Bar(12, 15, at_most=False), "dpo_cached": Bar(12, 20, at_most=False)}
MUST |= {name: Bar(4, 8, at_most=False) for name in ("kto", "simpo", "reward_model", "sft")}
MUST |= {"grpo": Bar(3, 4, at_most=False)}
MUST |= {name: Bar(2.2, 3, at_most=False) for name in ("distillation", "aligndistil")}
BARS = {f"{name}_cpu": bar for name, bar in MUST.items()}
BARS |= {f"{name}_rss": Bar(0.25, 0.2) for name in ("dpo", "dpo_cached")}


# --- TRL's environment -----------------------------------------------------------------------


def peers(folder: Path) -> Path:
    """The Python of an environment with TRL, made where there is none."""
    python = folder / "bin" / "python"
    if not python.exists():
        progress(f"making {folder}")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        same = [f"{name}=={version(name)}" for name in ("torch", "transformers")]
        ask = [python, "-m", "pip", "install", "--quiet", *same, f"trl=={TRL}.*"]
        if subprocess.run(ask, check=False).returncode:
            raise SystemExit(
                f"no TRL {TRL} here: pip found no package index that has it; make an environment "
                "where there is one and name it with --peers"
            )
    said = spent([python, "-c", "import json, trl; print(json.dumps({'v': trl.__version__}))"]).said
    if not str(said.get("v")).startswith(f"{TRL}."):
        raise SystemExit(f"{folder} has TRL {said.get('v')}; the figures are for {TRL}")
    return python


# --- both sides ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a comparison runs."""

    folder: Path
    python: Path  # TRL's
    size: Size

    def data(self, row: Row, *, long: bool) -> Path:
        """Rows of a run: of one batch, and as many more as the size says."""
        size, prompts = self.size, self.size.batch // max(1, row.samples)
        batches = size.more if row.epochs else 1 + size.more * long
        file = self.folder / f"{row.rows}-{prompts * batches}.jsonl"
        return write_rows(file, row.rows, prompts * batches, size.vocabulary)

    def fresh(self) -> Path:
        """A new folder."""
        made = self.folder / f"run-{next(RUN)}"
        made.mkdir()
        return made


def recipe(place: Place, row: Row, folder: Path, *, long: bool) -> Path:
    """What alignzoo is to do."""
    size = place.size
    train = {"batch_size": size.batch, "micro_batch_size": size.micro, "lr": 1e-6}
    stage: dict[str, Any] = {
        "name": "it",
        "algorithm": row.algorithm,
        "with": dict(row.options),
        "data": {"name": str(place.data(row, long=long)), "max_length": 2048},
        "train": {**train, "epochs": 2 if row.epochs and long else 1},
        "log_samples": False,  # TRL logs none; in so few steps they would be a third of the work
    }
    if row.roles:
        stage["roles"] = {role: str(place.folder / name) for role, name in row.roles.items()}
    if row.samples:
        stage["rollout"] = {
            "prompts": size.batch // row.samples,
            "samples_per_prompt": row.samples,
            "sampling": {"max_new_tokens": size.new_tokens},
        }
    if row.rewarded:
        rules = folder / "rules.py"
        rules.write_text("def score(prompt, answer):\n    return float(len(answer))\n")
        stage["rollout"]["reward"] = {"judge": "function", "with": {"path": f"{rules}:score"}}
    about = {"name": "it", "model": str(place.folder / "model"), "seed": 0, "threads": 1}
    file = folder / "recipe.yaml"
    file.write_text(json.dumps({**about, "stages": [stage]}))
    return file


def ours(place: Place, row: Row, *, long: bool) -> Spent:
    """alignzoo's command line."""
    folder = place.fresh()
    file = recipe(place, row, folder, long=long)
    command = [sys.executable, "-m", "alignzoo", "run", file, "--output", folder / "run"]
    found = spent(command, folder, {"ALIGNZOO_CACHE": str(folder / "cache")})
    log = next((folder / "run" / "stages").glob("*/metrics.jsonl")).read_text().splitlines()
    return replace(found, said={"loss": [json.loads(line)["loss"] for line in log]})


def theirs(place: Place, row: Row, *, long: bool) -> Spent:
    """The trainer in an environment of its own."""
    folder, size = place.fresh(), place.size
    settings = {
        **row.settings,
        "per_device_train_batch_size": size.micro // (2 if row.trainer.startswith("Online") else 1),
        "gradient_accumulation_steps": size.batch // size.micro,
        "num_train_epochs": 2 if row.epochs and long else 1,
    }
    if row.samples:
        limit = "max_new_tokens" if row.trainer.startswith("Online") else "max_completion_length"
        settings[limit] = size.new_tokens
    if row.samples > 2:
        settings["num_generations"] = row.samples
    case = {
        "module": row.module,
        "trainer": row.trainer,
        "settings": settings,
        "model": str(place.folder / "model"),
        "teacher": str(place.folder / row.roles["teacher"]) if row.roles else None,
        "data": str(place.data(row, long=long)),
        "rewarded": row.rewarded,
        "scalar": row.scalar,
        "padding": "left" if row.samples else "right",
        "output": str(folder / "out"),
    }
    file = folder / "case.json"
    file.write_text(json.dumps(case))
    more = {"HF_HOME": str(folder / "hf"), "TRL_EXPERIMENTAL_SILENCE": "1"}
    return spent([place.python, "-P", CASE, file], folder, more)


SIDES = {"alignzoo": ours, "trl": theirs}


def compare(place: Place, name: str, rounds: int) -> tuple[dict[str, Any], dict[str, float]]:
    """A row of the table and its figures; none where TRL has no such trainer."""
    row = ROWS[name]
    works: dict[Any, Callable[[], Spent]] = {
        (side, long): partial(run, place, row, long=long)
        for long in (False, True)
        for side, run in SIDES.items()
    }
    found = {key: middle(some) for key, some in in_turns(works, rounds).items()}
    if (absent := found["trl", False].said.get("absent")) is not None:
        return {"method": name, "TRL": f"absent: {absent}"}, {}
    mine, other = (beyond(found[side, True], found[side, False]) for side in SIDES)
    first = [found[side, True].said["loss"][0] for side in SIDES]
    shown = {
        "method": name,
        "TRL": row.trainer,
        "alignzoo CPU s": mine.cpu,
        "TRL CPU s": other.cpu,
        "alignzoo MB": mine.peak,
        "TRL MB": other.peak,
        "first losses": f"{first[0]:.4f}, {first[1]:.4f}",
    }
    progress(str(shown))
    return shown, {f"{name}_cpu": other.cpu / mine.cpu, f"{name}_rss": mine.peak / other.peak}


def main() -> None:
    """Make both worlds, compare row by row, show."""
    own = parser(__doc__)
    own.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    own.add_argument("--peers", type=Path, default=ROOT / "build" / "peers", metavar="FOLDER")
    own.add_argument("--batch", type=int, help="pairs or answers; a multiple of 16 is steady")
    own.add_argument("--more", type=int, help="batches that the longer run has more")
    asked = own.parse_args()
    size = SMALL if asked.small else Size()
    size = replace(size, batch=asked.batch or size.batch, more=asked.more or size.more)
    python, rows, figures = peers(asked.peers), [], {}
    with tempfile.TemporaryDirectory() as folder:
        make_models(Path(folder), size)
        for name in asked.only:
            shown, more = compare(Place(Path(folder), python, size), name, asked.rounds)
            rows.append(shown)
            figures |= more
    for row in rows:
        row |= {name: row.get(name, "") for name in max(rows, key=len)}
    show(asked, rows, figures, BARS)


if __name__ == "__main__":
    main()
