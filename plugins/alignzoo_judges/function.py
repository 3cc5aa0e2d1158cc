"""A judge in one function of the user's own."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from alignzoo import Answer, Judge, PluginError, Score, file_digest, option

Scorer = Callable[[Any, str], float]


@dataclass(frozen=True)
class Function(Judge):
    """A function of yours, `score(prompt, answer) -> float`; larger is better.

    `prompt` is what the data set holds: a text, or a list of {"role", "content"} messages;
    `answer` is the text of the reply to the last turn. It runs with your rights in this process.
    """

    name = "function"
    path: str = option(doc="where it is: file.py:function")

    def __post_init__(self) -> None:
        file, _, function = self.path.rpartition(":")
        if not file.endswith(".py") or not function.isidentifier():
            raise ValueError(f"path: '{self.path}' is not of the form file.py:function")

    @property
    def label(self) -> str:
        """The file's name and the function: tables are read elsewhere too."""
        file, _, function = self.path.rpartition(":")
        return f"{Path(file).name}:{function}"

    def identity(self) -> Mapping[str, Any]:
        """The function's name and the content of its file; what that imports is not covered.

        Raises PluginError when there is no such file.
        """
        file, function = self._place()
        return {"function": function, "digest": file_digest(file)}

    def score(self, answers: Sequence[Answer]) -> list[Score]:
        """One score per answer, in order.

        Raises PluginError naming the line when the function fails or returns no finite number.
        """
        file, function = self._place()
        scorer = _function(file, function, file_digest(file))
        return [Score(_value(scorer, answer, file, function)) for answer in answers]

    def _place(self) -> tuple[Path, str]:
        file, _, function = self.path.rpartition(":")
        if not Path(file).is_file():
            raise PluginError(f"function: {file}: no such file; path is file.py:function")
        return Path(file).resolve(), function


def _value(scorer: Scorer, answer: Answer, file: Path, function: str) -> float:
    prompt = answer.prompt
    shown = prompt if isinstance(prompt, str) else [dict(m) for m in prompt]
    try:
        given = scorer(shown, answer.response.text)
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise PluginError(_blame(error, file, f"in {function}")) from error
    try:
        value = float(given)
    except (TypeError, ValueError, OverflowError) as error:
        raise PluginError(
            f"{file}: {function} returned {str(given)[:40]!r}, not a number"
        ) from error
    if not math.isfinite(value):
        raise PluginError(f"{file}: {function} returned {value} for {answer.response.text[:40]!r}")
    return value


@cache
def _function(file: Path, function: str, digest: str) -> Scorer:
    """The function; a changed file is read anew because its digest is another."""
    module = _module(file, digest)
    found = getattr(module, function, None)
    if not callable(found):
        names = [n for n, x in vars(module).items() if callable(x) and not n.startswith("_")]
        near = difflib.get_close_matches(function, names, n=1, cutoff=0.5)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise PluginError(f"{file}: has no function '{function}'{hint}")
    scorer: Scorer = found
    return scorer


class _Unkept(SourceFileLoader):
    """Compiles the file every time. Kept bytecode is told by size and second: a quick edit of the
    same length would run the old code under the new digest.
    """

    def get_code(self, fullname: str) -> CodeType:
        """The code of the file as it is now."""
        return self.source_to_code(self.get_data(self.path), self.path)


def _module(file: Path, digest: str) -> ModuleType:
    """The file as a module under a name of its own, so that two files of one name do not clash."""
    place = hashlib.sha256(f"{file}\0{digest}".encode()).hexdigest()[:16]
    name = f"alignzoo_judge_{place}"
    loader = _Unkept(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    if spec is None:
        raise PluginError(f"{file}: is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look their module up there
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's import may raise anything
        del sys.modules[spec.name]
        raise PluginError(_blame(error, file, "on import")) from error
    return module


def _blame(error: BaseException, file: Path, where: str) -> str:
    """One sentence with the last line of the user's file that was running."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    if isinstance(error, SyntaxError) and error.filename == str(file):
        lines.append(error.lineno)
    place = f"{file}:{lines[-1]}" if lines else str(file)
    words = next(iter(str(error).splitlines()), "")
    return f"{place}: {where}: {type(error).__name__}{': ' if words else ''}{words}"
