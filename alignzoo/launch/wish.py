"""What the command line and the environment say about processes; contradictions are refused."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from alignzoo.contract.errors import UsageError

RUN = "alignzoo run RECIPE"


@dataclass(frozen=True)
class Wish:
    """How many processes to start, on how many machines, and which of them this one is."""

    processes: int | None = None  # on each machine
    machines: int = 1
    machine_rank: int | None = None  # from 0
    address: str | None = None  # HOST:PORT of machine 0

    @property
    def here(self) -> int:
        """Number of this machine."""
        return self.machine_rank or 0

    @property
    def world(self) -> int:
        """Number of all workers."""
        return (self.processes or 1) * self.machines

    @property
    def local(self) -> range:
        """Numbers of the workers on this machine."""
        size = self.processes or 1
        return range(self.here * size, (self.here + 1) * size)

    @property
    def threads(self) -> int:
        """Of each worker, so that all together fit the machine."""
        return max(1, (os.cpu_count() or 1) // (self.processes or 1))

    @property
    def host(self) -> str:
        """Where machine 0 is found."""
        return self.address.rpartition(":")[0] if self.address else "127.0.0.1"

    @property
    def port(self) -> int:
        """Where machine 0 listens; 0 lets the system choose."""
        return int(self.address.rpartition(":")[2]) if self.address else 0


def check(wish: Wish, devices: int) -> None:
    """Raise UsageError for what contradicts itself, or the number of accelerators here."""
    several = wish.machines > 1
    if not several and (wish.machine_rank is not None or wish.address):
        raise UsageError("--machine-rank and --main-address need --machines: how many there are")
    if several and (wish.processes is None or wish.machine_rank is None or not wish.address):
        raise UsageError(
            f"--machines {wish.machines} needs --processes (on each machine), --machine-rank "
            "(0 on the first) and --main-address HOST:PORT of the first"
        )
    if wish.here >= wish.machines:
        raise UsageError(
            f"--machine-rank {wish.here}: with --machines {wish.machines} they are numbered "
            f"0 to {wish.machines - 1}"
        )
    if wish.address and not re.fullmatch(r".+:\d+", wish.address):
        raise UsageError(f"--main-address {wish.address}: HOST:PORT, such as node01:29500")
    if devices and (wish.processes or 1) > devices:
        raise UsageError(
            f"--processes {wish.processes}, but this machine has {devices} GPUs; a process needs "
            f"one of its own: at most --processes {devices}"
        )


def begun(environment: Mapping[str, str]) -> str | None:
    """Who started this process as one of several, if somebody did."""
    size = environment.get("WORLD_SIZE", "1")
    if size != "1" or "LOCAL_RANK" in environment:
        own = environment.get("RANK", environment.get("LOCAL_RANK"))
        return f"RANK={own} of WORLD_SIZE={size} (torchrun or accelerate launch)"
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks != "1":
        return f"task {environment.get('SLURM_PROCID')} of {tasks} (srun)"
    return None


def refuse_nested(wish: Wish, environment: Mapping[str, str]) -> None:
    """Workers start no workers; srun may start one launching process per machine."""
    group = begun(environment)
    per_machine = environment.get("SLURM_STEP_NUM_TASKS") == str(wish.machines) != "1"
    if group is None or (per_machine and "LOCAL_RANK" not in environment):
        return
    raise UsageError(
        f"--processes {wish.processes}: this process is one of several already, {group}; leave "
        "--processes out to take part in that group, or start it alone"
    )


def join_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """The group that srun made of its tasks, in the variables that torch reads.

    Raises UsageError in a batch script whose tasks nobody started: one process would do the
    work of all of them.
    """
    if begun(environment) is None:
        tasks = environment.get("SLURM_NTASKS", "1")
        if tasks != "1" and "SLURM_STEP_NUM_TASKS" not in environment:
            raise UsageError(
                f"SLURM_NTASKS is {tasks}, but this is the batch script and none of its tasks: "
                f"start them with `srun {RUN}`, or say --processes"
            )
        return {}
    if "SLURM_STEP_NUM_TASKS" not in environment or "WORLD_SIZE" in environment:
        return {}
    port = 20000 + int(environment.get("SLURM_JOB_ID", "0")) % 20000
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": environment.get("MASTER_ADDR") or _first_node(environment),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(port),
    }


def _first_node(environment: Mapping[str, str]) -> str:
    """The first of "node[03-05,09],other"."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    found = re.match(r"([^,\[]+)(?:\[([^\],-]+))?", nodes)
    if found is None:
        raise UsageError("srun named no node (SLURM_STEP_NODELIST); set MASTER_ADDR to the first")
    return found[1] + (found[2] or "")
