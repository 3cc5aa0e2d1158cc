"""Torch is imported when something is taken from it, and then as ever."""

import subprocess
import sys

import pytest

BEGIN = """
import sys
from alignzoo.cli.terminal.lazily import import_torch_on_first_use
import_torch_on_first_use()
import torch
assert torch is sys.modules["torch"]
import torch
"""


def run(folder, code):
    """Run code where `torch` is a package of these files."""
    start = f"import sys\nsys.path.insert(0, {str(folder)!r})\n"
    command = [sys.executable, "-c", start + BEGIN + code]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture
def torch(tmp_path):
    package = tmp_path / "torch"
    (package / "nn").mkdir(parents=True)
    (package / "nn" / "__init__.py").write_text(
        "print('nn')\nimport torch\nhalf = torch.zeros / 2\n"
    )
    (package / "__init__.py").write_text(
        "print('loaded')\nimport torch\nzeros = 4\nassert torch.zeros == 4\nfrom torch import nn\n"
    )
    return package


def test_a_module_that_only_names_torch_does_not_load_it(tmp_path, torch):
    done = run(tmp_path, "print('ready')")
    assert (done.returncode, done.stdout) == (0, "ready\n"), done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "assert torch.zeros == 4",
        "from torch import zeros",
        "from torch.nn import half; assert half == 2",
        "import torch.nn; assert torch.nn.half == 2",
        "import importlib; assert importlib.import_module('torch.nn').half == 2",
        "import torch.nn; import torch.nn; from torch import nn; assert nn is torch.nn",
    ],
)
def test_whoever_takes_something_has_it_loaded_once(tmp_path, torch, code):
    after = "\nassert type(torch).__name__ == 'module' and sys.modules['torch'] is torch"
    done = run(tmp_path, code + after)
    assert (done.returncode, done.stdout) == (0, "loaded\nnn\n"), done.stderr


def test_a_submodule_that_came_with_torch_is_as_it_was_made(tmp_path, torch):
    code = "import torch.nn as nn\nprint(nn.__spec__.origin, nn.__loader__ is nn.__spec__.loader)"
    done = run(tmp_path, code)
    assert done.stdout.endswith(f"{torch / 'nn' / '__init__.py'} True\n"), done.stderr


def test_a_name_that_torch_has_not_is_an_error_as_ever(tmp_path, torch):
    done = run(tmp_path, "torch.ones")
    assert "AttributeError: module 'torch' has no attribute 'ones'" in done.stderr


def test_a_torch_that_cannot_be_imported_says_so_every_time(tmp_path, torch):
    (torch / "__init__.py").write_text("raise ImportError('no libcudart')")
    again = "\nfor _ in 'ab':\n    try: torch.zeros\n    except ImportError as e: print(e)"
    done = run(tmp_path, again)
    assert done.stdout == "no libcudart\nno libcudart\n", done.stderr
