"""Models that a strategy would compute wrongly, or for which ranks would wait for each other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from alignzoo.contract.errors import TrainingError
from alignzoo.engine.models.adapters import is_adapted
from alignzoo.engine.scoring.scorer import ScoringModule


def refuse_lists_of_experts(module: ScoringModule, asked: str) -> None:
    """Experts that are modules of their own get gradients on some ranks, and the others wait."""
    for name, part in module.models.named_modules():
        if name.endswith("experts") and isinstance(part, nn.ModuleList):
            raise TrainingError(
                f"{asked} needs every weight to take part in every step, and {name} is a list of "
                "experts of which a batch may leave some out; take ddp"
            )


def refuse_routers(module: ScoringModule, asked: str) -> None:
    """A mixture of experts has not been tried."""
    for role in module.routers:
        raise TrainingError(
            f"{asked} has not been tried with a mixture of experts such as that of '{role}'; take "
            "fsdp2"
        )


def refuse_adapters(module: ScoringModule, asked: str) -> None:
    """Roles that hold a base together have not been tried."""
    for role, model in module.by_role.items():
        if is_adapted(model):
            raise TrainingError(
                f"{asked} has not been tried with LoRA adapters such as that of '{role}'; take "
                "fsdp2"
            )


def refuse_scalars(module: ScoringModule, asked: str) -> None:
    """A scalar has no rows."""
    for name, p in module.models.named_parameters():
        if p.ndim == 0:
            raise TrainingError(f"{asked} slices rows, and {name} is a scalar; take ddp")


def refuse_shared(module: ScoringModule, layers: Sequence[nn.Module], asked: str) -> None:
    """A weight in two units of a model would learn apart in each."""
    unit = {id(part): id(layer) for layer in reversed(layers) for part in layer.modules()}
    owner: dict[tuple[int, str], int] = {}
    for name, part in module.models.named_modules():
        own = unit.get(id(part), 0)
        for key, p in part.named_parameters(recurse=False):
            role = "" if p.requires_grad else name.partition(".")[0]
            if owner.setdefault((id(p), role), own) != own:
                raise TrainingError(
                    f"{asked} needs layers with weights of their own, and {name}.{key} is another "
                    "layer's too; take ddp"
                )
