"""What a command line and an environment say about processes is done, or refused."""

from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alignzoo.cli.commands import app
from alignzoo.cli.doing import launching
from alignzoo.cli.doing.running import Asked
from alignzoo.contract.errors import UsageError
from alignzoo.launch.wish import Wish, check, join_slurm, refuse_nested

STEP = {
    "SLURM_JOB_ID": "731",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "gpu[03-04,09],big1",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (Wish(2, machine_rank=0), "need --machines"),
        (Wish(2, address="a:1"), "need --machines"),
        (Wish(None, 2, 0, "a:1"), "needs --processes"),
        (Wish(2, 2, None, "a:1"), "--machine-rank"),
        (Wish(2, 2, 0), "--main-address HOST:PORT"),
        (Wish(2, 2, 2, "a:1"), "numbered 0 to 1"),
        (Wish(2, 2, 0, "nowhere"), "HOST:PORT"),
    ],
)
def test_options_that_do_not_go_together_are_refused(wish, says):
    with pytest.raises(UsageError, match=says):
        check(wish, devices=0)


def test_more_processes_than_gpus_are_refused_with_both_numbers():
    with pytest.raises(UsageError, match=r"--processes 9, but this machine has 8 GPUs"):
        check(Wish(9), devices=8)
    check(Wish(8), devices=8)
    check(Wish(9), devices=0)


def test_workers_are_numbered_machine_by_machine():
    wish = Wish(4, 3, 2, "head:29500")
    assert (wish.world, list(wish.local)) == (12, [8, 9, 10, 11])
    assert (wish.host, wish.port) == ("head", 29500)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, "RANK=1 of WORLD_SIZE=2"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "1"}, "torchrun"),
        (STEP, r"task 3 of 4 \(srun\)"),
    ],
)
def test_processes_inside_a_worker_are_refused_and_the_group_is_named(environment, says):
    with pytest.raises(UsageError, match=says):
        refuse_nested(Wish(2), environment)


def test_srun_may_start_one_launching_process_per_machine():
    refuse_nested(Wish(8, 4, 3, "gpu03:29500"), STEP)
    with pytest.raises(UsageError, match="srun"):
        refuse_nested(Wish(8, 2, 1, "gpu03:29500"), STEP)


def test_tasks_of_srun_become_ranks_of_one_group():
    assert join_slurm(STEP) == {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "gpu03",
        "MASTER_PORT": "20731",
    }
    own = {"MASTER_ADDR": "head", "MASTER_PORT": "5"}
    assert join_slurm(STEP | own).items() >= own.items()
    assert join_slurm(STEP | {"SLURM_STEP_NODELIST": "n1,n2"})["MASTER_ADDR"] == "n1"


def test_a_batch_script_whose_tasks_nobody_started_is_no_single_process_in_silence():
    with pytest.raises(UsageError, match="srun alignzoo run"):
        join_slurm({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"})
    assert join_slurm({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) == {}
    assert join_slurm({}) == {}


def test_one_task_of_srun_and_the_workers_of_torchrun_keep_their_environment():
    assert join_slurm(STEP | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"}) == {}
    assert join_slurm({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}) == {}


def test_a_worker_is_told_all_that_the_command_line_was(monkeypatch):
    """A word that is left out, such as --rejudge-failed, would be heeded by one process alone."""
    told = []
    monkeypatch.setattr(launching, "launched_command", lambda asked, wish: told.append(asked) or 0)
    every = Asked("r.yaml", ("a=1", "b=2"), Path("out"), True, 3, ("seed=1,2", "c=3,4"), True)
    least = Asked("r.yaml", (), None, False, 1)
    for asked in (every, least):
        assert CliRunner().invoke(app, asked.words).exit_code == 0
        assert told.pop() == asked
    named = {field.name for field in fields(Asked)}
    assert all(getattr(every, name) != getattr(least, name) for name in named - {"recipe"})
