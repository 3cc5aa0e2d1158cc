"""What the file of a study says, as frozen, validated values. `file.py` reads it from YAML."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from alignzoo.recipe.blocks import Name
from alignzoo.recipe.spec import Spec

Side: TypeAlias = str | float  # a row, or a number
Sides: TypeAlias = Side | Annotated[tuple[Side, ...], Field(min_length=1)]
Rows: TypeAlias = dict[str, Sides]  # left -> right, or several of them


class MeasureSpec(Spec):
    """A quantity that the study speaks of."""

    label: str = Field(description="its heading")
    unit: str = Field("", description="such as nats per answer")
    better: Literal["higher", "lower"] | None = Field(None, description="which way is better")


class ColumnSpec(Spec):
    """Where a world measures a quantity; NAME alone means {column: NAME}."""

    column: str = Field(description="a column of the evaluation, such as win_rate or kl(MODEL)")
    benchmark: str | None = Field(None, description="which one; default: the only one with models")
    with_: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="options that tell it from its like"
    )
    baseline: str | None = Field(None, description="its baseline, where that tells it from others")
    times: float = Field(
        1.0, gt=0, description="what its values are multiplied by: .01 makes shares of percent"
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value


class TargetSpec(Spec):
    """What a row of the study is in a world; MODEL alone means {model: MODEL}."""

    model: str = Field(description="a stage of a recipe, or another model that it evaluates")
    recipe: str | None = Field(None, description="name of its recipe, where several have the model")
    with_: dict[str, Any] = Field(
        default_factory=dict,
        alias="with",
        description="options of the benchmark for this row alone",
    )
    judge: str | None = Field(None, description="judge of the evaluation for this row alone")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value


class WorldSpec(Spec):
    """Where a study is measured: its recipes, and which of their parts it speaks of."""

    about: str = Field(description="model, data and how it is measured, for readers")
    recipes: tuple[str, ...] = Field(
        min_length=1, description="files, relative to the study's folder or to the recipes' folder"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="the first seed that is measured")
    seeds: int = Field(3, gt=0, description="how many are, unless --seeds says so")
    tuned: str = Field("", description="which grids were tried, and on which seeds")
    cost: str = Field("", description="what one seed costs, for the list of studies")
    needs: str = Field("", description="what alignzoo does not bring along, such as: hub")
    measures: dict[str, ColumnSpec] = Field(
        default_factory=dict, description="measure -> column; one that is not here is not measured"
    )
    rows: dict[str, TargetSpec | None] = Field(
        default_factory=dict,
        description="row -> model, where the names differ; null: this world has no such row",
    )


class RowSpec(Spec):
    """A row of the table."""

    row: Name = Field(description="how claims call it")
    label: str = Field("", description="how readers do; default: its name")
    paper: dict[str, str] = Field(
        default_factory=dict, description="measure -> the paper's figure, as it is printed there"
    )


class CurveSpec(Spec):
    """A figure of a logged metric."""

    metric: str = Field(description="as in metrics.jsonl")
    x: str = Field("step", description="step, flops, kl, or another metric")
    rows: tuple[str, ...] = Field(min_length=1, description="whose")
    label: str = Field("", description="of the axis; default: the metric")


class DerivedSpec(Spec):
    """A measure that is made of a logged metric, one number per seed."""

    metric: str = Field("", description="as in metrics.jsonl; of flops: none")
    fold: Literal["last_quarter", "mean", "steps_to", "flops_to", "steps", "flops"] = Field(
        description="mean over the last quarter of the steps, or all; first step or FLOPs at which "
        "the smoothed metric reaches a level; all steps or FLOPs of the stage"
    )
    of: str | None = Field(None, description="row whose last quarter is the level")
    share: float = Field(1.0, gt=0, description="of that level")
    window: int = Field(5, gt=0, description="steps that the smoothed metric is a mean over")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        levelled = self.fold in ("steps_to", "flops_to")
        if levelled != (self.of is not None):
            raise ValueError(f"fold: {self.fold} {'needs' if levelled else 'takes no'} 'of'")
        if (self.fold in ("steps", "flops")) != (not self.metric):
            takes = "takes no" if self.metric else "needs a"
            raise ValueError(f"fold: {self.fold} {takes} metric")
        return self


Pair: TypeAlias = Annotated[tuple[str | float, ...], Field(min_length=2, max_length=2)]


def against(rows: Rows | None) -> list[tuple[str, Side]]:
    """Every row with each of what it is held against."""
    found = (
        (row, other if isinstance(other, tuple) else (other,))
        for row, other in (rows or {}).items()
    )
    return [(row, one) for row, others in found for one in others]


FORMS = ("increasing", "above", "between", "close")


class ClaimSpec(Spec):
    """A sentence that figures decide: comparisons `factor * left - right + margin > 0`."""

    says: str = Field(description="the claim, one sentence")
    by: Literal["paper", "us"] = Field("paper", description="us: the paper did not test it")
    paper: str = Field("", description="what the paper reports, in words")
    measure: str = Field(description="of the study's")
    increasing: tuple[str, ...] | None = Field(
        None, min_length=2, description="rows, each above the one before it"
    )
    above: Rows | None = Field(
        None,
        min_length=1,
        description="row: the row (or number) that it is above, or a list of them",
    )
    between: dict[str, Pair] | None = Field(
        None, min_length=1, description="row: [low, high], each a row or a number"
    )
    close: Rows | None = Field(
        None, min_length=1, description="row: the row (or number) that it is within `margin` of"
    )
    margin: float = Field(
        0.0, description="added to the difference: how near is near, or below 0: by how much above"
    )
    factor: float = Field(1.0, gt=0, description="times the left row")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = [name for name in FORMS if getattr(self, name) is not None]
        if len(given) != 1:
            found = f", not {' and '.join(given)}" if given else ""
            raise ValueError(f"a claim has one of {', '.join(FORMS)}{found}")
        if given == ["close"] and self.margin <= 0:
            raise ValueError("close needs a margin above 0: how near is near")
        if self.factor != 1 and given != ["above"]:
            raise ValueError("factor goes with above alone")
        return self

    @property
    def named_rows(self) -> tuple[str, ...]:
        """The rows that it speaks of."""
        sides: list[str | float] = [*(self.increasing or ())]
        for pairs in (self.above, self.close):
            sides += [side for pair in against(pairs) for side in pair]
        for row, bounds in (self.between or {}).items():
            sides += [row, *bounds]
        return tuple(dict.fromkeys(side for side in sides if isinstance(side, str)))


class Study(Spec):
    """Recipes over seeds, and what is claimed of them."""

    name: Name = Field(description="how `alignzoo reproduce` calls it")
    title: str = Field(description="a heading")
    source: str = Field("", description="paper and table, such as arXiv:2503.02832, Table 3")
    about: str = Field("", description="a few sentences for readers")
    measures: dict[Name, MeasureSpec] = Field(min_length=1, description="what it speaks of")
    worlds: dict[Name, WorldSpec] = Field(min_length=1, description="where it is measured")
    rows: tuple[RowSpec, ...] = Field(min_length=1, description="in the order of the table")
    paper_measures: dict[str, str] = Field(
        default_factory=dict, description="measure -> how the paper's differs from ours"
    )
    controls: tuple[str, ...] = Field(
        (), description="rows that the paper does not have and honesty needs"
    )
    curves: tuple[CurveSpec, ...] = ()
    derived: dict[Name, DerivedSpec] = Field(
        default_factory=dict, description="measures that are made of logged metrics"
    )
    claims: tuple[ClaimSpec, ...] = ()

    @property
    def row_names(self) -> tuple[str, ...]:
        """In the order of the table."""
        return tuple(row.row for row in self.rows)

    def target(self, world: str, row: str) -> TargetSpec | None:
        """What a row is in a world; None where it has none."""
        rows = self.worlds[world].rows
        return rows[row] if row in rows else TargetSpec(model=row)
