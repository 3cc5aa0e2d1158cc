"""One quiet thread, no network, a cache of its own, and no silent loss of the shared data."""

import os
import re
import sys
import tempfile

# Before torch and the hub client are imported: both read these once.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

import pytest
import torch
from shared_data import shared_folder

torch.set_num_threads(1)

NEEDS_SHARED = re.compile(r"\bshared\b|\bgolden\b", re.IGNORECASE)


def pytest_configure(config):
    """Tests never touch the user's stores, nor a GPU unless `-m gpu` asks for those that need one.

    Nor do the processes they start.
    """
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # other tests compare with models on the CPU
    for store in ("ALIGNZOO_CACHE", "TRACKIO_DIR"):  # trackio reads it once, when it is imported
        folder = tempfile.TemporaryDirectory(prefix=f"{store.lower()}-")
        config.add_cleanup(folder.cleanup)
        os.environ[store] = folder.name


def lost_tests(config):
    """Skips for want of the shared folder, although it is there: "place: reason" each."""
    if not shared_folder().is_dir():
        return []
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    reasons = [(r.nodeid, r.longrepr[-1]) for r in skipped if isinstance(r.longrepr, tuple)]
    return [f"{place}: {reason}" for place, reason in reasons if NEEDS_SHARED.search(reason)]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    if lost_tests(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    lost = lost_tests(config)
    if lost:
        terminalreporter.section("skipped for want of shared data that is there", red=True)
        terminalreporter.write_line("\n".join(lost))


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run the command line in this process: (exit status, what it printed, what it complained)."""
    from alignzoo.cli import main

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["alignzoo", *map(str, words)])
        capsys.readouterr()
        try:
            status = main()
        except SystemExit as ended:
            status = ended.code
        printed = capsys.readouterr()
        return status or 0, printed.out, printed.err

    return call
