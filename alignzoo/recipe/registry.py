"""Entry points of group `alignzoo` -> one immutable registry; nothing here is a global.

Entry points are loaded one by one: pluggy's own loader drops the second of two distributions with
the same entry-point name and stops at the first import error. Here a clash is an error that names
both distributions, and a broken plug-in stops only the recipe that needs it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from alignzoo.contract import hooks as hookspecs
from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.dataset import Dataset
from alignzoo.contract.errors import PluginError, suggest
from alignzoo.contract.evaluation import Benchmark, Judge
from alignzoo.contract.rollout import RolloutEngine
from alignzoo.contract.stage import Stage
from alignzoo.contract.tracker import Tracker

GROUP = "alignzoo"


@dataclass(frozen=True)
class Plugin:
    """Where a registered thing came from."""

    module: str
    distribution: str
    version: str
    digest: str  # of the plug-in's Python files, so that an edit invalidates cached stages

    @property
    def identity(self) -> str:
        """What enters a content hash."""
        return f"{self.module}@{self.version}#{self.digest}"


@dataclass(frozen=True)
class BrokenPlugin:
    """An entry point that could not be imported."""

    module: str
    distribution: str
    error: str
    trace: str


class Offers(Mapping[str, type]):
    """The classes of one kind by name: "dpo", or "package:dpo" whoever else offers it.

    Iteration gives every class once, by its bare name where that is its own.
    """

    def __init__(self, names: Mapping[str, type], qualified: Mapping[str, type]) -> None:
        self.names, self.qualified = names, qualified

    def __getitem__(self, name: str) -> type:
        return self.names[name] if name in self.names else self.qualified[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Registry:
    """Everything the installed plug-ins offer."""

    hooks: pluggy.HookRelay
    plugins: tuple[Plugin, ...] = ()
    broken: tuple[BrokenPlugin, ...] = ()
    kinds: Mapping[str, Mapping[str, type]] = field(default_factory=dict)
    owners: Mapping[type, Plugin] = field(default_factory=dict)
    clashes: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (kind, name) -> who
    manager: pluggy.PluginManager | None = None

    def observers(self, hook: str) -> Iterator[tuple[str, Callable[..., Any]]]:
        """(plug-in, call) of every implementation of a hook, each to be called alone."""
        if self.manager is None:
            return
        every = self.manager.get_plugins()
        for implementation in getattr(self.hooks, hook).get_hookimpls():
            others = every - {implementation.plugin}
            yield implementation.plugin_name, self.manager.subset_hook_caller(hook, others)

    def find(self, kind: str, name: str) -> type[Any]:
        """The class registered under a name; raises PluginError with a suggestion."""
        known = self.kinds[kind]
        if name in known:
            return known[name]
        if (kind, name) in self.clashes:
            raise PluginError(self.clashes[kind, name])
        broken = "".join(f" ({b.module} does not load: {b.error})" for b in self.broken)
        raise PluginError(f"unknown {kind} '{name}'{suggest(name, known)}{broken}")

    def refuse_clash(self, name: str) -> None:
        """Raise PluginError for a bare name that several packages offer, of whatever kind."""
        for text in (text for (_, one), text in self.clashes.items() if one == name):
            raise PluginError(text)

    def owner(self, cls: type) -> Plugin:
        """The plug-in that registered a class."""
        return self.owners[cls]

    @property
    def algorithms(self) -> Mapping[str, type[Algorithm[Any]]]:
        """Training methods by name."""
        return self.kinds["algorithm"]

    @property
    def datasets(self) -> Mapping[str, type[Dataset]]:
        """Datasets by name."""
        return self.kinds["dataset"]

    @property
    def judges(self) -> Mapping[str, type[Judge]]:
        """Judges by name."""
        return self.kinds["judge"]

    @property
    def benchmarks(self) -> Mapping[str, type[Benchmark]]:
        """Benchmarks by name."""
        return self.kinds["benchmark"]

    @property
    def engines(self) -> Mapping[str, type[RolloutEngine]]:
        """Rollout engines by name."""
        return self.kinds["engine"]

    @property
    def stages(self) -> Mapping[str, type[Stage]]:
        """Stages by name."""
        return self.kinds["stage"]

    @property
    def trackers(self) -> Mapping[str, type[Tracker]]:
        """Trackers by name."""
        return self.kinds["tracker"]


CORE = {"stage": ("generate", "label")}  # names of the core's own, which come first
KINDS: Mapping[str, tuple[str, type]] = {
    "algorithm": ("register_algorithms", Algorithm),
    "dataset": ("register_datasets", Dataset),
    "judge": ("register_judges", Judge),
    "benchmark": ("register_benchmarks", Benchmark),
    "engine": ("register_rollout_engines", RolloutEngine),
    "stage": ("register_stages", Stage),
    "tracker": ("register_trackers", Tracker),
}


def load_plugins(extra: Iterable[ModuleType] = ()) -> Registry:
    """Import every installed plug-in (and the given modules) and collect what they register."""
    origin = cache(_origin)  # metadata are parsed anew whenever they are asked for
    found = sorted(entry_points(group=GROUP), key=lambda e: (e.name, origin(e.dist)))
    owners = {e.name: sorted({origin(x.dist)[0] for x in found if x.name == e.name}) for e in found}
    loaded: list[tuple[ModuleType, Plugin]] = []
    broken: list[BrokenPlugin] = []
    for entry in {e.name: e for e in found}.values():
        both = " and ".join(owners[entry.name])
        try:
            if len(owners[entry.name]) > 1:
                raise PluginError(f"it comes with both {both}; uninstall one of them")
            loaded.append((_current(entry.load()), _plugin(entry, *origin(entry.dist))))
        except Exception as error:  # a stranger's import may raise anything
            broken.append(_broken(entry.name, both, error))
    loaded += [(m, Plugin(m.__name__, "(given)", "0", _digest(m))) for m in extra]
    return build_registry(loaded, broken)


def _broken(module: str, distribution: str, error: Exception) -> BrokenPlugin:
    known = isinstance(error, PluginError)
    what = str(error) if known else f"{type(error).__name__}: {error}"
    return BrokenPlugin(module, distribution, what, traceback.format_exc())


def _current(module: ModuleType) -> ModuleType:
    """Refuse a plug-in that says it was written for other hooks than these."""
    wanted = getattr(module, "HOOKS_VERSION", hookspecs.VERSION)
    if wanted != hookspecs.VERSION:
        raise PluginError(
            f"written for version {wanted} of the hooks, this alignzoo has {hookspecs.VERSION}; "
            "install a version of the plug-in that fits"
        )
    return module


def hook_manager() -> pluggy.PluginManager:
    """One that knows every hook and has no plug-in yet."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    return manager


