"""A rollout engine that notes what it is asked and in which arithmetic, and a benchmark of one."""

from __future__ import annotations

import types
from dataclasses import dataclass

import alignzoo_reinforce
import torch

from alignzoo import Benchmark, Column, PromptSample, RolloutEngine, RolloutSession, hookimpl
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.recipe.registry import Plugin, build_registry


@dataclass(frozen=True)
class Request:
    """One call of `generate`."""

    stop_ids: tuple[int, ...]
    autocast: torch.dtype | None  # None: off
    weights: torch.dtype


REQUESTS: list[Request] = []


@dataclass(frozen=True)
class Recording(RolloutEngine):
    """The built-in engine, and a note of every request."""

    name = "recording"

    def start(self, model):
        session = TransformersEngine().start(model)

        class Session(RolloutSession):
            def sync(self, weights, version):
                session.sync(weights, version)

            def generate(self, prompts, sampling, keys):
                on = torch.is_autocast_enabled("cpu")
                cast = torch.get_autocast_dtype("cpu") if on else None
                REQUESTS.append(Request(sampling.stop_ids, cast, model.dtype))
                return session.generate(prompts, sampling, keys)

        return Session()


class Quiz(Benchmark):
    """One prompt; the length of its answer."""

    name = "endquiz"

    def prompts(self, seed):
        return [PromptSample("the cat")]

    def measure(self, answers, baseline):
        return {"length": Column(tuple(float(a[0].n_tokens) for a in answers))}


def _hook(name, found):
    def register():
        return found

    register.__name__ = name
    return hookimpl(register)


def registry():
    """Both, and a method that samples."""
    module = types.ModuleType("recorder")
    module.register_rollout_engines = _hook("register_rollout_engines", [Recording])
    module.register_benchmarks = _hook("register_benchmarks", [Quiz])
    plugins = {"recorder": module, "alignzoo_reinforce": alignzoo_reinforce}
    return build_registry([(m, Plugin(name, "dist", "1", "")) for name, m in plugins.items()])


def every_kind_of_sampling(model: str, data: str, more: dict) -> tuple[list[dict], list[dict]]:
    """The stages and evaluations of a recipe in which all three places sample."""
    learn = {
        "name": "learn",
        "algorithm": "reinforce",
        "roles": {"teacher": model, "anchor": model},
        "data": data,
        "train": {"steps": 1, "batch_size": 4},
        "rollout": {"prompts": 4, "engine": "recording"} | more,
    }
    say = {"name": "say", "stage": "generate", "data": data, "engine": "recording"} | more
    quiz = {"benchmark": "endquiz", "models": ["learn"], "engine": "recording"} | more
    return [learn, say], [quiz]
