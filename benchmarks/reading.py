"""CPU seconds that the start of a stage takes for reading rows and turning them into tokens.

    python benchmarks/reading.py MODEL PAIRS.jsonl [ROWS]

The rows of the file are repeated until there are ROWS (60,000). MODEL is a folder with a tokenizer.
Put another version of the sources first on PYTHONPATH to compare two of them; the digest of all ids
says whether both read the same.
"""

import hashlib
import json
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from transformers import AutoTokenizer

from alignzoo.contract.types import PairBatch
from alignzoo.data.samples import DataSource, load_samples, read_rows
from alignzoo.data.tokens import Limits, encode_all


def main(model: str, pairs: str, rows: int) -> None:
    """Print seconds and digest."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    every = [row for _, row in read_rows(Path(pairs))]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        lines = (json.dumps(row) + "\n" for row in islice(cycle(every), rows))
        file.write_text("".join(lines), encoding="utf-8")
        begin = time.process_time()
        loaded = load_samples(DataSource(str(file)))
        read = time.process_time()
        made = encode_all(loaded.samples, PairBatch, tokenizer, Limits(8192), loaded.places)
        end = time.process_time()
    digest = hashlib.sha256()
    for item in made.items:
        digest.update(repr([(row.prompt, row.response) for row in item.rows]).encode())
    print(f"rows read in {read - begin:.2f} s, made tokens in {end - read:.2f} s of CPU time")
    print(f"{len(made.items)} items, ids {digest.hexdigest()[:16]}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 60_000)
