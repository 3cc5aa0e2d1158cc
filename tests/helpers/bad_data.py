"""Bad data, models, plug-ins and settings: what is wrong -> what a user must read about it."""

import gzip
import json
import random

PAIR = {"prompt": "what is the fox like ?", "chosen": "it is red .", "rejected": "it is blue ."}
TEXT = {"prompt": "what is the fox like ?", "response": "it is red ."}
LONG = "what is the fox like ? " * 100


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def truncated():
    noise = random.Random(0)
    whole = gzip.compress(lines(*({**TEXT, "n": noise.random()} for _ in range(300))))
    return whole[: len(whole) // 2]


FOREIGN_IDS = {"text": "it is red .", "ids": [9999, 3], "ended": True}

DATA = {  # what -> (name of the file, its bytes, the stage that reads it, the cause)
    "a truncated gzip": ("d.jsonl.gz", truncated(), "sft", r"d\.jsonl\.gz:\d+: .*cut short"),
    "no gzip at all": ("d.jsonl.gz", b"hello", "sft", r"d\.jsonl\.gz:1: .*Not a gzipped file"),
    "a line that is no JSON": (
        "d.jsonl",
        lines(TEXT) + b'{"prompt": \n' + lines(TEXT),
        "sft",
        r"1 of 3 rows cannot be used.*\n.*d\.jsonl:2: not JSON",
    ),
    "wrong types": (
        "d.jsonl",
        lines(TEXT, {"prompt": 3, "response": "x"}, {"prompt": "x", "response": ["a"]}),
        "sft",
        r"d\.jsonl:2: prompt is a number.*\n.*d\.jsonl:3: response\[0\] is a text",
    ),
    "missing keys": ("d.jsonl", lines({"text": "x"}), "sft", r"d\.jsonl:1: no prompt; the row has"),
    "rows that are no objects": (
        "d.jsonl",
        b"[1]\nnull\n",
        "sft",
        r"d\.jsonl:1: a list, not an object\n.*d\.jsonl:2: null, not an object",
    ),
    "an empty file": ("d.jsonl", b"", "sft", r"d\.jsonl: has no rows"),
    "only blank lines": ("d.jsonl", b"\n\n", "sft", r"d\.jsonl: has no rows"),
    "Latin-1": ("d.jsonl", '{"prompt": "é"}\n'.encode("latin1"), "sft", r":1: not UTF-8 \(byte 13"),
    "UTF-16": ("d.jsonl", '{"prompt": "a"}\n'.encode("utf16"), "sft", r":1: not UTF-8 \(byte 1 "),
    "zero bytes": ("d.jsonl", b"\0\0\n", "sft", r"d\.jsonl:1: not JSON"),
    "a nesting bomb": ("d.jsonl", b"[" * 100_000, "sft", r"d\.jsonl:1: not JSON"),
    "an object for a list": ("d.json", b'{"a": 1}', "sft", r"d\.json: not a list of rows"),
    "a broken parquet": ("d.parquet", b"PAR1 no", "sft", r"d\.parquet: row 1: .*damaged"),
    "an unknown suffix": ("d.csv", b"a,b\n", "sft", r"d\.csv: unknown kind of file; known are"),
    "a missing file": ("d.jsonl", None, "sft", r"d\.jsonl: no such file"),
    "a folder": ("d/x", b"", "sft", "a folder, neither a data file nor a saved dataset"),
    "prompts for pairs": ("d.jsonl", lines(TEXT), "dpo", r"needs pairs.*d\.jsonl:1 has one answer"),
    "prompts for answers": (
        "d.jsonl",
        lines({"prompt": "x"}),
        "sft",
        r"needs answers.*d\.jsonl:1 has only a prompt",
    ),
    "one row of another kind": ("d.jsonl", lines(PAIR, TEXT), "dpo", r"d\.jsonl:2 has one answer"),
    "pairs for groups": ("d.jsonl", lines(PAIR), "label", r"d\.jsonl:1: label needs several"),
    "prompts that are all too long": (
        "d.jsonl",
        lines({**PAIR, "prompt": LONG}),
        "dpo",
        r"every sample is too long; raise max_length \(64\)\n.*d\.jsonl:1: the prompt has 600",
    ),
    "prompts longer than the context": (
        "d.jsonl",
        lines({"prompt": LONG}),
        "generate",
        "600 tokens .* the model's context is 512",
    ),
    "ids of another tokenizer": (
        "d.jsonl",
        lines({**TEXT, "response": FOREIGN_IDS}),
        "sft",
        r"d\.jsonl:1: the ids of a response do not spell its text",
    ),
    "a lone surrogate": ("d.jsonl", b'{"prompt": "\\ud800"}\n', "sft", "half a character"),
    "an unknown label": ("d.jsonl", lines({**TEXT, "label": "maybe"}), "sft", "label is 'maybe'"),
    "a message without content": (
        "d.jsonl",
        lines({"messages": [{"role": "user"}]}),
        "sft",
        r"messages\[0\]\.content is missing",
    ),
}

STAGES = {
    "sft": "algorithm: sft, {train}, data: {{name: '{data}', max_length: 64}}",
    "dpo": "algorithm: dpo, {train}, data: {{name: '{data}', max_length: 64}}",
    "label": "stage: label, judge: facts.annotator, data: '{data}'",
    "generate": "stage: generate, sampling: {{max_new_tokens: 4}}, data: '{data}'",
}
TRAIN = "train: {steps: 1, batch_size: 1, micro_batch_size: 1, lr: 1e-3}"


def recipe(stage, data, model="facts"):
    """A recipe of one stage."""
    block = STAGES[stage].format(train=TRAIN, data=data)
    return f"name: x\nmodel: {model}\nstages:\n  - {{name: it, {block}}}\n"


def _without(name):
    return lambda folder: (folder / name).unlink()


def _pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut_short(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:20_000])


