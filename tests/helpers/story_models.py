"""The real 260K-parameter model with another chat template, and plain log-probabilities of it."""

import json
import shutil

import torch
from shared_data import shared
from transformers import AutoModelForCausalLM, AutoTokenizer

TOOLS = (
    "{{ bos_token }}{% if tools %}TOOLS {% for t in tools %}{{ t.function.name }} {% endfor %}"
    "{% endif %}{% for m in messages %}<{{ m.role }}>{% if m.content %}{{ m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %} CALL {{ c.function.name }} "
    "{{ c.function.arguments | tojson }}{% endfor %}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CUTS_THOUGHTS = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' and '</think>' in m.content %}"
    "{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>{% endif %}"
)
TURNS = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def story_model(folder, template=None):
    """A copy of the model with another chat template; the folder's name."""
    shutil.copytree(shared("models", "stories260k"), folder)
    for path in folder.rglob("*"):
        path.chmod(0o644)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return str(folder)


def story_tokenizer(template=None):
    """Its tokenizer, with another chat template."""
    made = AutoTokenizer.from_pretrained(shared("models", "stories260k"))
    made.chat_template = template or made.chat_template
    return made


def mean_log_prob(folder, prompt, response):
    """Mean log p of each response token by plain transformers, fp32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0].float()
    log_probs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return log_probs.gather(1, torch.tensor(response)[:, None]).mean().item()


def one_step(algorithm, data, **more):
    """A stage that takes one step with next to no change of the weights."""
    block = data if isinstance(data, dict) else {"name": data}
    train = {"steps": 1, "batch_size": 1, "micro_batch_size": 1, "lr": 1e-9}
    data = {"max_length": 256, **block}
    return {"name": "it", "algorithm": algorithm, "data": data, "train": train, **more}


def write(file, *rows):
    """A JSONL file; its name."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)
