"""Each library holds what metrics.jsonl holds, read back from its own files, and nothing twice."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from alignzoo import Tracker, hookimpl
from alignzoo.contract.errors import Interrupted, RecipeError
from alignzoo.contract.progress import Silent
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.run import run_recipe
from alignzoo.testing import check_tracker, run_tracker_checks
from alignzoo_trackers.watching import Watcher

OPTIONS = {"tensorboard": {}, "wandb": {"mode": "offline"}, "mlflow": {}, "trackio": {}}
MODULES = {"mlflow": ("mlflow", "sqlalchemy", "alembic")}


def needs(name):
    gone = [m for m in MODULES.get(name, (name,)) if importlib.util.find_spec(m) is None]
    reason = f"{', '.join(gone)} not installed; pip install '.[trackers]'"
    return pytest.param(name, marks=pytest.mark.skipif(bool(gone), reason=reason))


EVERY = [needs(name) for name in OPTIONS]


@pytest.fixture(autouse=True)
def _places_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")


def recipe(*trackers, steps=6, **train):
    stage = {
        "name": "sft",
        "algorithm": "sft",
        "data": {"name": "facts.sft", "with": {"size": 16}},
        "train": {"steps": steps, "batch_size": 4, "epochs": 9, "lr": 0.01, **train},
    }
    parts = {"name": "tracked", "model": "facts", "threads": 1, "stages": [stage]}
    named = [{"name": name, "with": OPTIONS[name]} for name in trackers]
    evaluate = [{"benchmark": "facts", "with": {"size": 2}}]
    return Recipe.model_validate({**parts, "trackers": named, "evaluate": evaluate})


class Heard(Silent):
    """Progress that keeps notes, and may stop a training."""

    def __init__(self, stop=0):
        self.notes, self.stop = [], stop

    def note(self, text):
        self.notes.append(text)

    def step(self, stage, step, total, metrics, timing):
        if stage == "sft" and step == self.stop:
            raise Interrupted(2)


def run(folder, what, stop=0):
    heard = Heard(stop)
    run_recipe(what, "", load_plugins(), folder, heard)
    return heard.notes


def logged(folder):
    """metrics.jsonl as (metric, step, value), sorted."""
    rows = (folder / "stages/01-sft/metrics.jsonl").read_text().splitlines()
    points = [(k, r["step"], x) for r in map(json.loads, rows) for k, x in r.items() if k != "step"]
    return sorted(points)


# --- reading back, with each library's own reader ----------------------------------------------


def read_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    place = folder / "trackers/tensorboard/sft"
    events = EventAccumulator(str(place), size_guidance={"tensors": 0}, purge_orphaned_data=False)
    events.Reload()
    tags = events.Tags()["tensors"]
    return [
        (t, e.step, make_ndarray(e.tensor_proto).item()) for t in tags for e in events.Tensors(t)
    ]


def records(file):
    """The records of a .wandb file: a log of LevelDB's kind behind seven bytes of its own."""
    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def read_wandb(folder):
    """The rows of every session; a server keeps the first of two rows of one step."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = {}
    for file in sorted(folder.glob("trackers/wandb/offline-run-*/*.wandb")):
        every = [Record.FromString(data) for data in records(file)]
        if any(record.run.display_name == "sft" for record in every):
            for history in (record.history for record in every):
                items = {i.key or "/".join(i.nested_key): i.value_json for i in history.item}
                for key in (key for key in items if not key.startswith("_")):
                    found.setdefault((key, history.step.num), json.loads(items[key]))
    return [(key, step, value) for (key, step), value in found.items()]


def read_mlflow(folder):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder.resolve() / 'trackers/mlflow.db'}")
    experiment = client.get_experiment_by_name("tracked").experiment_id
    (one,) = client.search_runs([experiment], "tags.mlflow.runName = 'sft'")
    points = [client.get_metric_history(one.info.run_id, key) for key in one.data.metrics]
    return [(p.key, p.step, p.value) for every in points for p in every]


def read_trackio(folder):
    from trackio.sqlite_storage import SQLiteStorage

    names = [n for n in SQLiteStorage.get_runs("tracked") if n.startswith(f"{folder.name}/sft-")]
    rows = [row for name in names for row in SQLiteStorage.get_logs("tracked", name)]
    own = {"step", "timestamp"}
    return [(k, row["step"], x) for row in rows for k, x in row.items() if k not in own]


READ = {
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
    "mlflow": read_mlflow,
    "trackio": read_trackio,
}


@pytest.mark.parametrize("name", EVERY)
def test_a_library_holds_every_value_of_metrics_jsonl_once_after_a_resume(name, tmp_path):
    place = tmp_path / f"cut-{name}"
    what = recipe(name, save_every=2)
    with pytest.raises(KeyboardInterrupt):
        run(place, what, stop=3)
    assert not [note for note in run(place, what) if "failed" in note]
    assert sorted(READ[name](place)) == logged(place)
    assert len(logged(place)) > 6 * 3
    before = READ[name](place)
    assert not [note for note in run(place, what) if "failed" in note]
    assert READ[name](place) == before, "a run that reuses everything sends nothing"


def test_a_finished_stage_is_sent_when_a_tracker_is_added_later(tmp_path):
    pytest.importorskip("tensorboard")
    run(tmp_path / "r", recipe())
    run(tmp_path / "r", recipe("tensorboard"))
    assert sorted(read_tensorboard(tmp_path / "r")) == logged(tmp_path / "r")


def test_another_training_under_the_same_name_has_curves_of_its_own(tmp_path):
    pytest.importorskip("tensorboard")
    run(tmp_path / "r", recipe("tensorboard"))
    run(tmp_path / "r", recipe("tensorboard", steps=3))
    assert sorted(read_tensorboard(tmp_path / "r")) == logged(tmp_path / "r")
    assert {step for _, step, _ in logged(tmp_path / "r")} == {1, 2, 3}


def test_tensorboard_shows_meaning_and_unit_of_a_curve_and_the_leaderboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path / "r", recipe("tensorboard"))
    events = EventAccumulator(str(tmp_path / "r/trackers/tensorboard/sft")).Reload()
    said = events.SummaryMetadata("response_length").summary_description
    assert said == "mean response length, stop token included [tokens]"
    whole = EventAccumulator(str(tmp_path / "r/trackers/tensorboard/run results")).Reload()
    (event,) = whole.Tensors("leaderboard.md")
    board = (tmp_path / "r/leaderboard.md").read_bytes()
    assert event.tensor_proto.string_val[0] == board


def test_the_report_of_a_run_is_attached_and_a_later_one_on_the_same_results_is_not(tmp_path):
    attached, line = [], Held(Flaky(0))
    line.attach = lambda files: attached.append([f.read_text() for f in files])
    for results, report in (("1", "took 9 s"), ("1", "took 0 s"), ("2", "took 8 s")):
        (tmp_path / "scores.jsonl").write_text(results)
        (tmp_path / "report.json").write_text(report)
        Watcher("flaky", lambda series: line).on_run_end(run=tmp_path, error=None)
    assert attached == [["1", "took 9 s"], ["2", "took 8 s"]]


@pytest.mark.parametrize("name", [needs("mlflow")])
def test_mlflow_keeps_the_leaderboard_with_the_run_that_its_stages_lie_below(name, tmp_path):
    from mlflow import MlflowClient

    run(tmp_path / "r", recipe(name))
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'r/trackers/mlflow.db'}")
    experiment = client.get_experiment_by_name("tracked").experiment_id
    (stage,) = client.search_runs([experiment], "tags.mlflow.runName = 'sft'")
    parent = stage.data.tags["mlflow.parentRunId"]
    assert (
        "response_length`: mean response length, stop token included [tokens]"
        in (stage.data.tags["mlflow.note.content"])
    )
    kept = Path(client.download_artifacts(parent, "leaderboard.md", str(tmp_path)))
    assert kept.read_text() == (tmp_path / "r/leaderboard.md").read_text()


# --- identities, choice, absence ---------------------------------------------------------------


def test_a_tracker_changes_neither_identities_nor_the_folder_of_a_run():
    from alignzoo.store.folders import default_folder
    from alignzoo.store.identity import stage_identity

    plain, watched = recipe(), recipe("tensorboard")
    registry = load_plugins()
    assert default_folder(plain, registry) == default_folder(watched, registry)
    one, two = (stage_identity(r.stages[0], r, registry, {}) for r in (plain, watched))
    assert one.digest == two.digest


def load(tmp_path, trackers):
    from alignzoo.recipe.file import load_recipe

    text = json.dumps(recipe().model_dump(mode="json", by_alias=True, exclude_none=True))
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    return load_recipe(file, load_plugins(), [f"trackers={trackers}"])


def test_trackers_are_named_alone_or_with_options(tmp_path):
    found = load(tmp_path, "[tensorboard, {name: wandb, with: {mode: offline}}]").trackers
    assert [(one.name, one.with_) for one in found] == [
        ("tensorboard", {}),
        ("wandb", {"mode": "offline"}),
    ]


@pytest.mark.parametrize(
    ("trackers", "said"),
    [
        ("[tensorbord]", "unknown tracker 'tensorbord'; did you mean 'tensorboard'?"),
        ("[{name: wandb, with: {mod: offline}}]", "trackers.0.with.mod: unknown option; did you"),
        ("[mlflow, mlflow]", "'mlflow' stands here twice"),
        ("[{name: wandb, with: {mode: of}}]", "trackers.0.with.mode"),
    ],
)
def test_a_wrong_choice_is_refused_when_the_recipe_is_read(tmp_path, trackers, said):
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, trackers)
    assert said in str(caught.value)


def test_a_library_that_is_not_installed_is_told_with_the_pip_line_before_anything(
    tmp_path, monkeypatch
):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "tensorboard" else found(name)
    )
    with pytest.raises(RecipeError, match=r"trackers.0: tensorboard: .*pip install 'alignzoo\[tr"):
        run(tmp_path / "r", recipe("tensorboard"))
    assert not (tmp_path / "r/stages").exists()


def test_wandb_without_a_key_is_told_before_anything(tmp_path):
    pytest.importorskip("wandb")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    code = "from alignzoo_trackers.wandb import WandB; print(WandB().lacks())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "no API key; `wandb login`, or `{name: wandb, with: {mode: offline}}`\n"


def test_no_library_is_imported_before_it_is_chosen():
    code = "import alignzoo_trackers, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {*OPTIONS} & {*done.stdout.split()}


# --- failures ----------------------------------------------------------------------------------


class Flaky:
    """A library that is down for its first points."""

    def __init__(self, fails):
        self.fails, self.lines = fails, {}

    def __call__(self, series):
        return self.lines.setdefault(series.name, Held(self))


class Held:
    """What it has of one series."""

    def __init__(self, library):
        self.library, self.points = library, []

    def held(self, metric):
        return max((step for name, step, _ in self.points if name == metric), default=-1)

    def log(self, step, values):
        if self.library.fails:
            self.library.fails -= 1
            raise ConnectionError("the server is down")
        self.points += [(name, step, x) for name, x in values.items()]

    def attach(self, files):
        pass

    def close(self, *, failed):
        pass


def followed(tmp_path, flaky, monkeypatch):
    import alignzoo_trackers.tensorboard as module

    monkeypatch.setattr(module.TensorBoard, "lacks", lambda self: "")
    monkeypatch.setattr(module.TensorBoard, "watch", lambda self: Watcher("tensorboard", flaky))
    return run(tmp_path / "r", recipe("tensorboard"))


def test_a_tracker_that_fails_for_a_while_is_said_once_and_loses_no_point(tmp_path, monkeypatch):
    flaky = Flaky(fails=1)
    notes = followed(tmp_path, flaky, monkeypatch)
    said = [note for note in notes if "the server is down" in note]
    assert len(said) == 1
    assert "on_step of tensorboard failed, the run goes on" in said[0]
    assert "metrics.jsonl has them all, and the rest of the stage is sent at its end" in said[0]
    assert sorted(flaky.lines["sft"].points) == logged(tmp_path / "r")


def test_a_tracker_that_stays_down_costs_nothing_but_its_curves(tmp_path, monkeypatch):
    flaky = Flaky(fails=100)
    notes = followed(tmp_path, flaky, monkeypatch)
    assert [len([n for n in notes if f"{hook} of tensorboard failed, " in n])
            for hook in ("on_step", "on_stage_end")] == [1, 1]  # fmt: skip
    record = json.loads((tmp_path / "r/run.json").read_text())
    assert record["status"] == "done"
    assert record["failed_hooks"] == {  # at the end of the stage, and of its evaluation
        "on_step of tensorboard": 1,
        "on_stage_end of tensorboard": 2,
    }
    assert len({step for _, step, _ in logged(tmp_path / "r")}) == 6
    flaky.fails = 0
    followed(tmp_path, flaky, monkeypatch)
    # The same command sends what is missing.
    assert sorted(flaky.lines["sft"].points) == logged(tmp_path / "r")


@pytest.mark.parametrize("name", [needs("tensorboard"), needs("wandb")])
def test_a_tracker_keeps_the_contract(name):
    cls = load_plugins().find("tracker", name)
    check_tracker(cls(**cls.example_options))


def test_the_contract_finds_a_tracker_that_writes_into_a_stage():
    class Careless(Tracker):
        """Writes where it must not."""

        name = "careless"

        def watch(self):
            return Scribbler()

    class Scribbler:
        @hookimpl
        def on_stage_end(self, folder):
            (folder / "seen").write_text("here")

    broken = [check for check in run_tracker_checks(Careless()) if not check.kept]
    assert [check.promise for check in broken] == ["it changes no file of a stage"]
    assert "stages/01-toy/seen lies there since" in broken[0].detail
