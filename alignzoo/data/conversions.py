"""What each kind of batch needs, and which samples can give it."""

from __future__ import annotations

from alignzoo.contract.errors import DataError
from alignzoo.contract.groups import GroupBatch
from alignzoo.contract.types import (
    Batch,
    GroupSample,
    LabelledBatch,
    LabelledSample,
    PairBatch,
    PairSample,
    PromptSample,
    RolloutBatch,
    Sample,
    TextBatch,
    TextSample,
)


def convert(sample: Sample, kind: type[Batch], place: str = "the sample") -> list[Sample]:
    """The samples that a kind of batch can be made of; none for an undesirable answer to imitate.

    A scored group gives its best answer as text, an unscored one all of them. Raises DataError
    when the sample lacks something.
    """
    for base, (converter, needs) in CONVERSIONS.items():
        if issubclass(kind, base):
            found = converter(sample)
            if found is None:
                raise DataError(f"this method needs {needs}; {place} has {CONTENTS[type(sample)]}")
            return found
    raise DataError(f"no data is known that makes a {kind.__name__}")


def _prompts(sample: Sample) -> list[Sample] | None:
    return [PromptSample(sample.prompt, sample.meta)]


def _texts(sample: Sample) -> list[Sample] | None:
    match sample:
        case TextSample():
            responses = [sample.response]
        case PairSample():
            responses = [sample.chosen]
        case LabelledSample():
            responses = [sample.response] if sample.desirable else []
        case GroupSample(scores=None):
            responses = list(sample.responses)
        case GroupSample(responses=all_responses, scores=scores):
            best = max(range(len(all_responses)), key=(scores or ()).__getitem__)
            responses = [all_responses[best]]
        case _:
            return None
    return [TextSample(sample.prompt, response, sample.meta) for response in responses]


def _pairs(sample: Sample) -> list[Sample] | None:
    return [sample] if isinstance(sample, PairSample) else None


def _labelled(sample: Sample) -> list[Sample] | None:
    match sample:
        case LabelledSample():
            return [sample]
        case PairSample(prompt, chosen, rejected, meta):
            return [
                LabelledSample(prompt, chosen, True, meta),
                LabelledSample(prompt, rejected, False, meta),
            ]
    return None


CONVERSIONS = {  # a subclass stands before its base
    RolloutBatch: (_prompts, "prompts"),
    GroupBatch: (_prompts, "prompts"),
    TextBatch: (_texts, "answers to learn from (prompt, response)"),
    PairBatch: (_pairs, "pairs (prompt, chosen, rejected)"),
    LabelledBatch: (_labelled, "labelled answers (prompt, response, label) or pairs"),
}
CONTENTS = {
    PromptSample: "only a prompt",
    TextSample: "one answer and no preference",
    LabelledSample: "one labelled answer",
    PairSample: "a pair",
    GroupSample: "a group of answers; a label stage makes pairs of it",
}
