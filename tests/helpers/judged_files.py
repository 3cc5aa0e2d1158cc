"""Two files of outputs, a recipe that lets a judge compare them, and the rows it gives."""

import json

from judged_plugins import registry
from run_parts import Heard

from alignzoo.recipe.blocks import Recipe
from alignzoo.run import How, run_recipe

LONG = ["a long answer", "a long answer", "tiny", "a long answer"]
SHORT = ["short", "short", "short", "short"]


def outputs(tmp_path, name, texts):
    file = tmp_path / f"{name}.jsonl"
    rows = [{"prompt": f"prompt {i}", "output": text} for i, text in enumerate(texts)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def recipe(tmp_path, judge="clerk", *, ours=LONG, theirs=SHORT, **more):
    ours, theirs = outputs(tmp_path, "ours", ours), outputs(tmp_path, "theirs", theirs)
    evaluate = {"benchmark": "longer", "models": [ours], "baseline": theirs, "judge": judge} | more
    return Recipe.model_validate({"name": "r", "model": ours, "stages": [], "evaluate": [evaluate]})


def run(what, folder, **more):
    return run_recipe(what, "", registry(), folder, Heard(), How(**more))


def rows(folder):
    return {
        r["model"].rpartition("/")[2]: r for r in map(json.loads, open(folder / "scores.jsonl"))
    }
