"""Torch, imported on first use: help, plans and work that is finished need its name alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec, spec_from_loader
from types import ModuleType
from typing import Any

TORCH = "torch"


class _Later(ModuleType):
    """A module that is loaded when something is taken from it; a submodule takes its path."""

    def __getattr__(self, name: str) -> Any:
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec = self.__spec__
        if spec is None or spec.loader is None:
            raise AttributeError(name)
        self.__path__ = spec.submodule_search_locations or []
        try:
            spec.loader.exec_module(self)
        except BaseException:
            sys.modules.pop(self.__name__, None)
            del self.__path__
            self.__class__ = _Later  # whoever asks again is told again
            raise
        return getattr(self, name)


class _There(MetaPathFinder, Loader):
    """Submodules that came with torch while somebody was importing them.

    `import torch.nn` asks for the path of torch after it has looked whether torch.nn is there. The
    asking loads torch, and torch.nn with it: without this it would be made a second time.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Of what is there already and is not to be loaded anew."""
        there = name.startswith(f"{TORCH}.") and name in sys.modules and target is None
        return spec_from_loader(name, self, origin="there") if there else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """What is there, with its own spec put aside."""
        module = sys.modules[spec.name]
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing but the spec has to be as it was."""
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state


@contextmanager
def unloaded_torch_hidden() -> Iterator[None]:
    """For libraries that look whether torch is there, to know its tensors, and never import it."""
    there = sys.modules.get(TORCH)
    if there is None or type(there) is not _Later:
        yield
        return
    del sys.modules[TORCH]
    try:
        yield
    finally:
        sys.modules[TORCH] = there


def import_torch_on_first_use() -> None:
    """Let `import torch` cost nothing until something is taken from it.

    The standard library's LazyLoader does not do: a second `import` loads what it put off.
    """
    spec = None if TORCH in sys.modules else find_spec(TORCH)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    del module.__path__  # so that whoever imports a submodule asks for it
    module.__class__ = _Later
    sys.modules[TORCH] = module
    sys.meta_path.insert(0, _There())
