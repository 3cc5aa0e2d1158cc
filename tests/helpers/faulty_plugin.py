"""A plug-in whose parts break on purpose: FAULTS="place:rank:kind ..." in the environment."""

import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from alignzoo import (
    Algorithm,
    Dataset,
    Judge,
    Loss,
    Response,
    Role,
    RolloutBatch,
    Score,
    Term,
    TextBatch,
    TextSample,
    hookimpl,
    option,
)
from alignzoo.ops import log_prob

SEEN = []  # calls so far, by place


def broken():
    raise ValueError("broken on purpose")


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(0.1)


KINDS = {
    "raise": broken,
    "kill": lambda: send(signal.SIGKILL),
    "stop": lambda: send(signal.SIGSTOP),
    "exit": lambda: os._exit(3),
    "slow": lambda: time.sleep(75),
    "hold": lambda: ctypes.PyDLL(None).sleep(40),  # with Python's lock: no thread can run
}


def act(place, call=1):
    """Do what was asked of this rank at this place, at its n-th call; errors stay from then on, as
    the engine may try a loss on made-up rows, and asks again where that fails.
    """
    SEEN.append(place)
    for fault in os.environ.get("FAULTS", "").split():
        where, rank, kind = fault.split(":")
        due = SEEN.count(place) >= call if kind == "raise" else SEEN.count(place) == call
        if (where, rank) == (place, os.environ.get("RANK", "0")) and due:
            Path(os.environ["FAULT_AT"]).touch()
            KINDS[kind]()


@dataclass(frozen=True)
class FaultyText(Dataset):
    """Made-up sentences."""

    name = "faulty.text"
    size: int = option(24, "samples", gt=0)
    longest: int = option(7, "words", gt=0)

    def samples(self, seed):
        act("data")
        for number in range(self.size):
            text = "the food is " + "fish " * (number**2 % self.longest) + "."
            yield TextSample("tell me the food of the fox .", Response(text))


class Faulty(Algorithm[TextBatch]):
    """L = -log pi(y|x)."""

    name = "faulty"
    batch = TextBatch
    roles = {"policy": Role(trainable=True)}
    metrics = {}

    def signals(self):
        return {"policy": log_prob("policy")}

    def loss(self, batch, signals, state):
        act("loss", 8)
        return Loss(Term(-signals["policy"], batch.mask))


class FaultyRollout(Algorithm[RolloutBatch]):
    """L = -r log pi(y|x)."""

    name = "faulty_rollout"
    batch = RolloutBatch
    roles = {"policy": Role(trainable=True)}
    metrics = {}

    def signals(self):
        return {"policy": log_prob("policy")}

    def loss(self, batch, signals, state):
        act("loss", 8)
        return Loss(Term(-signals["policy"] * batch.reward[:, None], batch.mask))


@dataclass(frozen=True)
class FaultyJudge(Judge):
    """A constant."""

    name = "faulty"

    def score(self, answers):
        act("reward", 2)
        return [Score(1.0) for _ in answers]


@hookimpl
def register_algorithms():
    return [Faulty, FaultyRollout]


@hookimpl
def register_datasets():
    return [FaultyText]


@hookimpl
def register_judges():
    return [FaultyJudge]


@hookimpl
def load_model(ref, role):
    act("load")


@hookimpl
def on_step(run, stage, step, metrics):
    act("step", 2)


@hookimpl
def on_run_end(run, error):
    act("end")
