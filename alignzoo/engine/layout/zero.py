"""DeepSpeed ZeRO: stage 2 slices gradients and moments, stage 3 the weights too.

DeepSpeed is started by hand: Accelerate's plug-in wants a data loader and clips all roles by one
norm. What is read of its insides (`averaged_gradients`, flat partitions) is pinned by
`pyproject.toml` and a test.
"""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignzoo.contract.errors import TrainingError
from alignzoo.engine.layout.base import Layout, keys_of
from alignzoo.engine.layout.optim import Optim, build_optimizer
from alignzoo.engine.layout.plain import filled, outline, size_of
from alignzoo.engine.layout.refused import (
    refuse_adapters,
    refuse_lists_of_experts,
    refuse_routers,
)
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.scoring.scorer import ScoringModule

MOMENTS = ("exp_avg", "exp_avg_sq")
STEP = "step"


class Zero(Layout):
    """One DeepSpeed engine around all roles; learning rate and clipping stay per role.

    Gradients are averaged in every micro-batch, so all ranks make equally many. Autocast is
    DeepSpeed's own, because its engine switches ours off; communication stays in float32.
    """

    stage: ClassVar[int]
    kind: ClassVar[str]  # of DeepSpeed's optimiser
    together: ClassVar[bool] = True

    def __init__(self, ranks: Ranks, scoring: ScoringModule, optim: Optim) -> None:
        super().__init__(ranks, scoring)
        refuse_lists_of_experts(scoring, self.asked)
        refuse_adapters(scoring, self.asked)
        self._refuse_unless(optim.kind == "AdamW", f"{optim.kind} is not tried under it")
        self.learning = self.parameters()  # before DeepSpeed takes the weights away
        self.engine = _started(scoring, build_optimizer(optim, self.trained), self._config())
        scoring.set_modes()
        self.optimizer = self.engine.optimizer
        self.module = self.engine
        kind = type(self.optimizer).__name__
        self._refuse_unless(kind == self.kind, f"the optimiser is a {kind}")
        for flat in self._flats():  # else moments are linked after the first role's first update
            self._state(flat).update(
                {STEP: torch.tensor(0.0), **{key: torch.zeros_like(flat) for key in MOMENTS}}
            )

    @property
    def asked(self) -> str:
        """In the words of a recipe."""
        return f"parallel.strategy: zero{self.stage}"

    def _config(self) -> dict[str, Any]:
        mixed = self.ranks.accelerator.mixed_precision == "bf16"
        autocast = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
        return {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": 0.0,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            **({"torch_autocast": autocast} if mixed else {}),
            "zero_optimization": {
                "stage": self.stage,
                "overlap_comm": False,
                "contiguous_gradients": True,
                "reduce_scatter": self.ranks.device.type != "cpu",  # gloo has none
                "stage3_param_persistence_threshold": 0,
            },
        }

    def _state(self, flat: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.engine.optimizer.optimizer.state[flat]
        return state

    @abstractmethod
    def _flats(self) -> Sequence[Tensor]:
        """Float32 partitions of this rank, the keys of the inner optimiser's state."""

    def unsynced(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients are averaged at once and kept until the last micro-batch."""
        self.engine.set_gradient_accumulation_boundary(last)
        return nullcontext()

    def backward(self, value: Tensor) -> None:
        """Add to this rank's partition of the gradients."""
        self.engine.backward(value, scale_wrt_gas=False)

    def clip(self, max_norm: float) -> dict[str, Tensor]:
        """As `clip_grad_norm_` does it, on partitions; DeepSpeed knows one norm for all."""
        groups = self.optimizer.param_groups
        own = getattr(self.optimizer, "sub_group_to_group_id", None)
        squares = torch.zeros(len(groups), dtype=torch.float64)
        parts = [
            (i if own is None else own[i], x)
            for i, found in self.engine.optimizer.averaged_gradients.items()
            for x in found or ()
        ]
        for group, x in parts:
            squares[group] += x.double().pow(2).sum().cpu()
        norms = self.ranks.sum(squares).sqrt()
        for group, x in parts:
            x.mul_(min(1.0, max_norm / (norms[group].item() + 1e-6)))
        return {g["role"]: norm for g, norm in zip(groups, norms, strict=True)}

    def step(self) -> None:
        """Each rank updates its partition."""
        self.engine.step()

    def forwards(self, wanted: int) -> int:
        """As many as the rank with most makes."""
        return int(self.ranks.max(torch.tensor(float(wanted))).item())

    def learnt(self) -> Iterator[tuple[str, Tensor]]:
        """What is whole of each role, and learns."""
        names = {name for name, _ in self.learning}
        for role in self.trained:
            for name, x in self.whole(role):
                if f"{role}/{name}" in names:
                    yield f"{role}/{name}", x.detach()

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """Gathered one by one; all parameters have made equally many steps."""
        from deepspeed.utils import safe_get_full_optimizer_state

        steps = max((float(self._state(flat)[STEP]) for flat in self._flats()), default=0.0)
        done = self.ranks.max(torch.tensor(steps))
        for name, p in self.learning:
            for key in MOMENTS:
                whole = safe_get_full_optimizer_state(p, key)
                yield f"{name}/{key}", whole.view(self._shape(p))
            yield f"{name}/{STEP}", done.clone()

    def load_moments(self, tensors: Mapping[str, Tensor]) -> None:
        """Each rank takes its partition; a parameter that has none yet starts with zeros."""
        from deepspeed.utils import safe_set_full_optimizer_state

        known = keys_of(tensors)
        steps = [tensors[f"{name}/{STEP}"] for name, keys in known.items() if STEP in keys]
        for flat in self._flats():
            self._state(flat)[STEP].fill_(max(map(float, steps), default=0.0))
        for name, p in self.learning:
            for key in MOMENTS:
                if key in known.get(name, ()):
                    safe_set_full_optimizer_state(p, tensors[f"{name}/{key}"], key)

    def _shape(self, p: Any) -> torch.Size:
        return torch.Size(getattr(p, "ds_shape", p.shape))

    def _refuse_unless(self, engaged: bool, what: str) -> None:
        if not engaged:
            raise TrainingError(
                f"{self.asked} was asked for and is not engaged on {self.ranks.size} ranks: "
                f"{what}; take fsdp2, and report this with the version of DeepSpeed"
            )


class Zero2(Zero):
    """Every rank holds all weights, and a slice of gradients and moments."""

    stage: ClassVar[int] = 2
    kind: ClassVar[str] = "DeepSpeedZeroOptimizer"

    def __init__(self, ranks: Ranks, scoring: ScoringModule, optim: Optim) -> None:
        super().__init__(ranks, scoring, optim)
        self.engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _flats(self) -> Sequence[Tensor]:
        found: Sequence[Tensor] = self.engine.optimizer.single_partition_of_fp32_groups
        return found

    def check(self) -> None:
        """Partitions of all ranks together hold what learns once."""
        split = self.engine.zero_optimization_partition_gradients()
        self._refuse_unless(split, "gradients are not partitioned")
        total = sum(p.numel() for _, p in self.learning)
        mine = torch.tensor(float(sum(flat.numel() for flat in self._flats())))
        every = self.ranks.sum(mine).item()
        padding = 64 * self.ranks.size * len(self.trained)  # DeepSpeed aligns partitions
        even = every == mine.item() * self.ranks.size and total <= every <= total + padding
        self._refuse_unless(even, f"{mine.item():.0f} of {total} numbers are on this rank")

    @torch.no_grad()
    def load(self, role: str, tensors: Mapping[str, Tensor]) -> None:
        """Into the weights, and into the partition that the optimiser updates."""
        from deepspeed.utils import safe_set_full_fp32_param

        own = dict(self.scoring.by_role[role].named_parameters())
        for name in tensors:
            own[name].copy_(tensors[name])
            if own[name].requires_grad:
                safe_set_full_fp32_param(own[name], tensors[name])


class Zero3(Zero):
    """Every rank holds a slice of each weight, gradient and moment."""

    stage: ClassVar[int] = 3
    kind: ClassVar[str] = "DeepSpeedZeroOptimizer_Stage3"

    def __init__(self, ranks: Ranks, scoring: ScoringModule, optim: Optim) -> None:
        refuse_routers(scoring, self.asked)
        scoring.pass_once()  # groups of rows are as many as a rank's lengths ask for
        self.outlines = {role: outline(model) for role, model in scoring.by_role.items()}
        super().__init__(ranks, scoring, optim)
        from deepspeed.runtime.zero import register_external_parameter

        for head in scoring.heads.values():  # read outside their own forward, chunk by chunk
            for p in head.linear.parameters():
                register_external_parameter(scoring, p)

    def _flats(self) -> Sequence[Tensor]:
        found: Sequence[Tensor] = self.engine.optimizer.fp32_partitioned_groups_flat
        return found

    def check(self) -> None:
        """No weight is whole anywhere; each rank holds its slice of it."""
        size = self.ranks.size
        for name, weight in self.scoring.models.named_parameters():
            p: Any = weight
            self._refuse_unless(hasattr(p, "ds_id"), f"{name} is not partitioned")
            most = -(-p.ds_numel // size)
            self._refuse_unless(p.numel() == 0, f"{name} is whole on this rank")
            self._refuse_unless(p.ds_tensor.numel() == most, f"{name} has slices of another size")

    def whole(self, role: str) -> Iterator[tuple[str, Tensor]]:
        """Gathered one by one."""
        from deepspeed.runtime.zero import GatheredParameters

        for name, p in self.scoring.by_role[role].named_parameters():
            with GatheredParameters([p]):
                found = p.detach().clone()
            yield name, found

    def plain(self, role: str, device: torch.device) -> PreTrainedModel:
        """A copy that is not sharded."""
        return filled(self.outlines[role], self.whole(role), device)

    def copied(self, role: str) -> int:
        """All weights."""
        return size_of(self.outlines[role])

    @torch.no_grad()
    def load(self, role: str, tensors: Mapping[str, Tensor]) -> None:
        """Into the slices that compute, and into those that the optimiser updates."""
        from deepspeed.runtime.zero import GatheredParameters
        from deepspeed.utils import safe_set_full_fp32_param

        own = dict(self.scoring.by_role[role].named_parameters())
        for name in tensors:
            with GatheredParameters([own[name]], modifier_rank=0):
                own[name].data.copy_(tensors[name])
            if own[name].requires_grad:
                safe_set_full_fp32_param(own[name], tensors[name])


def check_deepspeed(asked: str) -> None:
    """Raises TrainingError where DeepSpeed is not there, or cannot be imported."""
    try:
        import deepspeed  # noqa: F401
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"{asked} needs DeepSpeed, which is not installed here; pip install "
            "'alignzoo[deepspeed]', or take fsdp2"
        ) from error
    except Exception as error:  # a broken installation raises anything
        raise TrainingError(
            f"{asked} needs DeepSpeed, which cannot be imported here: {type(error).__name__}: "
            f"{error}; mend the installation, or take fsdp2"
        ) from error


def _started(module: ScoringModule, optimizer: torch.optim.Optimizer, config: Any) -> Any:
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.WARNING)
    # A kernel for shared memory would be compiled for a minute at the first start on a CPU. It
    # serves `inference_all_reduce` alone, and DeepSpeed does without where it cannot be compiled.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed reads it in training too, even alone
    engine, *_ = deepspeed.initialize(
        model=module, optimizer=optimizer, config=config, dist_init_required=False
    )
    return engine
