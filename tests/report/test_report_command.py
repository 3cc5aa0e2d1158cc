"""`alignzoo report`: written beside the run, served while it goes, and left by `run` itself."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from kill_recipes import write_recipe
from report_runs import FullRun

from alignzoo.contract.errors import AlignzooError
from alignzoo.recipe.registry import load_plugins
from alignzoo.report.serve import Live, server_of


@pytest.fixture
def run(tmp_path):
    return FullRun(tmp_path / "one").write()


def test_the_page_and_its_numbers_lie_in_the_run_s_folder(cli, run):
    status, out, _ = cli("report", run)
    assert (status, out.strip()) == (0, f"report: {run / 'report.html'}")
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    twin = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert twin["results"][0]["outcomes"][0]["model"] == "grpo"
    assert "report.json" in (run / "report.html").read_text(encoding="utf-8")


def test_page_and_numbers_go_where_they_are_asked_to(cli, run, tmp_path):
    page, numbers = tmp_path / "deep/a.html", tmp_path / "n.json"
    assert cli("report", run, "-o", page, "--json", numbers)[0] == 0
    assert page.is_file()
    assert numbers.is_file()
    assert not (run / "report.html").exists()


def test_several_runs_are_compared_in_one_page(cli, run, tmp_path, monkeypatch):
    other = FullRun(tmp_path / "two", seed=4).write()
    monkeypatch.chdir(tmp_path)
    assert cli("report", run, other)[0] == 0
    assert [r["name"] for r in json.loads((tmp_path / "report.json").read_text())["runs"]] == [
        "one",
        "two",
    ]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("nothing",), "no such folder"),
        ((".", "-o", "x.html"), "no run"),
        (("RUN", "-o", "RUN"), "this is a folder"),
        (("RUN", "-o", "x.html", "--json", "x.html"), "--json x.html: -o is the same file"),
        (("RUN", "-o", "x.json"), "--json x.json: -o is the same file"),
        (("RUN", "--port", "8000"), "nothing is served without --watch"),
        (("RUN", "--watch", "-o", "x.html"), "it writes nothing"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(cli, run, tmp_path, monkeypatch, words, complaint):
    (tmp_path / "bare").mkdir()
    monkeypatch.chdir(tmp_path / "bare")
    status, _, err = cli("report", *(run if word == "RUN" else word for word in words))
    assert status == 2
    assert complaint in err


def test_a_run_leaves_its_report_and_says_where(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    file = write_recipe("train offline", tmp_path)
    status, out, _ = cli("run", file, "--output", tmp_path / "run")
    assert status == 0
    assert out.splitlines()[-1] == f"report: {tmp_path / 'run/report.html'}"
    twin = json.loads((tmp_path / "run/report.json").read_text(encoding="utf-8"))
    assert twin["runs"][0]["status"] == "done"
    assert [s["stage"] for s in twin["samples"]] == ["dpo"]
    logged = (tmp_path / "run/stages/01-dpo/metrics.jsonl").read_text().splitlines()
    (curve,) = [m["curves"][0] for m in twin["metrics"] if m["metric"]["name"] == "loss"]
    assert [y for _, y in curve["points"]] == [json.loads(line)["loss"] for line in logged]


def test_a_report_that_cannot_be_made_costs_a_run_nothing(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "run/report.html").mkdir(parents=True)
    (tmp_path / "run/run.json").write_text("{}")
    file = write_recipe("train offline", tmp_path)
    status, out, _ = cli("run", file, "--output", tmp_path / "run")
    assert status == 0
    assert "report: not written" in out.splitlines()[-1]


# --- served ------------------------------------------------------------------------------------


@pytest.fixture
def served(run):
    server = server_of(Live([run], load_plugins()), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def get(address, **headers):
    with urllib.request.urlopen(
        urllib.request.Request(address, headers=headers), timeout=20
    ) as got:
        return got.read().decode()


def test_a_watched_page_follows_the_run(served, run):
    before, page = get(f"{served}/version"), get(f"{served}/")
    assert f'data-version="{before}"' in page
    assert get(f"{served}/version") == before
    with (run / "stages/03-grpo/metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 41, "rollout/reward": 7.5}) + "\n")
    assert get(f"{served}/version") != before
    twin = json.loads(get(f"{served}/report.json"))
    (reward,) = [m for m in twin["metrics"] if m["metric"]["name"] == "rollout/reward"]
    assert reward["curves"][0]["last"] == 7.5


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/../run.json", {}), ("/run.json", {}), ("/", {"Host": "evil.example:80"})],
)
def test_nothing_else_is_served_and_to_no_other_name(served, path, headers):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(served + path, **headers)


def test_only_this_machine_can_reach_it(run):
    server = server_of(Live([run], load_plugins()), 0)
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(AlignzooError, match=r"choose another --port"):
        server_of(Live([run], load_plugins()), server.server_port)
    server.server_close()


@pytest.mark.slow
def test_ctrl_c_ends_watching_cleanly(run):
    command = [sys.executable, "-m", "alignzoo", "report", str(run), "--watch"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    line = process.stdout.readline()
    address = line.split()[0]
    assert "<h1>one</h1>" in get(address)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in err
