"""Twenty and more ways in which a run of several processes can go wrong."""

from __future__ import annotations

import signal
import socket

from hangs import OFFLINE, ROLLOUT, Setup, send, when_training

LONG = OFFLINE.replace("steps: 6", "steps: 600")
LABEL = """
  - {name: pairs, stage: label, data: {name: facts.prompts, with: {size: 8}}, judge: faulty}
"""
SHARDED = "parallel: {strategy: fsdp2}\n"
BROKEN = "broken on purpose"
GOES_ON = r"^interrupted; `alignzoo run .*--processes 2` again resumes in stage 'sft' at step \d+$"
TWO = (("--machine-rank", "0"), ("--machine-rank", "1"))
MACHINES = {"words": ("--processes", "1", "--machines", "2"), "machines": TWO}
FINE = {"status": 0, "says": "^sft: done", "limit": 180.0}  # of the whole run


def stop_the_first(processes, place):
    """Machine 0 waits for a machine that keeps to its command; its user gives up."""
    processes[1].wait(60)
    processes[0].send_signal(signal.SIGINT)


TAKEN = socket.socket()  # held as long as this module lives
TAKEN.bind(("127.0.0.1", 0))
TAKEN.listen()
ELSEWHERE = f"127.0.0.1:{TAKEN.getsockname()[1]}"

SETUPS = [
    Setup("unequal lengths", recipe=OFFLINE.replace("size: 24", "size: 24, longest: 90"), **FINE),
    Setup("fewer items than ranks", recipe=OFFLINE.replace("size: 24", "size: 1"), **FINE),
    Setup("an error in the data of one", BROKEN, faults="data:1:raise", worker=1),
    Setup("an error in the loss of one", BROKEN, faults="loss:1:raise", worker=1),
    Setup("an error in the loss of the first", BROKEN, faults="loss:0:raise", worker=0),
    Setup("an error in a hook that loads", BROKEN, faults="load:1:raise", worker=1),
    Setup("an error in a hook that watches", "on_step of faulty failed", status=0,
          faults="step:0:raise"),
    Setup("an error in the reward of one", BROKEN, ROLLOUT, faults="reward:1:raise", worker=1),
    Setup("an error in the reward of the first", BROKEN, ROLLOUT, "reward:0:raise", worker=0),
    Setup("SIGKILL of one", "worker 1 of 2 was ended by signal 9, SIGKILL", limit=30,
          faults="loss:1:kill", worker=1),
    Setup("SIGKILL of the first", "worker 0 of 2 was ended by signal 9, SIGKILL", limit=30,
          faults="loss:0:kill", worker=0),
    Setup("SIGKILL of one that samples", "worker 1 of 2 was ended by signal 9", ROLLOUT,
          faults="reward:1:kill", worker=1),
    Setup("SIGSTOP of one", r"worker 1 of 2 has been stopped \(SIGSTOP\)", faults="loss:1:stop",
          worker=1),
    Setup("SIGSTOP of the first", "worker 0 of 2 has been stopped", faults="loss:0:stop",
          worker=0),
    Setup("one that exits", "worker 1 of 2 was ended by exit status 3", faults="loss:1:exit",
          worker=1),
    Setup("Ctrl-C", GOES_ON, LONG, status=130, disturb=when_training(send(signal.SIGINT))),
    Setup("SIGTERM", GOES_ON, LONG, status=143, disturb=when_training(send(signal.SIGTERM))),
    Setup("SIGTERM of one worker", GOES_ON, LONG, status=143,
          disturb=when_training(send(signal.SIGTERM, rank=1))),
    Setup("SIGKILL of the launching process", "", LONG, status=-9,
          disturb=when_training(send(signal.SIGKILL))),
    Setup("one that is slow", r"waiting for worker 1 since 6\d s \(in stage 'sft'\)", status=0,
          faults="loss:1:slow", limit=120),
    Setup("one that holds Python's lock", "^sft: done", status=0, faults="loss:1:hold", limit=90),
    Setup("FSDP2, unequal lengths", **FINE,
          recipe=OFFLINE.replace("size: 24", "size: 24, longest: 90") + SHARDED),
    Setup("FSDP2, fewer items than ranks", **FINE,
          recipe=OFFLINE.replace("size: 24", "size: 1") + SHARDED),
    Setup("FSDP2, an error in the loss of one", BROKEN, OFFLINE + SHARDED, "loss:1:raise",
          worker=1),
    Setup("FSDP2, an error in the reward of one", BROKEN, ROLLOUT + SHARDED, "reward:1:raise",
          worker=1),
    Setup("FSDP2, SIGKILL of one", "worker 1 of 2 was ended by signal 9", OFFLINE + SHARDED,
          "loss:1:kill", worker=1),
    Setup("FSDP2, Ctrl-C", GOES_ON, LONG + SHARDED, status=130,
          disturb=when_training(send(signal.SIGINT))),
    Setup("a port that is taken", "cannot listen there; is the port taken", status=2,
          words=("--processes", "1", "--machines", "2", "--machine-rank", "0",
                 "--main-address", ELSEWHERE)),
    Setup("a worker that starts workers", "this process is one of several already", status=2,
          environment={"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}),
    Setup("two machines, SIGKILL of a worker", "worker 1 of 2 was ended by signal 9",
          faults="loss:1:kill", worker=1, **MACHINES),
    Setup("two machines, an error on the second", BROKEN, faults="loss:1:raise", worker=1,
          **MACHINES),
    Setup("two machines, the second dies", "worker 1 of 2|machine 1 has not answered", LONG,
          disturb=when_training(send(signal.SIGKILL, machine=1)), **MACHINES),
    Setup("two machines, the first dies", "machine 0.*does not answer", LONG, of=1,
          disturb=when_training(send(signal.SIGKILL)), **MACHINES),
    Setup("two machines, the second is stopped", "machine 1 has not answered", LONG,
          disturb=when_training(send(signal.SIGSTOP, machine=1)), **MACHINES),
    Setup("two machines, two commands", "another one", status=2, disturb=stop_the_first,
          words=("--processes", "1", "--machines", "2"), of=1,
          machines=(TWO[0], (*TWO[1], "--set", "seed=5"))),
    Setup("torchrun, an error in the loss of one", BROKEN, faults="loss:1:raise", worker=1,
          words=(),
          launcher=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")),
]  # fmt: skip
