"""Which models play the roles of a method, and whether they have the heads that it needs."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from alignzoo.contract.algorithm import Algorithm, Role
from alignzoo.contract.errors import suggest
from alignzoo.recipe.blocks import TrainSpec
from alignzoo.recipe.faults import Fault, Path
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.rewards import placed_rewards
from alignzoo.recipe.spec import Spec

Head: TypeAlias = Literal["lm", "scalar"]
POLICY = "policy"
LM = Role()  # what samples and is evaluated
REWARD = Role(head="scalar")  # what scores


def role_faults(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """Every role is known, and every one has a model; `policy` binds the main one."""
    main = main_role(cls)
    known = [role for role in cls.roles if role != main]
    for role in spec.roles:
        if role == main:
            what = f"this role has a key of its own beside `roles`: `{POLICY}: NAME`"
            yield Fault(("roles", role), what, at_key=True)
        elif role not in known:
            what = f"unknown role{suggest(role, known)} ({cls.name} has: {', '.join(known) or '-'})"
            yield Fault(("roles", role), what, at_key=True)
    for role in known:
        if not _has_model(role, {main, *spec.roles}, cls.roles):
            what = f"role '{role}' is not bound; add roles: {{{role}: <stage>}}"
            yield Fault(("roles",), what, at_key=True)


def main_role(cls: type[Algorithm[Any]]) -> str:
    """The role the key `policy` binds: the trainable policy, or what else the method trains."""
    trained = trained_roles(cls)
    return POLICY if POLICY in trained or not trained else trained[0]


def trained_roles(cls: type[Algorithm[Any]]) -> list[str]:
    """The roles that learn."""
    return [name for name, role in cls.roles.items() if role.trainable]


def rate_faults(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Fault]:
    """Only a role that learns has a learning rate."""
    trained = trained_roles(cls)
    for role in spec.train.lr_by_role:
        if role not in trained:
            what = f"not a role that {cls.name} trains{suggest(role, trained)}"
            what += f" ({cls.name} trains: {', '.join(trained)})"
            yield Fault(("train", "lr_by_role", role), what, at_key=True)


def _has_model(name: str, bound: Container[str], roles: Mapping[str, Role]) -> bool:
    """Bound itself, or like a role that has a model."""
    current: str | None = name
    for _ in roles:  # at most so many steps: `like` may go round in a circle
        if current is None or current in bound:
            break
        current = roles[current].like if current in roles else None
    return current is not None and current in bound


# --- heads -----------------------------------------------------------------------------------


def result_head(spec: Spec | None, registry: Registry) -> Head | None:
    """Which head a stage's model has; None where it makes none or a plug-in decides."""
    if not isinstance(spec, TrainSpec) or spec.algorithm not in registry.algorithms:
        return None
    cls = registry.algorithms[spec.algorithm]
    return cls.roles[main_role(cls)].head if trained_roles(cls) else None


def wrong_head(name: str, role: Role, heads: Mapping[str, Head]) -> str:
    """Why the model of a stage cannot play a role, or an empty string."""
    made = heads.get(name)
    if role.head == "lm" and made == "scalar":
        return (
            f"'{name}' trains a model with a scalar head, which scores texts and gives no "
            "distribution over tokens; name a language model"
        )
    if role.head == "scalar" and not role.trainable and made == "lm":
        return (
            f"'{name}' trains a language model without a scalar head, and one drawn at random "
            "would score at random; name a stage that trains a reward model"
        )
    return ""


def head_faults(
    spec: TrainSpec, cls: type[Algorithm[Any]], heads: Mapping[str, Head]
) -> Iterator[Fault]:
    """A model has the head that its role reads; only a role that is trained may get a new one."""
    rewards = placed_rewards(spec.rollout.reward) if spec.rollout else []
    main = main_role(cls)
    given: list[tuple[Path, str | None, Role | None]] = [
        ((POLICY,), spec.policy, cls.roles.get(main)),
        *((("roles", role), name, cls.roles.get(role)) for role, name in spec.roles.items()),
        *(((*place, "model"), part.model, REWARD) for part, place in rewards),
    ]
    for path, name, role in given:
        if name is not None and role is not None and (what := wrong_head(name, role, heads)):
            yield Fault(path, what)


def bound_roles(spec: TrainSpec, cls: type[Algorithm[Any]]) -> dict[str, str | None]:
    """Role -> name of its starting model, of a checked recipe; None is the recipe's model."""
    bound: dict[str, str | None] = {main_role(cls): spec.policy, **spec.roles}

    def start(name: str) -> str | None:
        """A role's own model, else that of the role it is like."""
        return bound[name] if name in bound else start(str(cls.roles[name].like))

    return {name: start(name) for name in cls.roles}
