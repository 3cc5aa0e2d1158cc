"""`alignzoo doctor`: is this installation whole, and if not, what to do."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from alignzoo.cli.terminal.screen import print_table
from alignzoo.contract.datafiles import find, places_of
from alignzoo.contract.errors import AlignzooError
from alignzoo.contract.evaluation import Judge
from alignzoo.recipe.options import build_options, option_table, try_options
from alignzoo.recipe.registry import Registry, load_plugins
from alignzoo.store.files import cache_folder

if TYPE_CHECKING:
    from packaging.requirements import Requirement

IMPORTED = {  # distribution -> module; those that a run imports
    **{x: x for x in ("torch", "transformers", "accelerate", "datasets", "safetensors")},
    **{x: x for x in ("peft", "deepspeed", "httpx", "vllm")},
    "scikit-learn": "sklearn",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    found: str
    advice: str = ""  # not empty: broken
    state: str = "ok"

    @property
    def row(self) -> tuple[str, str, str]:
        """Columns of the report."""
        return self.what, "BROKEN" if self.advice else self.state, self.advice or self.found


def doctor_command() -> int:
    """Print the report; 1 when something is broken."""
    registry = load_plugins()
    findings = [
        *_python(),
        *_requirements(),
        _device(),
        _processes(),
        *_plugins(registry),
        *_engines(registry),
        *_judges(registry),
        *_benchmark_files(registry),
        *_extras(),
        _cache(),
    ]
    print_table(("what", "", "found"), [finding.row for finding in findings])
    broken = sum(bool(finding.advice) for finding in findings)
    print(f"{broken} broken" if broken else "all well")
    return 1 if broken else 0


def _python() -> Iterator[Finding]:
    yield Finding("python", platform.python_version())
    yield Finding("alignzoo", version("alignzoo"))


def _requirements() -> Iterator[Finding]:
    """Every core requirement: present, in the range we support, and importable."""
    for requirement in _needed(""):
        name = requirement.name
        found = _version(name)
        advice = _fault(requirement) if found else f"not installed; pip install '{requirement}'"
        yield Finding(name, found or "", advice)


def _needed(extra: str) -> list[Requirement]:
    """What an extra needs beside the core; "" is the core."""
    from packaging.requirements import Requirement

    every = [Requirement(text) for text in requires("alignzoo") or ()]
    if not extra:
        return [r for r in every if r.marker is None or r.marker.evaluate({"extra": ""})]
    own = [r for r in every if r.marker and r.marker.evaluate({"extra": extra})]
    return [r for r in own if r.marker and not r.marker.evaluate({"extra": ""})]


def _fault(requirement: Requirement) -> str:
    """What is wrong with a distribution that is there, or an empty string."""
    name, found = requirement.name, version(requirement.name)
    inside = requirement.specifier.contains(found, prereleases=True)
    odd = "" if inside else f"{found} is outside {requirement.specifier}"
    return "; ".join(filter(None, (odd, _import_error(IMPORTED.get(name, "sys")))))


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _import_error(module: str) -> str:
    try:
        with redirect_stdout(StringIO()):  # DeepSpeed's remarks about accelerators
            importlib.import_module(module)
    except Exception as error:  # a broken installation may raise anything
        return f"cannot be imported: {type(error).__name__}: {error}"
    return ""


def _device() -> Finding:
    try:
        import torch
    except Exception:  # reported among the requirements
        return Finding("device", "", "unknown without torch")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("device", ", ".join(names))
    return Finding("device", f"cpu, {os.cpu_count()} cores, {torch.get_num_threads()} threads")


def _processes() -> Finding:
    """How many workers `run --processes` can start here."""
    try:
        import torch
        from torch import distributed
    except Exception:  # reported among the requirements
        return Finding("processes", "", "unknown without torch")
    if not distributed.is_available():
        return Finding("processes", "1: this torch was built without torch.distributed")
    if gpus := torch.cuda.device_count() if torch.cuda.is_available() else 0:
        return Finding("processes", f"--processes 1 to {gpus}, one per GPU (nccl)")
    return Finding("processes", f"--processes N on the CPU (gloo), {os.cpu_count()} cores")


def _plugins(registry: Registry) -> Iterator[Finding]:
    """Plug-ins with their distributions; a clash or a failed import is broken."""
    for plugin in registry.plugins:
        names = [name for cls, owner in registry.owners.items() if owner == plugin
                 for name in [getattr(cls, "name", cls.__name__)]]  # fmt: skip
        listed = f": {', '.join(dict.fromkeys(names))}" if names else ""
        yield Finding(plugin.module, f"{plugin.distribution} {plugin.version}{listed}")
    for broken in registry.broken:
        advice = f"{broken.distribution} does not load: {broken.error}"
        yield Finding(broken.module, "", f"{advice}; repair or uninstall it")
    for (_, name), clash in registry.clashes.items():
        yield Finding(name, "", clash)


def _benchmark_files(registry: Registry) -> Iterator[Finding]:
    """What the benchmarks read and alignzoo does not ship; an absent file is no fault."""
    for name, cls in registry.benchmarks.items():
        absent = [file.what for file in cls.files if find(file, name) is None]
        if not cls.files:
            continue
        here = f"{len(cls.files) - len(absent)} of {len(cls.files)} files"
        place = places_of(name, None)[0]
        missing = f"; absent: {', '.join(absent)} (put them into {place})" if absent else ""
        yield Finding(f"{name} data", here + missing, state="absent" if absent else "ok")


def _engines(registry: Registry) -> Iterator[Finding]:
    """Whether plug-ins' rollout engines can sample here with the usual options; no fault if not."""
    for name, cls in registry.engines.items():
        try:
            engine = build_options(cls, {})
            engine.check_here()
        except AlignzooError as error:
            yield Finding(f"engine {name}", str(error), state="absent")
            continue
        yield Finding(f"engine {name}", str(engine.identity().get("server") or "can sample here"))


def _judges(registry: Registry) -> Iterator[Finding]:
    """Whether judges that need something of this machine, such as a key, find it; no fault if not.

    An option that must be given stands for any text: what is needed seldom hangs on it.
    """
    for name, cls in registry.judges.items():
        if cls.check_here is Judge.check_here:
            continue
        given = {row.name: "?" for row in option_table(cls) if row.required}
        built, _ = try_options(cls, given)
        if built is None:
            continue
        try:
            built.check_here()
        except AlignzooError as error:
            yield Finding(f"judge {name}", str(error), state="absent")
            continue
        yield Finding(f"judge {name}", "has what it needs here")


def _extras() -> Iterator[Finding]:
    """Optional parts; a missing one is no fault, one that does not work is."""
    for extra in metadata("alignzoo").get_all("Provides-Extra") or ():
        needed = _needed(extra)
        there = [r for r in needed if _version(r.name)]
        faults = [f"{r.name} {fault}" for r in there if (fault := _fault(r))]
        missing = ", ".join(r.name for r in needed if r not in there)
        hint = f"without {missing} (pip install 'alignzoo[{extra}]')" if missing else "installed"
        state = "absent" if missing else "ok"
        yield Finding(f"[{extra}]", hint, "; ".join(faults), state=state)


def _cache() -> Finding:
    folder = cache_folder()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    advice = "" if _writable(folder) else f"{folder} cannot be written; set ALIGNZOO_CACHE"
    return Finding("cache", f"{folder}, {size / 2**20:.1f} MB", advice)


def _writable(folder: Path) -> bool:
    """Whether the folder, or the nearest one above that exists, may be written to."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(there, os.W_OK)
