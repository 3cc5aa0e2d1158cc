"""Sample answers from a model and keep them, with ids, for later stages."""

from __future__ import annotations

from collections.abc import Sequence

from alignzoo.contract.evaluation import mean
from alignzoo.contract.types import GroupSample, Response
from alignzoo.data.rows import n_tokens
from alignzoo.engine.parallel.exchange import everyone
from alignzoo.recipe.blocks import GenerateSpec
from alignzoo.stages.context import StageContext
from alignzoo.stages.label import write_samples
from alignzoo.stages.reading import read_prompts, rules_of
from alignzoo.stages.sampling import load_speaker, sample_answers


def run_generate(spec: GenerateSpec, context: StageContext) -> None:
    """Answer the prompt of every sample `spec.samples` times; write groups to `data.jsonl`."""
    speaker = load_speaker(context.model(spec.policy), context, rules_of(spec.data))
    crew = everyone()
    prompts = crew.from_main(lambda: read_prompts(spec.data, speaker.reader, context).samples)
    answers = sample_answers(prompts, spec, speaker, context)
    if not crew.is_main:
        return
    groups = [
        GroupSample(prompt.prompt, responses, meta=prompt.meta)
        for prompt, responses in zip(prompts, answers, strict=True)
    ]
    write_samples(groups, context)
    context.summary(answer_figures(answers))


def answer_figures(answers: Sequence[Sequence[Response]]) -> dict[str, float]:
    """How many answers there are, how long, and the share cut at the length limit."""
    every = [response for responses in answers for response in responses]
    return {
        "answers": len(every),
        "length": mean([n_tokens(response) for response in every]),
        "truncated": mean([not response.ended for response in every]),
    }
