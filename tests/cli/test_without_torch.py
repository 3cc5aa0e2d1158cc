"""What looks at plug-ins and runs starts without torch, which takes longer than all else."""

import json
import re
import subprocess
import sys

import pytest
import yaml

from alignzoo.cli.looking.catalogue import built_in, built_in_class, summary_of


def run_folder(folder):
    """A run with one stage, as far as its curves go."""
    stage = folder / "stages" / "01-dpo"
    stage.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    own = {"name": "dpo", "algorithm": "dpo"}
    recipe = {"name": "toy", "model": "m", "seed": 0, "stages": [own]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    rows = [json.dumps({"step": n, "rewards/margin": 1 / n}) for n in (1, 2, 3)]
    (stage / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    return folder


WORDS = {
    "list": "AlignDistil",
    "show dpo": "rewards/margin",
    "plot": "rewards/margin over step, 1 curve",
}


@pytest.mark.parametrize("command", WORDS)
def test_looking_at_plugins_and_curves_loads_no_torch(tmp_path, command):
    words = command.split()
    if command == "plot":
        words += [run_folder(tmp_path / "run"), "--y", "rewards/margin", "-o", tmp_path / "a.svg"]
    whole = [sys.executable, "-X", "importtime", "-m", "alignzoo", *map(str, words)]
    done = subprocess.run(whole, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert WORDS[command] in done.stdout
    found = re.findall(r"\|\s+(torch\._C|transformers|safetensors)$", done.stderr, re.MULTILINE)
    assert found == []


def test_what_is_said_of_the_core_s_own_is_what_their_classes_say():
    """The engine's is written down, because its class comes with torch."""
    for kind, found in built_in().items():
        for name, summary in found.items():
            assert summary == summary_of(built_in_class(name)), (kind, name)
