"""The promises of a stage, tried on tiny models and a few samples of the kinds it declares."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from alignzoo.contract.algorithm import Role
from alignzoo.contract.stage import ModelRef, Stage, StageInputs
from alignzoo.contract.types import (
    GroupSample,
    LabelledSample,
    PairSample,
    PromptSample,
    Response,
    Sample,
    TextSample,
)
from alignzoo.data.rows import sample_from_row
from alignzoo.testing.checks import (
    Check,
    Trial,
    documented,
    explained,
    raise_broken,
    require,
    survive_yaml,
    try_all,
)
from alignzoo.testing.toys import VOCABULARY, tiny_model

SAMPLES = 6
MAKERS: Mapping[type, Callable[[str, Response, Response], Sample]] = {
    PromptSample: lambda prompt, good, bad: PromptSample(prompt),
    TextSample: lambda prompt, good, bad: TextSample(prompt, good),
    PairSample: PairSample,
    LabelledSample: lambda prompt, good, bad: LabelledSample(prompt, good, True),
    GroupSample: lambda prompt, good, bad: GroupSample(prompt, (good, bad), (1.0, 0.0)),
}


def check_stage(stage: Stage) -> None:
    """Raise PluginError with every promise of the contract that a stage breaks."""
    raise_broken(stage.name, run_stage_checks(stage))


def run_stage_checks(stage: Stage) -> list[Check]:
    """Try a stage in temporary folders."""
    return try_all(_promises(stage), stage, "run")


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """One token per word, w2 to w12, for `tiny_model`; it has no chat template."""
    words = ["<pad>", "</s>", *(f"w{n}" for n in range(2, VOCABULARY))]
    backend = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="w2"))
    backend.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="w2"
    )


def toy_samples(kind: type) -> list[Sample]:
    """Samples of one kind whose words `tiny_tokenizer` knows."""
    return [
        MAKERS[kind](f"w2 w{3 + n}", Response(f"w{4 + n} w2"), Response("w3"))
        for n in range(SAMPLES)
    ]


def _promises(stage: Stage) -> Iterator[tuple[str, Trial]]:
    yield "docstring", lambda: documented(stage)
    yield "options are frozen and survive YAML", lambda: survive_yaml(stage)
    yield "options are explained", lambda: explained(stage)
    yield "it says which models and data it reads", lambda: _declared(stage)
    yield "it leaves a model or samples", lambda: _result(stage)
    yield "it logs finite numbers", lambda: _logged(stage)
    yield "equal inputs give equal files", lambda: _repeated(stage)


def _declared(stage: Stage) -> str:
    models, kinds = stage.reads_models, stage.reads_data
    require(models is not None, "it has no `reads_models` ({}: none)")
    require(kinds is not None, "it has no `reads_data` ((): none)")
    return ", ".join([*(models or {}), *(kind.__name__ for kind in kinds or ())]) or "nothing"


def _done(stage: Stage, folder: Path) -> list[Mapping[str, float]]:
    """Run the stage in `folder/out` on toy inputs; what it logged."""
    logged: list[Mapping[str, float]] = []
    out = folder / "out"
    out.mkdir()
    models = {
        name: ModelRef(str(_model(folder / name, role, seed)))
        for seed, (name, role) in enumerate((stage.reads_models or {}).items())
    }
    kinds: Sequence[type] = stage.reads_data or ()
    stage.run(StageInputs(out, models, toy_samples(kinds[0]) if kinds else (), 0, logged.append))
    return logged


def _model(folder: Path, role: Role, seed: int) -> Path:
    tiny_model(seed, role.head).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def _result(stage: Stage) -> str:
    with tempfile.TemporaryDirectory() as name:
        _done(stage, Path(name))
        out = Path(name) / "out"
        found = [part for part in ("model", "data.jsonl") if (out / part).exists()]
        require(bool(found), "it left neither model/ nor data.jsonl in `inputs.folder`")
        if "model" in found:
            files = {path.suffix for path in (out / "model").iterdir()}
            require({".json", ".safetensors"} <= files, "model/ is no transformers folder")
        if "data.jsonl" in found:
            rows = (out / "data.jsonl").read_text(encoding="utf-8").splitlines()
            require(bool(rows), "data.jsonl is empty")
            for row in rows:
                sample_from_row(json.loads(row))
    return " and ".join(found)


def _logged(stage: Stage) -> str:
    with tempfile.TemporaryDirectory() as name:
        rows = _done(stage, Path(name))
    odd = [f"{k} = {x!r}" for row in rows for k, x in row.items() if not _finite(x)]
    require(not odd, f"not a finite number: {', '.join(odd[:3])}")
    return f"{len(rows)} lines"


def _finite(x: object) -> bool:
    return isinstance(x, int | float) and math.isfinite(x)


def _repeated(stage: Stage) -> str:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        first, second = (_digests(stage, Path(folder)) for folder in (one, two))
    odd = sorted(name for name in first | second if first.get(name) != second.get(name))
    require(not odd, f"{', '.join(odd)} differ in a second run")
    return f"{len(first)} files"


def _digests(stage: Stage, folder: Path) -> dict[str, str]:
    _done(stage, folder)
    out = folder / "out"
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
