"""The scripts of recipes/launch, run as they stand: stand-ins for srun and ssh start processes.

Two agents on the loopback address act as two machines; everything after `srun` and `ssh` is real.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hangs import HEAD, OFFLINE, family, free_port, plugin_folder

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "recipes" / "launch"
STANDINS = {
    "alignzoo": f'exec {sys.executable} -m alignzoo "$@"',
    "scontrol": '[ "$*" = "show hostnames gpu[1-2]" ] && printf "127.0.0.1\\n127.0.0.2\\n"',
    # srun starts its command once per machine, numbers the copies, and waits for all.
    "srun": """
for id in 0 1; do
    SLURM_NODEID=$id SLURM_PROCID=$id SLURM_LOCALID=$id SLURM_STEP_NUM_TASKS=2 SLURM_NNODES=2 \\
        SLURM_STEP_NODELIST=localhost SLURM_JOB_ID=$PORT "$@" &
    ids="$ids $!"
done
for id in $ids; do wait $id || status=$?; done
exit ${status:-0}""",
    # ssh gives the rest of its line to a shell of the other machine.
    "ssh": '[ "$1" = -t ] && shift; echo "to $1" >&2; shift; exec bash -c "$*"',
}
CASES = {
    "slurm.sh": {"SLURM_JOB_NODELIST": "gpu[1-2]", "SLURM_NTASKS": "2", "SLURM_NNODES": "2"},
    "ssh.sh": {"HOSTS": "127.0.0.1 localhost"},
}


@pytest.fixture
def run(tmp_path):
    """A command in a folder with a recipe, the stand-ins first on its path: how it ended."""
    for name, text in STANDINS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "recipe.yaml").write_text(HEAD + OFFLINE)
    path = [str(plugin_folder(tmp_path)), str(ROOT), str(ROOT / "plugins")]
    variables = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path),
        "ALIGNZOO_CACHE": str(tmp_path / "cache"),
        "PROCESSES": "1",
        "PORT": str(free_port()),
        "HANG": tmp_path.name,
    }

    def call(*command, **more):
        done = subprocess.run(
            ["bash", *command],
            cwd=tmp_path,
            env={**os.environ, **variables, **more},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert family(tmp_path.name) == []
        return done

    return call


@pytest.mark.slow
@pytest.mark.parametrize("script", CASES)
def test_a_script_trains_on_two_machines_as_one_group(script, run, tmp_path):
    done = run(str(SCRIPTS / script), "recipe.yaml", "--output", "run two", **CASES[script])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sft: done") == 1  # the first worker speaks, and it alone
    assert (tmp_path / "run two" / "stages" / "01-sft" / "model").is_dir()


@pytest.mark.slow
def test_tasks_of_srun_train_as_one_group_without_a_launching_process(run, tmp_path):
    done = run("-c", "srun alignzoo run recipe.yaml --output run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sft: done") == 1
    assert (tmp_path / "run" / "stages" / "01-sft" / "model").is_dir()


def test_every_script_is_tried():
    assert {path.name for path in SCRIPTS.iterdir()} == CASES.keys()