def _configured(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def _remote_code(folder):
    _configured(model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoTokenizer": "evil.T"})(
        folder
    )
    (folder / "evil.py").write_text("import pathlib; pathlib.Path('evil.txt').write_text('run')\n")


MODELS = {  # what -> (the damage to a good folder, the cause)
    "no tokenizer": (_without("tokenizer.json"), "it has no tokenizer"),
    "no config": (_without("config.json"), r"it has no config\.json"),
    "no weights": (_without("model.safetensors"), "it has no weights as safetensors$"),
    "pickled weights": (_pickled, "pickled weights can run code"),
    "weights cut short": (_cut_short, "incomplete metadata"),
    "weights of another size": (_configured(hidden_size=64), "other shapes than config.json"),
    "fewer layers than configured": (_configured(num_hidden_layers=3), "weights lack 9 tensors"),
    "a config that is no JSON": (
        lambda folder: (folder / "config.json").write_text("{no"),
        "not a valid JSON",
    ),
    "a broken tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        "added_tokens",
    ),
    "code to run": (_remote_code, "custom code|does not recognize|model type"),
}

PLUGIN = """
from dataclasses import dataclass
from alignzoo import Algorithm, Dataset, Judge, Score, hookimpl, option

class Few(Judge):
    "Too few."
    name = "t.few"
    def score(self, answers):
        return [Score(1.0)]

class Cracked(Judge):
    "Raises."
    name = "t.cracked"
    def score(self, answers):
        return [Score(1 / 0)]

class NotANumber(Judge):
    "Not finite."
    name = "t.nan"
    def score(self, answers):
        return [Score(float("nan")) for _ in answers]

class Bare(Judge):
    "Numbers instead of scores."
    name = "t.bare"
    def score(self, answers):
        return [1.0 for _ in answers]

class Nothing(Dataset):
    "Yields nothing."
    name = "t.nothing"
    def samples(self, seed):
        return iter(())

class Odd(Dataset):
    "Yields text."
    name = "t.odd"
    def samples(self, seed):
        return iter(["hello"])

@hookimpl
def register_judges():
    return [Few, Cracked, NotANumber, Bare]

@hookimpl
def register_datasets():
    return [Nothing, Odd]
"""
REGISTERING = "from alignzoo import Algorithm, hookimpl\n\n@hookimpl\ndef {hook}():\n    {body}\n"
TWICE = "return [type('Mine', (Algorithm,), {'name': 'dpo', '__doc__': 'Mine.'})]"

PLUGINS = {  # what -> (source of the plug-in, command, exit status, what is printed)
    "an import that fails": (
        "import a_library_that_nobody_has\n",
        ("show", "t.few"),
        2,
        "nothing is called 't.few'.*{module} is broken, see `alignzoo doctor`",
    ),
    "an algorithm that exists already": (
        REGISTERING.format(hook="register_algorithms", body=TWICE),
        ("plan", "dpo"),
        2,
        r"algorithm 'dpo' is registered by .*alignzoo_dpo.* and .*{module}.*`alignzoo_dpo:dpo` or",
    ),
    "an algorithm that exists already, where nobody needs it": (
        REGISTERING.format(hook="register_algorithms", body=TWICE),
        ("plan", "ppo"),
        0,
        "sft",
    ),
    "a misspelt hook": (
        REGISTERING.format(hook="register_algoritms", body="return []"),
        ("doctor",),
        1,
        "{module}.*unknown hook 'register_algoritms'; did you mean 'register_algorithms'",
    ),
    "a misspelt hook, where nobody needs it": (
        REGISTERING.format(hook="register_algoritms", body="return []"),
        ("list",),
        0,
        "broken: {module}",
    ),
    "something that is no algorithm": (
        REGISTERING.format(hook="register_algorithms", body="return [3]"),
        ("doctor",),
        1,
        "{module}.*register_algorithms returned 3, which is not a",
    ),
    "a hook that raises": (
        REGISTERING.format(hook="register_algorithms", body="raise OSError('no disk')"),
        ("doctor",),
        1,
        "{module}.*no disk",
    ),
    "a hook that returns nothing": (
        REGISTERING.format(hook="register_algorithms", body="return None"),
        ("list", "--json"),
        0,
        "",
    ),
}

GROUPS = lines({"prompt": "what is it ?", "responses": ["it is red .", "it is blue ."]})
BROKEN_PARTS = {  # what -> (stage, cause)
    "a judge with too few scores": (
        "stage: label, judge: t.few, data: '{groups}'",
        "judge 't.few' must return one finite score per answer; it returned 1 for 2",
    ),
    "a judge that raises": (
        "stage: label, judge: t.cracked, data: '{groups}'",
        r"judge 't.cracked': ZeroDivisionError: division by zero",
    ),
    "a judge without numbers": (
        "stage: label, judge: t.nan, data: '{groups}'",
        "judge 't.nan' must return one finite score per answer",
    ),
    "a judge with bare numbers": (
        "stage: label, judge: t.bare, data: '{groups}'",
        "judge 't.bare' must return",
    ),
    "a dataset that yields nothing": (
        f"algorithm: sft, {TRAIN}, data: t.nothing",
        "t.nothing: no samples",
    ),
    "a dataset that yields text": (
        f"algorithm: sft, {TRAIN}, data: t.odd",
        "t.odd: sample 1: the dataset yielded 'hello', no sample",
    ),
}
