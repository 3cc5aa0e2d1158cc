"""Blocks of code in pages, and the commands in them.

A comment before a block says what a test has to know of it:

    <!-- needs: a judge -->                     no test can run it: what it wants, one of NEEDS
    <!-- tested by: tests/launch/test_x.py -->  another test runs such a command
    <!-- tried with: RUN -> runs/demo; A -> B --> words of the page -> words of the test
    <!-- fails: 2 -->                           its exit status
    <!-- file: first.yaml -->                   the reader saves it under this name
    <!-- replace in FILE -->                    the reader replaces it by the block that follows
"""

import re
import shlex
from dataclasses import dataclass, field

from source_tree import ROOT

MARKS = ("needs", "tested by", "tried with", "fails", "file", "replace in")
NEEDS = (
    "a package index",
    "a judge",
    "a hub",
    "a GPU",
    "several machines",
    "docker",
    "minutes",
    "somebody who stops it with Ctrl-C",
)
PROGRAMS = ("alignzoo", "make", "pip", "python", "torchrun", "hf", "git", "docker", "uv", "pytest")
SHELL = ("sh", "bash", "shell", "console", "")
MARK = re.compile(rf"<!-- ({'|'.join(MARKS)}):? (.*?) -->")
FENCE = re.compile(r"^(```+)(\S*)")


@dataclass(frozen=True)
class Block:
    """A fenced or indented block."""

    page: str
    line: int
    language: str | None  # None: indented
    text: str
    marks: dict = field(default_factory=dict)

    @property
    def place(self):
        return f"{self.page}:{self.line}"

    @property
    def commands(self):
        """What a reader would type, one line each; an output or a drawing has none."""
        if self.language not in (*SHELL, None):
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        if any(line.startswith("$ ") for line in lines):
            return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        if self.language in ("sh", "bash", "shell"):
            return [line for line in lines if line.strip() and not line.startswith("#")]
        return lines if lines and program(lines[0]) in PROGRAMS else []

    @property
    def output(self):
        """What stands below the last prompt."""
        return self.text.rpartition("\n$ ")[2].partition("\n")[2] if "$ " in self.text else ""


def words(command):
    """The words of a command, without a comment at its end."""
    return shlex.split(command, comments=True)


def program(line):
    """What a line would start; an empty string where it is no command."""
    for word in line.split():
        if not re.fullmatch(r"[A-Z_]+=\S*", word):
            return word
    return ""


def pages():
    """Pages whose commands are promised to work."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path):
    """Every block of a page, with the marks of the comments before it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    page, marks, n = str(path.relative_to(ROOT)), {}, 0
    while n < len(lines):
        start, fence = n, FENCE.match(lines[n])
        n += 1
        if fence:
            while n < len(lines) and not lines[n].startswith(fence[1]):
                n += 1
            body, language, n = lines[start + 1 : n], fence[2], n + 1
        elif lines[start].startswith("    ") and (start == 0 or not lines[start - 1].strip()):
            while n < len(lines) and (lines[n].startswith("    ") or not lines[n].strip()):
                n += 1
            body, language = [line[4:] for line in lines[start:n]], None
        else:
            found = MARK.findall(lines[start])
            marks = marks | dict(found) if found else marks if not lines[start].strip() else {}
            continue
        yield Block(page, start + 1, language, "\n".join(body).strip("\n"), marks)
        marks = {}
