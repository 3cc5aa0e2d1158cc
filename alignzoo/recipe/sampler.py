"""The `sampler` of a rollout: a mixture of models by their roles."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from alignzoo.recipe.spec import Spec

Weights = dict[str, Annotated[float, Field(gt=0, le=1)]]


class SamplerSpec(Spec):
    """What sampled tokens are drawn from: the policy and frozen roles, mixed at every token."""

    mix: Weights | None = Field(
        None, description="role -> w: each token is a sample of sum w p; together 1"
    )
    geometric: Weights | None = Field(
        None, description="role -> w: each token is a sample of prod p^w, normalised; together 1"
    )

    @model_validator(mode="after")
    def _one_mixture(self) -> Self:
        if (self.mix is None) == (self.geometric is None):
            raise ValueError("a sampler needs exactly one of 'mix' and 'geometric'")
        if abs((total := sum(self.weights.values())) - 1) > 1e-6:
            raise ValueError(f"the weights of a sampler make {total:g} together; make them 1")
        return self

    @property
    def weights(self) -> Weights:
        """Of either kind."""
        return self.mix or self.geometric or {}

    @property
    def told(self) -> str:
        """In words: 0.8 policy + 0.2 teacher."""
        if self.mix:
            return " + ".join(f"{w:g} {role}" for role, w in self.weights.items())
        return " x ".join(f"{role}^{w:g}" for role, w in self.weights.items())

    @property
    def mixes(self) -> bool:
        """Whether tokens are drawn from anything but the policy."""
        return self.weights.keys() != {"policy"}
