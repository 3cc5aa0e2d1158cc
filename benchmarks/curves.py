"""A short run of every method on the embedded world: the curves and figures of its page.

    python benchmarks/curves.py             # all methods; or --only NAME... --seeds 3

Each method trains for 40 steps as its bundled recipe says (else as `table1`, or another that has
it), seeds 3 and 4, from parents with their full budget. Parents are shared between runs: the first
takes minutes and the others half a minute of one core. What comes out is measured on 200 held-out
prompts x 2 answers against the SFT model. 40 steps show how a method begins; no rate was tuned for
so few, and a seed is an anecdote, so the figures rank nothing: tuned comparisons are in paper.md.

Writes results/curves.json beside this file; methods and seeds that are not named keep theirs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from measured import commit

from alignzoo.recipe.registry import load_plugins

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "curves.json"
STEPS, SEEDS = 40, (3, 4)
EVALUATE = {"benchmark": "facts", "with": {"size": 200}, "baseline": "sft", "samples": 2}
SAMPLING = {"sampling": {"max_new_tokens": 64}}
CHOSEN = {"dpo": ("table1", "dpo-strong")}  # the tuned rate; the first row is the teacher
SHOWN = (  # what a method is after, first one that it logs and that moves
    "rollout/reward",
    "reward/seq",
    "kl_full/teacher_token",
    "rewards/accuracy",
    "rewards/desirable",
)


def recipes(method: str) -> list[Path]:
    """Bundled recipes of the embedded world: the method's own, that of the table, the others."""
    found = sorted((ROOT / "recipes").glob("*.yaml"))
    return sorted(found, key=lambda path: (path.stem != method, path.stem != "table1"))


def source(method: str) -> tuple[Path, str] | None:
    """The recipe and the stage that show a method; None: no bundled recipe trains it."""
    if method in CHOSEN:
        name, stage = CHOSEN[method]
        return ROOT / "recipes" / f"{name}.yaml", stage
    for path in recipes(method):
        for stage in yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]:
            if stage.get("algorithm") == method and "adapter" not in stage:
                return path, stage["name"]
    return None


def parents(stage: Mapping[str, Any]) -> Iterator[str]:
    """Names of the stages that a stage builds on."""
    for data in listed(stage.get("data", "")):
        yield data["name"] if isinstance(data, dict) else data
    yield stage.get("policy", "")
    yield from stage.get("roles", {}).values()
    for reward in listed(stage.get("rollout", {}).get("reward", {})):
        yield reward.get("model", "")


def listed(some: Any) -> list[Any]:
    """One or several, as a recipe may write them."""
    return some if isinstance(some, list) else [some]


def shortened(path: Path, name: str, seed: int) -> dict[str, Any]:
    """The recipe with one stage of 40 steps, what it builds on, and a small evaluation."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    by_name = {stage["name"]: stage for stage in content["stages"]}
    needed, rest = set(), [name, "sft"]
    while rest:
        one = rest.pop()
        if one in by_name and one not in needed:
            needed.add(one)
            rest += parents(by_name[one])
    kept = [dict(stage) for stage in content["stages"] if stage["name"] in needed]
    last = kept[-1]
    train = {key: x for key, x in last["train"].items() if key != "epochs"}
    last["train"] = train | {"steps": STEPS}
    writes = last["algorithm"] != "reward_model"
    evaluate = [EVALUATE | SAMPLING | {"models": [name]}] if writes else []
    return {**content, "seed": seed, "stages": kept, "evaluate": evaluate}


def figures(run: Path, name: str) -> dict[str, Any]:
    """Curves of a finished stage, and what was measured at its end."""
    (stage,) = (run / "stages").glob(f"*-{name}")
    rows = [json.loads(x) for x in (stage / "metrics.jsonl").read_text("utf-8").splitlines()]
    curves = {key: [row.get(key) for row in rows] for key in ("loss", *SHOWN)}
    moving = [key for key in SHOWN if len({x for x in curves[key] if x is not None}) > 1]
    shown = {
        key: [None if x is None else float(f"{x:.4g}") for x in curves[key]]
        for key in ("loss", *moving[:1])
    }
    scores = run / "scores.jsonl"
    found = (
        [json.loads(x) for x in scores.read_text("utf-8").splitlines()] if scores.exists() else []
    )
    columns = next((row["columns"] for row in found if row["model"] == name), {})
    measured = {
        key: [round(columns[key][end], 3) for end in ("mean", "low", "high")]
        for key in ("win_rate", "true_reward")
        if key in columns
    }
    return {"curves": shown, "measured": measured, "commit": commit()}


def short_run(method: str, seed: int, folder: Path) -> dict[str, Any] | None:
    """Train and measure one method."""
    found = source(method)
    if found is None:
        return None
    path, name = found
    run = folder / f"{method}-{seed}"
    recipe = run.with_suffix(".yaml")
    content = yaml.safe_dump(shortened(path, name, seed), sort_keys=False)
    recipe.write_text(content, encoding="utf-8")
    command = [sys.executable, "-m", "alignzoo", "run", str(recipe), "--output", str(run)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {"recipe": path.stem, "stage": name, "seeds": {str(seed): figures(run, name)}}


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a method with those of one more seed."""
    same = all(old.get(key) == new[key] for key in ("recipe", "stage"))
    seeds = {**(old["seeds"] if same else {}), **new["seeds"]}
    return {**new, "seeds": dict(sorted(seeds.items(), key=lambda pair: int(pair[0])))}


def main(only: Sequence[str], seeds: Sequence[int], folder: Path) -> None:
    """Run, and keep what was found before."""
    registry = load_plugins()
    old = json.loads(RESULTS.read_text(encoding="utf-8"))["methods"] if RESULTS.exists() else {}
    found = {name: row for name, row in old.items() if name in registry.algorithms}
    for seed, name in [(s, n) for s in seeds for n in only or sorted(registry.algorithms)]:
        row = short_run(name, seed, folder)
        if row is None:
            print(f"{name}: no bundled recipe trains it")
            continue
        print(f"{name}, seed {seed}: {row['seeds'][str(seed)]['measured']}", flush=True)
        found[name] = merged(found.get(name, {}), row)
        about = {"command": "python benchmarks/curves.py", "steps": STEPS}
        page = {"about": about, "methods": dict(sorted(found.items()))}
        RESULTS.write_text(json.dumps(page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS, metavar="SEED")
    parser.add_argument("--output", type=Path, help="keep the runs in this folder")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        main(asked.only, asked.seeds, folder)
