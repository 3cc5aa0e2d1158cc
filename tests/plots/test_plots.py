"""Figures show what was logged, over the axis asked for, with seeds folded and nothing invented."""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch
import yaml
from safetensors.torch import save_file

from alignzoo.cli.looking.plotting import plot_command
from alignzoo.contract.errors import DataError, UsageError
from alignzoo.store.folders import WATCHING
from alignzoo.studies.plots.bands import fold
from alignzoo.studies.plots.curves import APART, curves, read_logs


def made(folder, rows, seed=0, stage="dpo", lr=0.1, **block):
    """The folder of a run with one stage; 10 tokens in each of its steps."""
    own = {"name": stage, "algorithm": "dpo", "train": {"lr": lr}, **block}
    place = folder / "stages" / f"01-{stage}"
    place.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    recipe = {"name": "toy", "model": "m", "seed": seed, "stages": [own]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    lines = [json.dumps({"step": n, **row}) + "\n" for n, row in enumerate(rows, 1)]
    (place / "metrics.jsonl").write_text("".join(lines))
    phases = {"forward": 0.2, "backward": 0.3}
    timing = {"seconds": 0.5, "tokens_per_second": 20.0, "phases": phases}
    steps = [{"step": n, **timing} for n in range(1, len(rows) + 1)]
    around = [{"work": "start", "seconds": 2.0, "phases": phases}, {"work": "end", "seconds": 1.0}]
    lines = [json.dumps(row) + "\n" for row in (around[0], *steps, around[1])]
    (place / "timing.jsonl").write_text("".join(lines))
    (place / "model").mkdir()
    weights = {"embed": torch.zeros(7, 4), "norm": torch.zeros(4)}
    save_file(weights, str(place / "model/model.safetensors"))
    return folder


def losses(*values):
    return [{"loss": value} for value in values]


def drawn(runs, x, y, bands=False):
    """The curves of some runs."""
    found = curves(read_logs(map(str, runs)), x, y)
    return fold(found) if bands else [curve for _, curve in found]


def test_a_curve_is_what_was_logged_and_a_torn_last_line_is_left_out(tmp_path):
    run = made(tmp_path / "r", losses(3.0, 2.0, 1.5))
    with (run / "stages/01-dpo/metrics.jsonl").open("a") as log:
        log.write('{"step": 4, "los')
    (curve,) = drawn([run], "step", "loss")
    assert (curve.x, curve.y) == ((1, 2, 3), (3.0, 2.0, 1.5))


def test_a_finished_stage_without_the_end_of_its_log_is_damaged(tmp_path):
    run = made(tmp_path / "r", losses(3.0, 2.0))
    place = run / "stages/01-dpo"
    (place / "stage.json").write_text('{"status": "done"}')
    whole = (place / "metrics.jsonl").read_text()
    (place / "metrics.jsonl").write_text(whole[:-5])
    with pytest.raises(DataError, match=r"metrics\.jsonl: damaged \(its end is missing\)"):
        drawn([run], "step", "loss")
    (place / "metrics.jsonl").write_bytes(b"\xff" + whole.encode())
    with pytest.raises(DataError, match=r"metrics\.jsonl: damaged"):
        drawn([run], "step", "loss")


def test_steps_without_the_metric_have_no_point(tmp_path):
    run = made(tmp_path / "r", [{"loss": 1.0}, {"loss": 2.0, "validation/loss": 9.0}])
    (curve,) = drawn([run], "step", "validation/loss")
    assert (curve.x, curve.y) == ((2,), (9.0,))


def test_flops_are_six_for_each_parameter_and_token_so_far_and_four_under_an_adapter(tmp_path):
    whole = made(tmp_path / "r", losses(1, 1, 1))
    adapted = made(tmp_path / "a", losses(1, 1), adapter={"lora": {"r": 2}})
    both = drawn([whole, adapted], "flops", "loss")
    assert both[0].x == (6 * 32 * 10, 6 * 32 * 20, 6 * 32 * 30)
    assert both[1].x == (4 * 32 * 10, 4 * 32 * 20)


def test_flops_count_every_trained_role(tmp_path):
    run = made(tmp_path / "r", losses(1))
    (run / "stages/01-dpo/model-critic").mkdir()
    save_file({"w": torch.zeros(5)}, str(run / "stages/01-dpo/model-critic/model.safetensors"))
    assert drawn([run], "flops", "loss")[0].x == (6 * 37 * 10,)


def test_flops_of_steps_whose_tokens_are_not_known_are_refused(tmp_path):
    run = made(tmp_path / "r", losses(1, 1))
    (run / "stages/01-dpo/timing.jsonl").unlink()
    with pytest.raises(DataError, match=r"timing.jsonl: step 1 is missing"):
        drawn([run], "flops", "loss")


def test_kl_is_the_one_kl_that_was_logged_and_several_must_be_named(tmp_path):
    one = [{"kl_k1/token": 0.1, "kl_full/ref": 2.0, "y": 1}, {"kl_full/ref": 1.0, "y": 2}]
    (curve,) = drawn([made(tmp_path / "one", one)], "kl", "y")
    assert (curve.x, curve.y) == ((2.0, 1.0), (1, 2)), "in the order of steps"
    two = made(tmp_path / "two", [{"kl_full/a_seq": 2.0, "kl_full/b_seq": 3.0, "y": 1}])
    with pytest.raises(UsageError, match="has 2 KLs; name one of them: --x kl_full/a_seq or"):
        drawn([two], "kl", "y")
    assert drawn([two], "kl_full/b_seq", "y")[0].x == (3.0,)
    with pytest.raises(UsageError, match="has 0 KLs; it logs none"):
        drawn([made(tmp_path / "none", losses(1))], "kl", "loss")


def test_seeds_of_one_recipe_become_a_mean_with_its_standard_error(tmp_path):
    for seed, values in enumerate([(1.0, 5.0, 7.0), (2.0, 6.0), (6.0, 7.0)]):
        made(tmp_path / f"seeds/seed-{seed}", losses(*values), seed)
    (curve,) = drawn([tmp_path / "seeds"], "step", "loss", bands=True)
    assert (curve.steps, curve.seeds) == ((1, 2), 3), "the steps that every seed has"
    assert curve.y == (3.0, 6.0)
    # sample variances 7 and 1 over three seeds
    assert curve.spread == pytest.approx(((7 / 3) ** 0.5, (1 / 3) ** 0.5))


def test_a_folder_of_a_sweep_stands_for_its_runs(tmp_path):
    for lr in (0.1, 0.2):
        made(tmp_path / f"sweep/lr={lr}", losses(lr), lr=lr)
    assert len(drawn([tmp_path / "sweep"], "step", "loss")) == 2
    with pytest.raises(UsageError, match="neither a run nor RUN/STAGE nor a folder of"):
        drawn([tmp_path], "step", "loss")


def test_runs_that_differ_in_more_than_the_seed_stay_apart(tmp_path):
    runs = [made(tmp_path / f"{n}", losses(n), seed=n, lr=lr) for n, lr in enumerate((1, 1, 2))]
    found = drawn(runs, "step", "loss", bands=True)
    assert [curve.seeds for curve in found] == [2, 1]
    with pytest.raises(UsageError, match="no two runs differ in their seed alone"):
        drawn(runs[1:], "step", "loss", bands=True)


def test_what_changes_no_result_keeps_no_seeds_apart():
    assert {*APART} == {"seed", "threads", *WATCHING}


def test_a_seed_that_is_there_twice_is_refused_because_the_band_would_be_too_narrow(tmp_path):
    runs = [made(tmp_path / name, losses(1.0), seed=3) for name in "ab"]
    with pytest.raises(UsageError, match="seed 3 of one recipe is there twice: a and b"):
        drawn(runs, "step", "loss", bands=True)
    assert len(read_logs([str(runs[0]), f"{runs[0]}/dpo"])) == 1, "the same run named twice is one"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{run}", "step", "los"), "--y los: no stage logged it; did you mean 'loss'?; there are"),
        (("{run}", "stepp", "loss"), "no such figure; did you mean 'step'?; there are step, flops"),
        (("{run}/dpoo", "step", "loss"), "no training stage 'dpoo' (it has dpo); did you mean"),
        (("{run}/stages/x", "step", "loss"), "neither a run nor RUN/STAGE nor a folder of"),
    ],
)
def test_a_wrong_name_is_told_with_what_there_is(tmp_path, words, said):
    made(tmp_path / "r", losses(1.0))
    run, x, y = (word.format(run=tmp_path / "r") for word in words)
    with pytest.raises(UsageError) as caught:
        drawn([run], x, y)
    assert said in str(caught.value)


