"""The numbers of a report: those that the run kept, each computed here again by other means."""

import json
import math
import statistics

import pytest
from report_runs import MODELS, FullRun, metrics

from alignzoo.contract.errors import UsageError
from alignzoo.recipe.registry import load_plugins
from alignzoo.report import as_json, fold_report
from alignzoo.report.samples import differing

SECTIONS = {"runs", "results", "over_seeds", "metrics", "trails", "samples", "alarms", "missing",
            "lens", "lens_rows"}  # fmt: skip


@pytest.fixture(scope="module")
def registry():
    return load_plugins()


@pytest.fixture
def run(tmp_path):
    return FullRun(tmp_path / "one").write()


def curves_of(report, stage, name):
    (found,) = [m for m in report.metrics if (m.stage, m.metric.name) == (stage, name)]
    return found


def rewrite(file, change):
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


# --- what is best, and beside what -------------------------------------------------------------


def test_the_best_model_stands_beside_its_rivals_with_paired_intervals(run, registry):
    (result,) = fold_report([run], registry).results
    assert result.outcomes[0].model == "grpo"
    assert [(c.role, c.model) for c in result.comparisons] == [
        ("next best", "dpo"),
        ("baseline", "base (baseline)"),
    ]
    values = {
        name: json.loads((run / f"evaluations/01-duel/{name}/scores.json").read_text())["values"]
        for name in MODELS
    }
    for comparison in result.comparisons:
        name = comparison.model.split()[0]
        pairs = zip(values["grpo"]["win_rate"], values[name]["win_rate"], strict=True)
        known = [(x, y) for x, y in pairs if x is not None and y is not None]
        assert len(known) == comparison.prompts == 11  # one reply of the judge cannot be read
        differences = [x - y for x, y in known]
        half = 1.959964 * statistics.stdev(differences) / math.sqrt(11)
        assert comparison.difference == pytest.approx(statistics.mean(differences))
        assert comparison.interval == pytest.approx(
            (comparison.difference - half, comparison.difference + half)
        )


