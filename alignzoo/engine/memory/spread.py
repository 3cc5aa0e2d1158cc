"""What one device of several holds under each strategy, of what one process would hold alone.

    ddp     everything, and a second copy of the gradients in the buckets that are exchanged
    fsdp2   1/n of weights, gradients and moments; whole while they compute: embeddings and heads
            (the root) and two layers, and the gradients of these before they are scattered
    zero2   1/n of gradients and moments, and of a copy of the weights that learn; a bucket
    zero3   1/n of weights, gradients, moments and that copy; a bucket; the weights in use

Where models are in slices, rollouts are sampled from a plain copy of the policy. The sizes of
DeepSpeed's bucket and of what it leaves gathered are its defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from alignzoo.engine.layout.build import LAYOUTS
from alignzoo.engine.memory.live import Shares
from alignzoo.engine.models.adapters import is_adapted
from alignzoo.engine.scoring.scorer import ScoringModule

WEIGHTS = "weights/"  # and the role
GRADIENTS, MOMENTS, SCRATCH = "gradients", "moments", "optimiser scratch"
BUCKETS, GATHERED, COPY = "gradient buckets", "gathered layers", "policy copy"
FLAT, BUCKET, IN_USE = "flat weights", "bucket of DeepSpeed", "weights in use"
AHEAD = 2  # layers that are whole at once: one computes, the next one arrives
DEEPSPEED_BUCKET = 4 * 500_000_000  # bytes: reduce_bucket_size in float32
DEEPSPEED_LIVE = 4 * 1_000_000_000  # bytes: stage3_max_live_parameters in float32
PASSING = (GATHERED, IN_USE)  # while models compute
HELD = {  # strategy -> the categories of `held_by` that it has
    "ddp": (BUCKETS,),
    "fsdp2": (GATHERED, COPY),
    "zero2": (FLAT, BUCKET),
    "zero3": (FLAT, BUCKET, IN_USE, COPY),
}


def views_of(module: ScoringModule, n: int) -> dict[str, Shares]:
    """The shares under every strategy; one device has no other, adapters have no ZeRO."""
    roles = frozenset(module.by_role)
    known = [*LAYOUTS] if n > 1 else ["ddp"]
    if any(is_adapted(model) for model in module.by_role.values()):
        known = [name for name in known if not name.startswith("zero")]
    return {strategy: shares_of(strategy, n, roles) for strategy in known}


def shares_of(strategy: str, n: int, roles: frozenset[str]) -> Shares:
    """Category -> the share of its bytes on each of n devices."""
    extra = dict.fromkeys((BUCKETS, GATHERED, COPY, FLAT, BUCKET, IN_USE), 0.0)
    if n > 1:
        extra |= dict.fromkeys(HELD[strategy], 1.0)
    if strategy == "ddp":
        return extra
    slices = dict.fromkeys((GRADIENTS, MOMENTS, SCRATCH), 1 / n)
    slices |= {FLAT: extra[FLAT] / n}
    if strategy != "zero2":
        slices |= {WEIGHTS + role: 1 / n for role in roles}
    return {**extra, **slices}


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
        FLAT: _size(trained),
        BUCKET: DEEPSPEED_BUCKET,
        IN_USE: min(DEEPSPEED_LIVE, _size(module.parameters())),
    }


def _layers(model: nn.Module) -> list[nn.Module]:
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [part for part in model.modules() if type(part).__name__ in names]


def _size(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)
