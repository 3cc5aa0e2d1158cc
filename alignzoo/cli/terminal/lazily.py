"""Torch, imported on first use: help, plans and work that is finished need its name alone."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec
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