def test_a_figure_that_is_no_mean_of_its_prompts_has_no_paired_interval(run, registry):
    rows = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
    for row in rows:
        row["columns"]["win_rate"]["mean"] += 0.05  # as a length-controlled win rate is fitted
    (run / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (result,) = fold_report([run], registry).results
    assert {c.interval for c in result.comparisons} == {None}
    first = result.comparisons[0]
    assert first.difference == pytest.approx(result.outcomes[0].value - result.outcomes[1].value)


def test_a_paired_difference_is_that_of_the_prompts(tmp_path, registry):
    run = FullRun(tmp_path / "one")
    values = {"base": [0.5] * 12, "dpo": [0.6, 0.7] * 6, "grpo": [0.9, 0.8] * 6}
    run.values = lambda name, strength: values[name]
    (result,) = fold_report([run.write()], registry).results
    first = result.comparisons[0]
    assert (first.model, first.prompts) == ("dpo", 12)
    assert first.difference == pytest.approx(0.2)
    half = 1.959964 * statistics.stdev([0.3, 0.1] * 6) / math.sqrt(12)
    assert first.interval == pytest.approx((0.2 - half, 0.2 + half))


def test_length_and_truncation_stand_beside_every_win_rate(run, registry):
    for name, cut in (("dpo", 3), ("grpo", 0)):
        file = run / f"evaluations/01-duel/{name}/answers.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for n, row in enumerate(rows):
            row["responses"] = [{"text": "a b", "ended": n >= cut}]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (result,) = fold_report([run], registry).results
    by_model = {one.model: one for one in result.outcomes}
    assert by_model["dpo"].truncated == pytest.approx(3 / 12)
    assert by_model["grpo"].truncated == 0
    assert by_model["base (baseline)"].truncated is None
    assert all(one.length is not None for one in result.outcomes)


def test_seeds_of_one_recipe_have_a_mean_and_its_error(tmp_path, registry):
    runs = []
    for seed in (3, 4):
        one = FullRun(tmp_path / f"seed-{seed}", seed, section=str(seed) * 64)
        one.values = lambda name, strength, seed=seed: [MODELS[name] + seed / 100] * 12
        runs.append(one.write())
    report = fold_report([tmp_path], registry)  # a folder of seeds stands for its runs
    assert [r.name for r in report.runs] == ["seed-3", "seed-4"]
    best = report.over_seeds[0]
    assert (best.model, best.column) == ("grpo", "win_rate")
    assert best.mean == pytest.approx(0.835)
    assert best.error == pytest.approx(0.005)
    file = runs[0] / "recipe.yaml"
    file.write_text(file.read_text() + "trackers: [tensorboard]\nthreads: 2\n")  # decide nothing
    assert fold_report(runs, registry).over_seeds == report.over_seeds
    file.write_text(file.read_text().replace("steps: 40", "steps: 41"))
    assert fold_report(runs, registry).over_seeds == ()


def test_seeds_of_which_one_is_not_done_have_no_mean(tmp_path, registry):
    for seed in (3, 4):
        FullRun(tmp_path / f"seed-{seed}", seed, section=str(seed) * 64, steps=12).write()
    (tmp_path / "seed-4/scores.jsonl").unlink()
    report = fold_report([tmp_path], registry)
    assert report.over_seeds == ()
    assert "seed-4: nothing is evaluated yet: no scores.jsonl" in report.missing


# --- curves ------------------------------------------------------------------------------------


def test_curves_hold_the_logged_values_with_unit_and_healthy_range(run, registry):
    report = fold_report([run], registry)
    found = curves_of(report, "base", "nll")
    declared = registry.algorithms["sft"].metrics["nll"]
    assert (found.metric.unit, found.metric.low) == (declared.unit, declared.low)
    (curve,) = found.curves
    assert curve.points == tuple((float(s), metrics("base", s, 40)["nll"]) for s in range(1, 41))
    assert not curves_of(report, "base", "grad_norm").metric.declared


def test_a_long_curve_keeps_its_extremes_and_is_short(tmp_path, registry):
    run = FullRun(tmp_path / "long", steps=3000).write()
    (curve,) = curves_of(fold_report([run], registry), "base", "grad_norm").curves
    every = [metrics("base", step, 3000)["grad_norm"] for step in range(1, 3001)]
    assert curve.steps == 3000
    assert len(curve.points) <= 605
    assert {min(every), max(every)} <= {y for _, y in curve.points}
    assert curve.last == every[-1]


def test_leaving_the_healthy_range_is_marked_where_the_mean_over_ten_steps_does(tmp_path, registry):
    run = FullRun(tmp_path / "one", rails={"max_truncated": 0.3}).write()
    report = fold_report([run], registry)
    found = curves_of(report, "grpo", "rollout/truncated")
    assert found.metric.high == 0.3
    means = {n: statistics.mean(0.6 * s / 40 for s in range(n - 9, n + 1)) for n in range(10, 41)}
    first = min(n for n, x in means.items() if x > 0.3 + 1e-6)
    (crossing,) = found.curves[0].crossings
    assert crossing.step == first
    assert crossing.value == pytest.approx(means[first])


def test_rails_that_fired_are_found_in_the_log(tmp_path, registry):
    run = FullRun(tmp_path / "one", rails={"max_truncated": 0.3}).write()
    (alarm,) = [a for a in fold_report([run], registry).alarms if a.stage == "grpo"]
    assert alarm.step == 21  # the first step with more than 30 %
    assert "limit 30%" in alarm.text


def test_reward_against_kl_is_in_the_order_of_steps(run, registry):
    (trail,) = fold_report([run], registry).trails
    assert (trail.kl, trail.reward) == ("kl_full/reference", "rollout/reward")
    assert trail.points == tuple(sorted(trail.points))
    assert trail.points[0][1] == pytest.approx(statistics.mean([1 / 40, 2 / 40, 3 / 40]))


# --- samples and answers -----------------------------------------------------------------------


def test_the_same_prompts_are_shown_at_four_moments(run, registry):
    samples = fold_report([run], registry).samples
    assert [s.stage for s in samples] == ["base", "dpo", "grpo"]
    assert len(samples[0].exchanges) == 8
    said = samples[0].exchanges[1].said
    assert [one.step for one in said] == [0, 10, 20, 40]
    assert ["".join(part for part, _ in one.parts) for one in said][1] == "it is really blue ."
    assert [part.strip() for part, new in said[1].parts if new] == ["really"]


def test_marks_cover_what_is_new_and_lose_no_letter():
    parts = list(differing("the owl eats  mice.", "the owl eats \n small mice!"))
    assert "".join(part for part, _ in parts) == "the owl eats \n small mice!"
    assert "owl" in "".join(part for part, new in parts if not new)
    assert "small" in "".join(part for part, new in parts if new)


def test_the_worst_and_the_luckiest_answers_are_those_of_the_best_model(run, registry):
    (result,) = fold_report([run], registry).results
    scores = json.loads((run / "evaluations/01-duel/grpo/scores.json").read_text())
    known = sorted(x for x in scores["values"]["win_rate"] if x is not None)
    assert [one.value for one in result.worst] == known[:3]
    assert [one.value for one in result.luckiest] == known[:-4:-1]
    assert {one.model for one in (*result.worst, *result.luckiest)} == {"grpo"}


def test_judges_that_disagree_are_shown_with_both_values(run, registry):
    file = run / "evaluations/01-duel/dpo/judgments.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    doubled = {**rows[4], "judge": "other-7b", "id": "twice", "value": 1 - rows[4]["value"]}
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, doubled]))
    (result,) = fold_report([run], registry).results
    first = result.disagreements[0]
    assert first.model == "dpo"
    assert first.apart == pytest.approx(abs(1 - 2 * rows[4]["value"]))
    assert {who for who, _ in first.values} >= {"wise-72b", "other-7b"}


