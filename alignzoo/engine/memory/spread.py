"""What one device of several holds under each strategy, of what one process would hold alone.

    ddp     everything, and a second copy of the gradients in the buckets that are exchanged
    fsdp2   1/n of weights, gradients and moments; whole while they compute: embeddings and heads
    zero3   (the root), two layers at a time, and the gradients of these before they are scattered
    zero2   1/n of gradients and moments; all weights

Where models are in slices, rollouts are sampled from a plain copy of the policy.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from alignzoo.engine.layout.build import LAYOUTS
from alignzoo.engine.memory.live import Shares
from alignzoo.engine.models.adapters import is_adapted
from alignzoo.engine.models.heads import body_of
from alignzoo.engine.scoring.scorer import ScoringModule

WEIGHTS = "weights/"  # and the role
GRADIENTS, MOMENTS, SCRATCH = "gradients", "moments", "optimiser scratch"
BUCKETS, GATHERED, COPY = "gradient buckets", "gathered layers", "policy copy"
AHEAD = 2  # layers that are whole at once: one computes, the next one arrives
LORA, RANK = " + lora", 16  # a view of the same stage with adapters of this rank


def views_of(module: ScoringModule, n: int, like: frozenset[str]) -> dict[str, Shares]:
    """The shares under every strategy, and with adapters instead of whole models.

    With LoRA the roles of `like`, which start from one model, hold its weights once. Where a stage
    has adapters already, they are what is counted, and there is no such view. DeepSpeed has none.
    """
    found: dict[str, Shares] = {}
    names = LAYOUTS if n > 1 else ("ddp",)
    whole = {name: shares_of(name, n, frozenset(module.by_role)) for name in names}
    able = {name: shares for name, shares in whole.items() if not name.startswith("zero")}
    if any(is_adapted(model) for model in module.by_role.values()):
        return able
    small = _adapter_share(module)
    for strategy, shares in whole.items():
        found[strategy] = shares
        learnt = (GRADIENTS, MOMENTS, SCRATCH, BUCKETS, *(WEIGHTS + role for role in like))
        adapted = {kind: small * shares.get(kind, 1.0) for kind in learnt}
        if strategy in able:
            found[strategy + LORA] = {**shares, **adapted}
    return found


def shares_of(strategy: str, n: int, roles: frozenset[str]) -> Shares:
    """Category -> the share of its bytes on each of n devices."""
    whole = {BUCKETS: float(strategy == "ddp" and n > 1), GATHERED: 0.0, COPY: 0.0}
    if strategy == "ddp":
        return whole
    slices = dict.fromkeys((GRADIENTS, MOMENTS, SCRATCH), 1 / n)
    if strategy == "zero2":
        return {**whole, **slices}
    weights = {WEIGHTS + role: 1 / n for role in roles}
    return {**weights, **slices, BUCKETS: 0.0, GATHERED: 1.0, COPY: 1.0}


def _adapter_share(module: ScoringModule) -> float:
    """Parameters of adapters over every linear layer of a body, of all that learn."""
    models = [module.by_role[role] for role in module.trainable]
    linear = [x for m in models for x in body_of(m).modules() if isinstance(x, nn.Linear)]
    added = sum(RANK * (x.in_features + x.out_features) for x in linear)
    return added / sum(p.numel() for m in models for p in m.parameters() if p.requires_grad)


def held_by(module: ScoringModule, sampled: bool) -> Mapping[str, int]:
    """Bytes that some strategy holds all through training, beside tensors of one process."""
    trained = [p for p in module.parameters() if p.requires_grad]
    layers = [layer for model in module.by_role.values() for layer in _layers(model)]
    inside = {id(p) for layer in layers for p in layer.parameters()}
    root = [p for p in module.parameters() if id(p) not in inside]
    largest = max((_size(layer.parameters()) for layer in layers), default=0)
    policy = module.by_role.get("policy")
    return {
        BUCKETS: _size(trained),
        GATHERED: _size(root) + _size(p for p in root if p.requires_grad) + 2 * AHEAD * largest,
        COPY: _size(policy.parameters()) if sampled and policy is not None else 0,
    }


def _layers(model: nn.Module) -> list[nn.Module]:
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [part for part in model.modules() if type(part).__name__ in names]


def _size(parameters: object) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)  # type: ignore[attr-defined]
