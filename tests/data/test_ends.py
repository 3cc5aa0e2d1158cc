"""Where an answer ends: the stops of real chat templates, against what their authors wrote."""

import pytest
from small_models import word_tokenizer

from alignzoo.data.ends import end_ids, turn_end

# Shortened from published templates: what follows an answer is as there.
TEMPLATES = {
    "chatml": ("{% for m in messages %}X{{ m.content }}<|end|>\n{% endfor %}", "<|end|>"),
    "after a space": ("{% for m in messages %}{{ m.content }} </s>{% endfor %}", "</s>"),
    "two ends": (
        "{% for m in messages %}{{ m.content }}<|end|>\n{% endfor %}</s>",
        "<|end|>",
    ),
    "a special token that opens the next turn": (
        "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}<|end|></s>{% endfor %}",
        "<|end|>",
    ),
    "ordinary text": ("{% for m in messages %}{{ m.content }}\n\n{% endfor %}", None),
    "a word first": ("{% for m in messages %}{{ m.content }} bye <|end|>{% endfor %}", None),
    "no answers": ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", None),
    "refuses": ("{{ raise_exception('no') }}", None),
    "none": (None, None),
}


@pytest.mark.parametrize(("template", "expected"), TEMPLATES.values(), ids=TEMPLATES)
def test_the_token_that_closes_a_turn_is_found_by_rendering(template, expected):
    words = word_tokenizer(template)
    found = turn_end(words)
    assert (found and words.convert_ids_to_tokens(found)) == expected


def test_an_answer_ends_at_the_tokenizers_the_generation_configs_and_the_templates_tokens():
    words = word_tokenizer()
    eos, turn = words.convert_tokens_to_ids(["</s>", "<|end|>"])
    assert end_ids(words) == (eos, turn)
    assert end_ids(words, (7, eos, None)) == (eos, 7, turn)
    assert end_ids(word_tokenizer(None, eos=None)) == ()