def hooks_of(name: str, watcher: object) -> pluggy.HookRelay:
    """The hooks of one object alone; raises PluginError for one that is misspelt."""
    manager = hook_manager()
    manager.register(watcher, name=name)
    _check_hooks(manager)
    return manager.hook


def build_registry(
    loaded: Iterable[tuple[ModuleType, Plugin]], broken: Iterable[BrokenPlugin] = ()
) -> Registry:
    """A registry of already imported plug-in modules; a flawed one is left out, and noted."""
    manager = hook_manager()
    if os.environ.get("ALIGNZOO_TRACE"):
        manager.trace.root.setwriter(lambda text: print(text, end="", file=sys.stderr))
        manager.enable_tracing()
    good: list[Plugin] = []
    bad = list(broken)
    offers: dict[tuple[str, str], list[type]] = {}
    owners: dict[type, Plugin] = {}
    for module, plugin in loaded:
        try:
            offered = _offered(manager, module, plugin)
        except Exception as error:  # a stranger's hook may raise anything
            manager.unregister(module)
            bad.append(_broken(plugin.module, plugin.distribution, error))
            continue
        good.append(plugin)
        for key, cls in offered:
            offers.setdefault(key, []).append(cls)
            owners[cls] = plugin
    kinds = {kind: _offers(kind, offers, owners) for kind in KINDS}
    clashes = {key: _clash(key, c, owners) for key, c in offers.items() if len(c) > 1}
    return Registry(manager.hook, tuple(good), tuple(bad), kinds, owners, clashes, manager)