# --- stages ------------------------------------------------------------------------------------


def test_stages_say_what_they_read_what_was_reused_and_what_they_cost(tmp_path, registry):
    run = FullRun(tmp_path / "one")
    run.reused = ("base",)
    base, dpo, grpo = fold_report([run.write()], registry).runs[0].stages
    assert (base.status, base.seconds, base.made_in) == ("reused", None, 20.0)
    assert (dpo.status, dpo.seconds, dpo.reads) == ("done", 61.5, ("base",))
    assert (grpo.kind, grpo.what, grpo.steps, grpo.reads) == ("train", "grpo", 40, ("dpo",))


def test_a_stage_says_where_its_time_went_by_the_last_summary_that_is_whole(tmp_path, registry):
    folder = FullRun(tmp_path / "one").write()
    base, dpo, grpo = sorted(folder.glob("stages/*/timing.jsonl"))
    with base.open("a") as log:
        log.write('{"work": "stage", "shares": {"forward": 0.75, "rest": 0.25}}\n{"work": "st')
    dpo.unlink()
    with grpo.open("a") as log:
        log.write('{"shares": {"forward": null, "<b>": "x", "backward": NaN, "rest": 0.5}}\n')
    stages = fold_report([folder], registry).runs[0].stages
    assert [stage.shares for stage in stages] == [
        {"forward": 0.75, "rest": 0.25},
        {},
        {"rest": 0.5},
    ]


def test_the_twin_is_the_report(run, registry):
    report = fold_report([run], registry)
    twin = json.loads(json.dumps(as_json(report), allow_nan=False))
    assert twin.keys() == SECTIONS
    assert twin["results"][0]["outcomes"][0]["value"] == report.results[0].outcomes[0].value


# --- damaged and partial runs --------------------------------------------------------------------


