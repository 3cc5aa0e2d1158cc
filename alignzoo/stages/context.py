"""What a stage is given besides its own block: resolved names, samples, a folder, a voice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from alignzoo.contract.errors import DataError, PluginError
from alignzoo.contract.progress import Progress
from alignzoo.contract.rollout import RolloutEngine
from alignzoo.contract.stage import ModelRef
from alignzoo.contract.types import PairSample, Sample
from alignzoo.data.samples import Loaded, load_samples
from alignzoo.recipe.blocks import DataSpec, EngineSpec, Recipe
from alignzoo.recipe.observers import Observers
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry
from alignzoo.stages.engines import engine_of
from alignzoo.store.identity import stated_identity
from alignzoo.store.inputs import data_source, model_ref


@dataclass(frozen=True)
class StageContext:
    """A stage's view of its run. `folder` exists and is the stage's own."""

    recipe: Recipe
    registry: Registry
    run: Path  # the run's folder
    folder: Path
    name: str
    index: int  # from 1
    total: int
    outputs: Mapping[str, Path]  # earlier stage -> its folder
    progress: Progress
    again: bool = False  # ask judges anew what they answered without a verdict
    observers: Observers | None = None
    told: dict[str, str] = field(default_factory=dict)  # what a run says once -> who said it
    keys: str = ""  # how `--set` begins where this block is one of a recipe: "evaluate.0."

    @property
    def seed(self) -> int:
        """The recipe's seed. Noise must not depend on the stage's name or number."""
        return self.recipe.seed

    def arithmetic(self) -> AbstractContextManager[Any]:
        """How the bodies of models compute, alike in training, sampling and measuring.

        All weights are held in float32; with `precision: bf16` the products are in bfloat16.
        """
        import torch

        from alignzoo.engine.parallel.ranks import arithmetic

        return arithmetic(self.recipe.precision, "cuda" if torch.cuda.is_available() else "cpu")

    def model(self, name: str | None) -> ModelRef:
        """The model a name stands for; None or "initial" is the recipe's model."""
        return model_ref(name, self.recipe, self.outputs)

    def note(self, text: str) -> None:
        """Say a sentence about this stage."""
        self.progress.note(f"{self.name}: {text}")

    def note_once(self, text: str, about: str, key: str = "") -> None:
        """Say a sentence that is the same for several stages; the later ones name the first.

        `about` says what it concerns; `key` stands for the text where it names a stage's own files.
        """
        first = self.told.setdefault(key or text, self.name)
        self.note(text if first == self.name else f"{about}: the same as in stage '{first}'")

    def note_unstated(self, ref: ModelRef) -> None:
        """Say that a plug-in's model may change unseen, where the plug-in states no identity."""
        if stated_identity(ref, self.registry) is None:
            self.note(
                f"a plug-in loads '{ref.name}' and states no `identity(ref)`: when "
                "what is behind the name changes, this work is not done again"
            )

    def load(self, spec: DataSpec) -> Loaded:
        """The samples of a stage, a plug-in's dataset, a file or a hub name, with their places.

        Raises DataError as `data.samples.load_samples` does.
        """
        if spec.name not in self.outputs and spec.name in self.registry.datasets:
            return self._made(spec)
        return load_samples(data_source(spec, self.outputs))

    def _made(self, spec: DataSpec) -> Loaded:
        """Samples of a plug-in's dataset."""
        dataset = build_options(self.registry.find("dataset", spec.name), spec.with_)
        stop = None if spec.limit is None else spec.skip + spec.limit
        made: Iterable[Sample] = islice(dataset.samples(self.seed), spec.skip, stop)
        places = [(f"{spec.name}: sample {n}", s) for n, s in enumerate(made, spec.skip + 1)]
        for place, sample in places:
            if not isinstance(sample, Sample):
                raise PluginError(f"{place}: the dataset yielded {sample!r:.60}, no sample")
        kept = [(place, _swapped(s, place) if spec.swap else s) for place, s in places]
        if not kept:
            raise DataError(f"{spec.name}: no samples left after skip: {spec.skip}")
        places_kept = tuple(place for place, _ in kept)
        return Loaded(tuple(s for _, s in kept), (), places_kept, len(kept))

    def engine(self, spec: EngineSpec, batch_size: int) -> RolloutEngine:
        """The rollout engine of a block; `batch_size` concerns the built-in one."""
        return engine_of(spec, batch_size, self.registry)

    def step(
        self,
        step: int,
        total: int,
        metrics: Mapping[str, float],
        timing: Mapping[str, float] | None = None,
    ) -> None:
        """Tell the console and the observing plug-ins that a step is done; rank 0 only."""
        self.progress.step(self.name, step, total, metrics, timing or {})
        if self.observers is not None:
            facts = {"run": self.run, "stage": self.name, "step": step, "metrics": metrics}
            self.observers.tell("on_step", **facts)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Append one line to the stage's `metrics.jsonl`."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(metrics)) + "\n")

    def summary(self, metrics: Mapping[str, float]) -> None:
        """Log the figures of a whole stage and show them."""
        self.log(metrics)
        text = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self.progress.note(f"{self.name}: {text}")


def _swapped(sample: Sample, place: str) -> PairSample:
    if not isinstance(sample, PairSample):
        raise DataError(f"{place}: swap needs pairs with chosen and rejected")
    return replace(sample, chosen=sample.rejected, rejected=sample.chosen)
