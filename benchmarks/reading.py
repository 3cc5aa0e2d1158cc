"""CPU seconds that the start of a stage takes for reading rows and turning them into tokens.

    python benchmarks/reading.py MODEL PAIRS.jsonl [--rows 60000] [--against CHECKOUT]

The rows of the file are repeated, each with a number of its own in its texts, until there are
enough. MODEL is a folder with a tokenizer. With --against, the sources of another checkout read
every part of 1,000 rows in turn with these, so that whatever else the machine does slows both
alike; the digest of all ids says whether both read the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PART = 1000  # rows
TEXTS = ("prompt", "chosen", "rejected")


def serve(model: str) -> None:
    """Read the files named on stdin; print seconds and the digest so far."""
    from transformers import AutoTokenizer

    from alignzoo.contract.types import PairBatch
    from alignzoo.data.samples import DataSource, load_samples
    from alignzoo.data.tokens import Limits, encode_all

    tokenizer, digest, kept = AutoTokenizer.from_pretrained(model), hashlib.sha256(), []
    for line in sys.stdin:
        begin = time.process_time()
        loaded = load_samples(DataSource(line.strip()))
        read = time.process_time()
        made = encode_all(loaded.samples, PairBatch, tokenizer, Limits(8192), loaded.places)
        end = time.process_time()
        kept.append(made)  # a stage keeps them all, and the memory is looked through
        for item in made.items:
            digest.update(repr([(row.prompt, row.response) for row in item.rows]).encode())
        print(read - begin, end - read, digest.hexdigest()[:16], flush=True)


@dataclass
class Sources:
    """A checkout at work in a process of its own."""

    name: str
    process: subprocess.Popen[str]
    read: list[float] = field(default_factory=list)  # seconds of each part
    encoded: list[float] = field(default_factory=list)
    digest: str = ""

    def work(self, file: Path) -> None:
        """One part."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{file}\n")
        self.process.stdin.flush()
        read, encoded, self.digest = self.process.stdout.readline().split()
        self.read.append(float(read))
        self.encoded.append(float(encoded))


def start(folder: Path, model: str) -> Sources:
    """The sources of a checkout."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (folder, folder / "plugins")))}
    command = [sys.executable, __file__, "--serve", model]
    pipe = subprocess.PIPE
    started = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)
    return Sources(folder.name, started)


def numbered(file: Path, rows: int) -> Iterator[str]:
    """Lines with rows of the file, no two alike."""
    every = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(islice(cycle(every), rows)):
        told = {name: _told(row[name], number) for name in TEXTS if name in row}
        yield json.dumps(row | told) + "\n"


def _told(text: Any, number: int) -> Any:
    if isinstance(text, str):
        return f"{text} {number}"
    return [{**message, "content": f"{message['content']} {number}"} for message in text]


def main() -> None:
    """Print seconds, digests and how the two compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("pairs", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.model)
        return
    folders = [ROOT, *([asked.against.resolve()] if asked.against else [])]
    both, lines = [start(f, asked.model) for f in folders], numbered(asked.pairs, asked.rows)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        while part := list(islice(lines, PART)):
            file.write_text("".join(part), encoding="utf-8")
            for sources in both:
                sources.work(file)
            both.reverse()
    for sources in sorted(both, key=lambda s: s.name != ROOT.name):
        seconds = f"rows read in {sum(sources.read):.2f} s, tokens in {sum(sources.encoded):.2f} s"
        print(f"{sources.name}: {seconds} of CPU time, ids {sources.digest}")
        sources.process.communicate()
    if asked.against:
        compare(*sorted(both, key=lambda s: s.name != ROOT.name))


def compare(ours: Sources, theirs: Sources) -> None:
    """What these sources take beyond the others, as a share of making tokens."""
    more = sum(ours.read) + sum(ours.encoded) - sum(theirs.read) - sum(theirs.encoded)
    pairs = zip(ours.read, ours.encoded, theirs.read, theirs.encoded, strict=True)
    parts = [(a + b) / (c + d) for a, b, c, d in pairs]
    share, middle = more / sum(theirs.encoded), statistics.median(parts)
    same = "the same ids" if ours.digest == theirs.digest else "OTHER IDS"
    print(f"{share:+.1%} of the others' tokens; median of parts {middle - 1:+.1%}; {same}")


if __name__ == "__main__":
    main()