def test_a_run_killed_while_it_wrote_shows_what_is_whole_and_names_the_rest(run, registry):
    log = run / "stages/02-dpo/metrics.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    samples = run / "stages/02-dpo/logged_samples.jsonl"
    samples.write_bytes(samples.read_bytes()[:-20])
    rewrite(run / "run.json", lambda r: r.update(status="interrupted"))
    rewrite(run / "run.json", lambda r: r["pieces"].update(dpo={"status": "running"}, grpo={}))
    report = fold_report([run], registry)
    (curve,) = curves_of(report, "dpo", "rewards/margin").curves
    assert (curve.steps, curve.last) == (39, 39 / 40)
    assert report.runs[0].stages[1].status == "interrupted"
    said = " ".join(report.missing)
    assert "dpo: 1 line of metrics.jsonl cannot be read" in said
    assert "dpo: 1 logged sample cannot be read" in said
    assert any("interrupted" in alarm.text for alarm in report.alarms)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("recipe.yaml", "name: [", "recipe.yaml is damaged"),
        (
            "recipe.yaml",
            "name: n\nmodel: m\nstages: []\nnew_key: 1\n",
            "cannot read its recipe.yaml",
        ),
        ("recipe.yaml", None, "recipe.yaml is missing"),
        ("run.json", "{", "run.json is missing or damaged"),
        ("scores.jsonl", '{"model": ', "its results are not shown"),
        ("scores.jsonl", None, "nothing is evaluated yet"),
        ("evaluations/01-duel/dpo/answers.jsonl", '{"prompt"', "its answers are not shown"),
        ("stages/01-base/logged_samples.jsonl", None, "base: no samples were logged"),
        ("stages/01-base/metrics.jsonl", "\x00\x01", "cannot be read"),
    ],
)
def test_what_is_damaged_or_gone_is_named(run, registry, name, text, complaint):
    if text is None:
        (run / name).unlink()
    else:
        (run / name).write_text(text)
    report = fold_report([run], registry)
    assert complaint in " ".join(report.missing)
    assert report.runs[0].name == "one"


def test_a_row_with_something_else_than_numbers_is_left_out_and_counted(run, registry):
    log = run / "stages/01-base/metrics.jsonl"
    lines = log.read_text().splitlines()
    lines[3] = '{"step": 4, "nll": "1e9"}'
    lines[7] = lines[6]
    log.write_text("\n".join(lines) + "\n")
    report = fold_report([run], registry)
    (curve,) = curves_of(report, "base", "nll").curves
    assert curve.steps == 38
    assert "2 lines of metrics.jsonl cannot be read" in " ".join(report.missing)


def test_a_folder_with_evaluations_alone_has_its_results(tmp_path, registry):
    run = FullRun(tmp_path / "one").write()
    bare = {"name": "eval", "model": "facts", "stages": []}
    (run / "recipe.yaml").write_text(json.dumps(bare))
    report = fold_report([run], registry)
    assert (report.metrics, report.samples, report.runs[0].stages) == ((), (), ())
    assert report.results[0].outcomes[0].model == "grpo"


def test_a_method_that_is_not_installed_has_curves_without_units(run, registry):
    text = (run / "recipe.yaml").read_text().replace("algorithm: dpo", "algorithm: from_elsewhere")
    (run / "recipe.yaml").write_text(text)
    report = fold_report([run], registry)
    assert not curves_of(report, "dpo", "rewards/margin").metric.declared
    assert "'from_elsewhere' is not installed here" in " ".join(report.missing)


def test_runs_are_told_apart_by_as_much_of_their_path_as_it_takes(tmp_path, registry):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    runs = [FullRun(tmp_path / part / "run", steps=12).write() for part in "ab"]
    report = fold_report(runs, registry)
    assert [r.name for r in report.runs] == ["a/run", "b/run"]
    assert [c.run for c in curves_of(report, "base", "nll").curves] == ["a/run", "b/run"]


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_what_is_no_run_is_refused(tmp_path, registry, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no run|no such folder"):
        fold_report([tmp_path / name], registry)
