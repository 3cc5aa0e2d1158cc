"""How much memory each train stage of a recipe takes, and what would take less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from alignzoo.contract.algorithm import Algorithm, Role
from alignzoo.contract.errors import AlignzooError
from alignzoo.contract.rollout import Sampling
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.memory.fakes import fake_mode, fake_model, faked
from alignzoo.engine.memory.live import Peak
from alignzoo.engine.memory.sampling import Decoding
from alignzoo.engine.memory.walk import Alone, Stage, peaks
from alignzoo.engine.models.adapters import Adapted, Lora
from alignzoo.engine.models.context import context_of
from alignzoo.engine.models.hooked import plugin_model
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.engine.sampling.mixtures import Mixture
from alignzoo.engine.train.job import Job
from alignzoo.engine.train.sources import Rollout
from alignzoo.recipe.blocks import USUAL_LENGTH, Recipe, TrainSpec
from alignzoo.recipe.optimizing import engine_values
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.rewards import placed_rewards
from alignzoo.recipe.roles import REWARD, bound_roles, main_role
from alignzoo.recipe.spec import AdapterSpec
from alignzoo.store.inputs import BUILT_IN_ENGINE, INITIAL, model_ref, origin


@dataclass(frozen=True)
class Devices:
    """Where a recipe is to run."""

    n: int = 1
    gpu: bool = False
    memory: float | None = None  # bytes of each
    config: Path | None = None  # a folder with the config.json of models that are not here

    def holds(self, size: float) -> bool:
        """Whether so many bytes fit; a tenth is left to contexts, workspaces and fragmentation."""
        return self.memory is None or size <= 0.9 * self.memory


@dataclass(frozen=True)
class Footprint:
    """The memory of one device in a train stage."""

    stage: str
    rows: str  # the worst batch, in words
    peaks: Mapping[str, Peak]  # by strategy


def strategy_of(recipe: Recipe, n: int) -> str:
    """What the recipe asks for; one device alone holds everything."""
    return recipe.parallel.strategy if n > 1 else "ddp"


class Predictor:
    """Walks the train stages of a recipe; equal ones once."""

    def __init__(self, recipe: Recipe, registry: Registry, devices: Devices) -> None:
        self.recipe, self.registry, self.devices = recipe, registry, devices
        self.known: dict[object, Mapping[str, Peak]] = {}

    def footprint(self, spec: TrainSpec) -> Footprint:
        """The peaks of a stage, as the recipe says it or with other settings.

        Raises AlignzooError when a model's config is not at hand, or its family cannot be walked
        without data.
        """
        stage, key = self._stage(spec)
        if key not in self.known:
            try:
                self.known[key] = peaks(stage, self.devices.n)
            except RuntimeError as error:  # of the library, which knows no shape without data
                cause = next(iter(str(error).splitlines()), type(error).__name__)
                raise AlignzooError(
                    f"{spec.name}: the models cannot be walked without data, as is so for mixtures "
                    f"of experts ({cause}); run a few steps with train.steps and look"
                ) from error
        rows = f"{stage.job.optim.micro_batch_size} items of {stage.prompt + stage.response} tokens"
        return Footprint(spec.name, rows, self.known[key])

    def _stage(self, spec: TrainSpec) -> tuple[Stage, object]:
        algorithm = build_options(self.registry.find("algorithm", spec.algorithm), spec.with_)
        mode, bound = fake_mode(), bound_roles(spec, type(algorithm))
        origins = {role: origin(name, self.recipe) for role, name in bound.items()}
        optim, rollout, decoding = self._optim(spec), None, None
        prompt, response = self._lengths(spec, origins)
        if spec.rollout is not None:
            sampling = Sampling(**spec.rollout.sampling.model_dump(exclude={"stop"}))
            engine = TransformersEngine(spec.rollout.batch_size)
            block = spec.rollout
            samples = block.samples_per_prompt
            mixed = block.sampler
            mixture = Mixture(mixed.weights) if mixed else None  # of either kind
            rollout = Rollout((), None, engine, sampling, block.prompts, samples, mixture=mixture)
            decoding = self._decoding(spec, prompt, sampling)
        adapted = self._adapted(spec, algorithm, bound)
        job = Job(
            algorithm=algorithm,
            adapted=adapted,
            load=lambda role: self._model(origins[role], algorithm.roles[role], mode),
            digests={},
            items=(),
            rollout=rollout,
            validation=None,
            optim=optim,
            pad_id=0,
            seed=0,
            folder=Path(),
            cache=Path(),
            ranks=Ranks(Alone("bf16" if self.recipe.precision == "bf16" else "no")),
        )
        parts = placed_rewards(spec.rollout.reward) if spec.rollout else []
        rewards = tuple(part.model for part, _ in parts if part.model)
        scalar = tuple(self._model(origin(x, self.recipe), REWARD, mode) for x in rewards)
        view = self._view(spec, origins, response)
        stage = Stage(job, mode, prompt, response, view, self.devices.gpu, decoding, scalar)
        stage = replace(stage, memory=self.devices.memory)
        lengths = (prompt, response, view)
        key = (algorithm, job.kind, job.on_policy, str(origins), str(adapted), str(optim))
        return stage, (*key, lengths, decoding, rewards)

    def _adapted(
        self, spec: TrainSpec, algorithm: Algorithm[Any], bound: Mapping[str, str | None]
    ) -> dict[str, Adapted]:
        """Roles that are adapters of one base, as `stages.adapting` finds them by content."""
        main, found, moving = main_role(type(algorithm)), dict[str, Adapted](), algorithm.moving()
        for role, kind in algorithm.roles.items():
            base, lora = self._base(bound[role])
            if role == main and spec.adapter is not None:
                found[role] = Adapted(bound[role] or INITIAL, new=_lora(spec.adapter))
            elif not kind.trainable and kind.head == "lm" and role not in moving:
                found[role] = Adapted(base, new=lora)
        shared = [part.base for part in found.values()]
        return {
            role: part
            for role, part in found.items()
            if role == main or (shared.count(part.base) > 1 and any(p.new for p in found.values()))
        }

    def _base(self, name: str | None) -> tuple[str, Lora | None]:
        """Under and over what an adapter stage left: a finished adapter has a new one's shape."""
        for stage in self.recipe.stages:
            if stage.name == name and isinstance(stage, TrainSpec) and stage.adapter is not None:
                return stage.policy or INITIAL, _lora(stage.adapter)
        return name or INITIAL, None

    def _optim(self, spec: TrainSpec) -> Optim:
        """One rank's share of a step."""
        optim = Optim(**engine_values(spec.train))
        share = -(-optim.batch_size // self.devices.n)
        return replace(optim, batch_size=share, micro_batch_size=min(share, optim.micro_batch_size))

    def _decoding(self, spec: TrainSpec, prompt: int, sampling: Sampling) -> Decoding | None:
        """Another engine's memory is its own."""
        block = spec.rollout
        if block is None or block.engine.name != BUILT_IN_ENGINE:
            return None
        rows = -(-block.prompts // self.devices.n) * block.samples_per_prompt
        return Decoding(min(rows, block.batch_size), prompt, sampling)

    def _view(self, spec: TrainSpec, origins: Mapping[str, str], response: int) -> int:
        """Tokens of the longest prompt of a view: what the row's limit leaves of an answer."""
        if spec.rollout is None:
            return 1
        contexts = (self._context(name) for name in {*origins.values()})
        context = min((c for c in contexts if c is not None), default=None)
        longest = max(part.max_length or USUAL_LENGTH for part in spec.data.sources)
        return max(1, (context or longest) - response)

    def _lengths(self, spec: TrainSpec, origins: Mapping[str, str]) -> tuple[int, int]:
        """Tokens of the longest row: of its prompt, and of its response."""
        contexts = [self._context(name) for name in {*origins.values()}]
        context = min((c for c in contexts if c is not None), default=None)
        usual = min(USUAL_LENGTH, context or USUAL_LENGTH)
        longest = max(part.max_length or usual for part in spec.data.sources)
        if spec.rollout is None:
            return 1, longest - 1
        answer = spec.rollout.sampling.max_new_tokens
        prompt = max(part.max_prompt_length or longest for part in spec.data.sources)
        return (prompt if context is None else max(1, min(prompt, context - answer))), answer

    def _context(self, name: str) -> int | None:
        config = self._config(name) or self._plugged(name, Role()).config
        return context_of(config)

    def _config(self, name: str) -> PreTrainedConfig | None:
        """None: a plug-in makes the model."""
        ref = model_ref(name, self.recipe, {})
        here = ref.path.is_dir()
        if not here and ref.name.count("/") != 1:
            return None
        folder = ref.name if here else str(self.devices.config or ref.name)
        try:
            config: PreTrainedConfig = AutoConfig.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
        except Exception as error:
            raise AlignzooError(
                f"{folder}: its config.json cannot be read here, and memory follows from it; name "
                "a folder that holds the model's config.json: --config FOLDER"
            ) from error
        return config

    def _model(self, name: str, role: Role, mode: FakeTensorMode) -> PreTrainedModel:
        config = self._config(name)
        if config is not None:
            return fake_model(config, role, model_ref(name, self.recipe, {}), mode)
        return faked(self._plugged(name, role), mode)

    def _plugged(self, name: str, role: Role) -> PreTrainedModel:
        ref = model_ref(name, self.recipe, {})
        made = plugin_model(self.registry.hooks, ref, role)
        if made is None:
            raise AlignzooError(
                f"{ref.name}: no folder, hub name or plug-in's model; name one, or a folder with "
                "its config.json: --config FOLDER"
            )
        return made


def _lora(adapter: AdapterSpec) -> Lora:
    lora = adapter.lora
    return Lora(lora.r, lora.alpha, () if isinstance(lora.targets, str) else lora.targets)
