"""Make the word list of the stories judge: words that a model uses in at least two stories.

    python benchmarks/make_story_words.py MODEL_FOLDER plugins/alignzoo_stories/words.txt

Half of the stories are sampled at temperature .6, half at .8: cautious enough that most non-words
of the model stay out. Takes about a minute on one core.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import torch
from alignzoo_stories.judge import NEGATIONS, NEGATIVE, POSITIVE, is_known, split_words
from alignzoo_stories.prompts import StoryPrompts
from transformers import AutoModelForCausalLM, AutoTokenizer

TEMPERATURES = (0.6, 0.8)
STORIES = 1536
NEW_TOKENS = 280
BATCH = 256
LEAST = 2  # stories a word must occur in
STOPS = ("<s>", "</s>")  # a story may have several paragraphs


@torch.inference_mode()
def sample_stories(folder: Path, prompts: list[str], temperature: float) -> list[str]:
    """Prompt and continuation as text; a word that the length limit may have cut is left out."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder)
    stops = tokenizer.convert_tokens_to_ids(list(STOPS))
    stories = []
    for start in range(0, len(prompts), BATCH):
        inputs = tokenizer(prompts[start : start + BATCH], return_tensors="pt", padding=True)
        out = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=True,
            temperature=temperature,
            top_k=0,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=stops,
        )
        for row in out[:, inputs["input_ids"].shape[1] :].tolist():
            end = next((i for i, token in enumerate(row) if token in stops), None)
            text = tokenizer.decode(row[:end])
            stories.append(text if end is not None else text.rpartition(" ")[0])
    return [f"{prompt} {story}" for prompt, story in zip(prompts, stories, strict=True)]


def word_list(stories: list[str]) -> list[str]:
    """Sorted words of at least `LEAST` stories and the words that the judge names.

    Single letters but a and i are left out, and x's where x is in the list: the judge knows it.
    """
    counts = Counter(word for story in stories for word in set(split_words(story)))
    common = {word for word, n in counts.items() if n >= LEAST and (len(word) > 1 or word in "ai")}
    words = common | POSITIVE | NEGATIVE | NEGATIONS
    return sorted(word for word in words if not is_known(word, words - {word}))


def main() -> None:
    """Sample, count, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a transformers model")
    parser.add_argument("words", type=Path, help="file to write, one word per line")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    prompts = [str(sample.prompt) for sample in StoryPrompts(size=STORIES).samples(args.seed)]
    share = STORIES // len(TEMPERATURES)
    stories = [
        story
        for i, temperature in enumerate(TEMPERATURES)
        for story in sample_stories(args.model, prompts[i * share : (i + 1) * share], temperature)
    ]
    words = word_list(stories)
    args.words.write_text("\n".join(words) + "\n", encoding="utf-8")
    print(f"{len(words)} words of {len(stories)} stories -> {args.words}")


if __name__ == "__main__":
    main()
