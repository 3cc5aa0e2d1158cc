"""What commands take before and beside the work: CPU seconds of whole processes.

    python benchmarks/startup.py [--pairs 60000] [--against CHECKOUT] [--json]

On the embedded world: `--help`, `plan`, a run of one step, and the same run again, which finds its
work done. `tokenise_ms` is a chat pair of usual length, read from a file and made into tokens by a
byte-level tokenizer: the difference of two such processes, one with a tenth of the pairs. With
--against, the sources of another checkout read the same files in turns, and `tokenise_ratio` is our
time over theirs. About two minutes of one core.
"""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

from measured import Bar, Spent, beyond, in_turns, middle, parser, progress, show, spent
from trl_data import pairs

ALIGNZOO = [sys.executable, "-m", "alignzoo"]
BARS = {"reused_run": Bar(1.2, 1.0), "tokenise_ratio": Bar(0.5, 0.5)}
CHAT = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
READ = """
import sys
from transformers import AutoTokenizer
from alignzoo.contract.types import PairBatch
from alignzoo.data.samples import DataSource, load_samples
from alignzoo.data.tokens import Limits, encode_all
found = load_samples(DataSource(sys.argv[2]))
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
made = encode_all(found.samples, PairBatch, tokenizer, Limits(8192), found.places)
print('{"items": %d}' % len(made.items))
"""


def make_tokenizer(folder: Path) -> None:
    """Byte-level, learnt from the words of the pairs."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|user|>", "<|assistant|>"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=special, initial_alphabet=letters)
    backend.train_from_iterator((" ".join(pair.values()) for pair in pairs(200, 32_000)), trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>", chat_template=CHAT
    )
    made.save_pretrained(folder)


def write_chats(file: Path, count: int) -> Path:
    """Pairs as chats of one turn, no two alike."""
    with file.open("w", encoding="utf-8") as out:
        for number, pair in enumerate(pairs(count, 32_000)):
            row = {
                "prompt": [{"role": "user", "content": f"{number} {pair['prompt']}"}],
                "chosen": [{"role": "assistant", "content": pair["chosen"].strip()}],
                "rejected": [{"role": "assistant", "content": pair["rejected"].strip()}],
            }
            out.write(json.dumps(row) + "\n")
    return file


def tokenised(folder: Path, count: int, checkout: Path | None = None) -> Spent:
    """A process that reads so many pairs, by the sources of a checkout (this one)."""
    file = folder / f"{count}.jsonl"
    env = {} if checkout is None else {"PYTHONPATH": str(checkout)}
    found = spent([sys.executable, "-P", "-c", READ, folder / "tokenizer", file], folder, env)
    if found.said != {"items": count}:
        raise SystemExit(f"{found.said} of {count} pairs were read")
    return found


def commands(folder: Path, number: int) -> dict[str, Spent]:
    """Each once, on a new cache."""
    place = folder / f"round-{number}"
    place.mkdir()
    env = {"ALIGNZOO_CACHE": str(place / "cache")}
    stage = {"name": "sft", "algorithm": "sft", "data": {"name": "facts.sft", "with": {"size": 8}}}
    stage["train"] = {"steps": 1, "batch_size": 8}
    recipe = {"name": "it", "model": "facts", "seed": 0, "threads": 1, "stages": [stage]}
    (place / "it.yaml").write_text(json.dumps(recipe))
    run = ["run", "it.yaml", "--output", "it"]
    words = {"help": ["--help"], "plan": ["plan", "it.yaml"], "one_step": run, "reused_run": run}
    return {name: spent(ALIGNZOO + line, place, env) for name, line in words.items()}


def reading(folder: Path, count: int, rounds: int, others: list[Path]) -> list[Spent]:
    """What the pairs beyond a tenth of them took here, and by each of the other checkouts."""
    make_tokenizer(folder / "tokenizer")
    sizes, sources = (count // 10, count), (None, *others)
    for n in sizes:
        write_chats(folder / f"{n}.jsonl", n)
    works = {f"{n} {at}": partial(tokenised, folder, n, at) for n in sizes for at in sources}
    found = {key: middle(some) for key, some in in_turns(works, rounds).items()}
    return [beyond(found[f"{count} {at}"], found[f"{count // 10} {at}"]) for at in sources]


def main() -> None:
    """Measure and show."""
    own = parser(__doc__)
    own.add_argument("--pairs", type=int, default=60_000)
    own.add_argument("--against", type=Path)
    asked = own.parse_args()
    count = 400 if asked.small else asked.pairs
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        rounds = [commands(folder, number) for number in range(asked.rounds)]
        found = {name: middle([each[name] for each in rounds]) for name in rounds[0]}
        progress(str(found))
        others = [asked.against.resolve()] if asked.against else []
        read = reading(folder, count, asked.rounds, others)
    more = count - count // 10
    figures = {name: x.cpu for name, x in found.items()}
    figures["tokenise_ms"] = read[0].cpu / more * 1e3
    found |= zip((f"{more} pairs", f"{more} pairs, against"), read, strict=False)
    rows = [{"command": name, "CPU s": x.cpu, "MB": x.peak} for name, x in found.items()]
    if others:
        figures["tokenise_ratio"] = read[0].cpu / read[1].cpu
    show(asked, rows, figures, BARS)


if __name__ == "__main__":
    main()