def test_a_damaged_log_is_named(tmp_path):
    run = made(tmp_path / "r", losses(1.0))
    (run / "stages/01-dpo/metrics.jsonl").write_text('{"step": 1, "loss": [}\n')
    with pytest.raises(DataError, match=r"metrics.jsonl: damaged"):
        drawn([run], "step", "loss")


def test_a_figure_says_units_stages_and_seeds_and_is_the_same_every_time(tmp_path):
    pytest.importorskip("matplotlib")
    for seed in (0, 1):
        rows = [{"response_length": 4.0 + seed}, {"response_length": 6.0 + seed}]
        made(tmp_path / f"s/seed-{seed}", rows, seed)
    for name in ("a.svg", "b.svg"):
        plot_command([str(tmp_path / "s")], "flops", "response_length", tmp_path / name, bands=True)
    text = (tmp_path / "a.svg").read_text()
    for word in (
        "response_length [tokens]",
        "training FLOPs (6 N D)",
        "dpo (mean ± s.e., 2 seeds)",
    ):
        assert word in text
    assert text == (tmp_path / "b.svg").read_text()
    assert not re.search(r"<dc:date>|file:|/tmp", text)


@pytest.mark.parametrize(("name", "head"), [("a.pdf", b"%PDF"), ("a.png", b"\x89PNG")])
def test_pdf_and_png_are_written(tmp_path, name, head):
    pytest.importorskip("matplotlib")
    run = made(tmp_path / "r", losses(1.0, 2.0))
    plot_command([str(run)], "step", "loss", tmp_path / name, bands=False)
    assert (tmp_path / name).read_bytes().startswith(head)


def test_an_unknown_kind_of_file_and_a_missing_library_are_told(tmp_path, monkeypatch):
    run = made(tmp_path / "r", losses(1.0))
    with pytest.raises(UsageError, match=r"end its name with .pdf, .svg, .png"):
        plot_command([str(run)], "step", "loss", tmp_path / "a.docx", bands=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install 'alignzoo\[plot\]'"):
        plot_command([str(run)], "step", "loss", tmp_path / "a.pdf", bands=False)