def _offers(
    kind: str, offers: Mapping[tuple[str, str], Sequence[type]], owners: Mapping[type, Plugin]
) -> Offers:
    """A bare name that several offer, or that is the core's own, is nobody's; a module has one."""
    names: dict[str, type] = {}
    qualified: dict[str, type] = {}
    for name, classes in ((name, found) for (of, name), found in offers.items() if of == kind):
        whole = [f"{owners[cls].module}:{name}" for cls in classes]
        own = {x: cls for x, cls in zip(whole, classes, strict=True) if whole.count(x) == 1}
        qualified |= own
        free = len(classes) == 1 and name not in CORE.get(kind, ())
        names |= {name: classes[0]} if free else own
    return Offers(names, qualified)


def _offered(
    manager: pluggy.PluginManager, module: ModuleType, plugin: Plugin
) -> list[tuple[tuple[str, str], type]]:
    """((kind, name), class) of everything one plug-in registers."""
    others = manager.get_plugins()
    manager.register(module, name=plugin.module)
    _check_hooks(manager)
    found: list[tuple[tuple[str, str], type]] = []
    for kind, (hook, base) in KINDS.items():
        call: Callable[[], list[Iterable[Any]]] = manager.subset_hook_caller(hook, others)
        for cls in (cls for classes in call() for cls in classes):
            if not (isinstance(cls, type) and issubclass(cls, base)):
                raise PluginError(f"{hook} returned {cls!r}, which is not a {base.__name__}")
            found.append(((kind, cls.name), cls))  # type: ignore[attr-defined]
    return found


def _clash(key: tuple[str, str], classes: Sequence[type], owners: Mapping[type, Plugin]) -> str:
    who = " and ".join(f"{owners[c].distribution} ({owners[c].module})" for c in classes)
    modules = [owners[c].module for c in classes]
    apart = [f"`{m}:{key[1]}`" for m in modules if modules.count(m) == 1]
    how = f"write {' or '.join(apart)}" if apart else "it may register one"
    return f"{key[0]} '{key[1]}' is registered by {who}; {how}"


def _check_hooks(manager: pluggy.PluginManager) -> None:
    """A misspelt or mis-typed hook is an error, not silence."""
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        found = (hook for hook in dir(error.plugin) if hook in str(error))
        unknown = max(found, key=len, default="")
        known = [hook for hook in vars(hookspecs) if hasattr(manager.hook, hook)]
        raise PluginError(f"unknown hook '{unknown}'{suggest(unknown, known)}") from error


def _origin(distribution: Distribution | None) -> tuple[str, str]:
    """Name and version."""
    return (distribution.name, distribution.version) if distribution else ("?", "0")


def _plugin(entry: EntryPoint, distribution: str, version: str) -> Plugin:
    return Plugin(entry.name, distribution, version, _digest(sys.modules[entry.module]))


def _digest(module: ModuleType) -> str:
    if not module.__file__:
        return ""
    return source_digest(Path(module.__file__))


def source_digest(file: Path) -> str:
    """Hash of a module's file, or of all files of the package it is the root of.

    Tests and READMEs do not count.
    """
    files = sorted(file.parent.rglob("*")) if file.name == "__init__.py" else [file]
    digest = hashlib.blake2b(digest_size=8)
    for path in (p for p in files if p.is_file()):
        name = path.relative_to(file.parent)
        ignored = path.name.startswith("test_") or path.suffix in (".md", ".pyc")
        if not ignored:
            digest.update(name.as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
