"""The finished runs of a study, seed by seed -> its result: table, curves, verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from alignzoo.contract.errors import AlignzooError
from alignzoo.recipe.registry import Registry
from alignzoo.studies.derived import folded, read_curve, read_derived
from alignzoo.studies.facts import Figure, Line, Measure, Picture, Result, Row, SeedFacts, Verdict
from alignzoo.studies.facts import Origin as Source
from alignzoo.studies.intervals import Spread, over_prompts, over_seeds
from alignzoo.studies.places import measured_at, trained_at
from alignzoo.studies.plots.curves import Curve
from alignzoo.studies.preview import source, untestable
from alignzoo.studies.readings import Reading, read_column
from alignzoo.studies.runs import SeedRuns, seconds_of, unfinished
from alignzoo.studies.spec import CurveSpec, DerivedSpec, Study
from alignzoo.studies.verdicts import BySeed, Side, judge


@dataclass(frozen=True)
class Folding:
    """A study in a world, and the runs of its seeds; what is missing is told in `notes`."""

    study: Study
    world: str
    runs: tuple[SeedRuns, ...]
    registry: Registry
    notes: dict[str, list[int]] = field(default_factory=dict)  # sentence -> seeds

    def note(self, what: str, seed: int) -> None:
        """Tell something of a seed."""
        if seed not in self.notes.setdefault(what, []):
            self.notes[what].append(seed)

    @property
    def told(self) -> Iterator[str]:
        """The notes, each with its seeds."""
        for what, seeds in self.notes.items():
            yield f"{what} ({'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))})"

    @cached_property
    def readings(self) -> Mapping[tuple[str, str], BySeed]:
        """Every measure of every row, seed by seed."""
        return {
            (row, measure): [self._read(row, measure, runs) for runs in self.runs]
            for measure in self.study.measures
            for row in self.study.row_names
        }

    def measure(self, name: str) -> Mapping[str, BySeed]:
        """One measure by row."""
        return {row: found for (row, measure), found in self.readings.items() if measure == name}

    def _read(self, row: str, measure: str, runs: SeedRuns) -> Reading | None:
        found = self._found(row, measure, runs)
        note = found.note if isinstance(found, Reading) else found
        if note:
            self.note(f"{measure} of {row}: {note}", runs.seed)
        return found if isinstance(found, Reading) else None

    def _found(self, row: str, measure: str, runs: SeedRuns) -> Reading | str | None:
        target = self.study.target(self.world, row)
        if target is None:
            return None
        if derived := self.study.derived.get(measure):
            return self._derived(row, derived, runs)
        column = self.study.worlds[self.world].measures.get(measure)
        if column is None:
            return None
        place = measured_at(target, column, runs.recipes, self.registry)
        if place is None:
            return None
        folder = runs.folders[place.recipe]
        recipe = runs.recipes[place.recipe]
        return read_column(folder, recipe, place, column.column, column.times)

    def _derived(self, row: str, spec: DerivedSpec, runs: SeedRuns) -> Reading | str | None:
        place = self._stage(row, runs)
        if place is None:
            return None
        level = self._curve(spec.of, "step", spec.metric, runs) if spec.of else None
        return read_derived(*place, spec, level)

    def _stage(self, row: str, runs: SeedRuns) -> tuple[Path, str] | None:
        """The run and the stage that trains a row."""
        target = self.study.target(self.world, row)
        index = None if target is None else trained_at(target, runs.recipes)
        return (runs.folders[index], target.model) if target and index is not None else None

    def _curve(self, row: str, x: str, metric: str, runs: SeedRuns) -> Curve | str:
        place = self._stage(row, runs)
        return read_curve(*place, x, metric) if place else "no stage trains it here"

    def curve(self, row: str, spec: CurveSpec) -> tuple[list[int], list[Curve]]:
        """The curve of a row, and the seeds that have it; the others are noted."""
        seeds, found = [], []
        for runs in self.runs:
            one = self._curve(row, spec.x, spec.metric, runs)
            if isinstance(one, Curve):
                seeds.append(runs.seed)
                found.append(one)
            else:
                self.note(f"curve of {row}: {one}", runs.seed)
        return seeds, found


def fold_study(
    study: Study, world: str, runs: Sequence[SeedRuns], registry: Registry, origin: Source
) -> Result:
    """The result of the seeds whose runs are finished.

    Raises AlignzooError for a run that is not: of another recipe, of other code, damaged.
    """
    if not runs:
        raise AlignzooError(f"{study.name} on {world}: no seed is finished; run it first")
    for one in runs:
        for recipe, folder in zip(one.recipes, one.folders, strict=True):
            if why := unfinished(folder, recipe, registry):
                raise AlignzooError(f"{folder}: {why}; run the study again, which does it anew")
    folding = Folding(study, world, tuple(runs), registry)
    _tell_unlike(folding)
    _tell_percent(folding)
    for one in runs:
        if one.seed < (first := study.worlds[world].seed):
            folding.note(f"rates may have been chosen there; it measures from {first} on", one.seed)
    figures = tuple(f for (row, m) in folding.readings if (f := _figure(folding, row, m)))
    pictures = tuple(p for spec in study.curves if (p := _picture(folding, spec)).lines)
    spec = study.worlds[world]
    return Result(
        study=study.name,
        title=study.title,
        source=study.source,
        about=study.about,
        world=world,
        world_about=spec.about,
        tuned=spec.tuned,
        measures=tuple(_measures(study, world)),
        rows=tuple(_rows(folding)),
        seeds=tuple(_seed(one) for one in runs),
        figures=figures,
        verdicts=tuple(_verdicts(folding)),
        pictures=pictures,
        origin=origin,
        notes=tuple(folding.told),
    )


def _seed(one: SeedRuns) -> SeedFacts:
    names = tuple("/".join(folder.parts[-3:]) for folder in one.folders)
    return SeedFacts(one.seed, seconds_of(one.folders), names)


def _measures(study: Study, world: str) -> Iterator[Measure]:
    for name, spec in study.measures.items():
        column = study.worlds[world].measures.get(name)
        derived = study.derived.get(name)
        if column is None and derived is None:
            continue
        where = column.column if column else f"{derived.fold} {derived.metric}" if derived else ""
        paper = study.paper_measures.get(name, "")
        yield Measure(name, spec.label, spec.unit, spec.better, where.strip(), paper)


def _rows(folding: Folding) -> Iterator[Row]:
    study, first = folding.study, folding.runs[0]
    for spec in study.rows:
        target = study.target(folding.world, spec.row)
        found = [
            source(study, folding.world, spec.row, m, first.recipes, folding.registry)
            for m in study.measures
        ]
        named = next((text.split(":")[0] for text in found if text), None)
        yield Row(
            name=spec.row,
            label=spec.label or spec.row,
            control=spec.row in study.controls,
            model=named if target else None,
            paper=dict(spec.paper),
        )


def _figure(folding: Folding, row: str, measure: str) -> Figure | None:
    """A cell; None where this world does not measure it at all."""
    found = folding.readings[row, measure]
    there = [one for one in found if one is not None]
    target = folding.study.target(folding.world, row)
    recipes = folding.runs[0].recipes
    asked = source(folding.study, folding.world, row, measure, recipes, folding.registry)
    if target is None or not asked:
        return None
    spread = _spread(there, alone=len(found) == 1)
    return Figure(
        row=row,
        measure=measure,
        mean=spread.mean if spread else None,
        half=spread.half if spread else None,
        over=spread.over if spread else "",
        seeds=tuple(None if one is None else one.value for one in found),
        prompts=len(there[0].prompts) or None if there else None,
    )


def _spread(found: Sequence[Reading], *, alone: bool) -> Spread | None:
    """Over seeds; of a seed that is alone over its prompts, where the figure is their mean."""
    if not found:
        return None
    if alone and found[0].prompts:
        return over_prompts([x for x in found[0].prompts if x is not None])
    return over_seeds([one.value for one in found])


def _verdicts(folding: Folding) -> Iterator[Verdict]:
    study, recipes = folding.study, folding.runs[0].recipes
    labels = {row.row: row.label or row.row for row in study.rows}

    def label(side: Side) -> str:
        return labels[side] if isinstance(side, str) else f"{side:g}"

    for claim in study.claims:
        why = untestable(study, folding.world, claim, recipes, folding.registry)
        yield judge(claim, folding.measure(claim.measure), label, why)


def _picture(folding: Folding, spec: CurveSpec) -> Picture:
    labels = {row.row: row.label or row.row for row in folding.study.rows}
    lines = []
    for row in spec.rows:
        seeds, found = folding.curve(row, spec)
        if points := folded(found):
            lines.append(Line(row, labels[row], points, tuple(seeds)))
    return Picture(spec.metric, spec.x, spec.label or spec.metric, tuple(lines))


def _tell_unlike(folding: Folding) -> None:
    """Note rows that stand in one column of the table but were measured otherwise than most."""
    for measure in folding.study.measures:
        for number, runs in enumerate(folding.runs):
            kinds = {
                row: one.kind
                for row, found in folding.measure(measure).items()
                if (one := found[number]) is not None and one.kind
            }
            usual = max(kinds.values(), key=list(kinds.values()).count, default="")
            if others := [row for row, kind in kinds.items() if kind != usual]:
                what = f"{measure}: {', '.join(others)} measured on other prompts, or otherwise"
                folding.note(f"{what}, than the other rows, and not comparable", runs.seed)


def _tell_percent(folding: Folding) -> None:
    """Note claims whose margin is read in percent: their author may have meant a share."""
    for measure in {claim.measure for claim in folding.study.claims if claim.margin}:
        for number, runs in enumerate(folding.runs):
            found = (readings[number] for readings in folding.measure(measure).values())
            if any(one.whole == 100 for one in found if one is not None):
                what = f"{measure} is in percent here, and so are the margins of its claims"
                folding.note(f"{what}; `times: 0.01` makes shares of it", runs.seed)
