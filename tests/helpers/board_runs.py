"""Run folders as an evaluation leaves them, without a model or a judge: for tests of boards."""

import json
import random

from alignzoo.contract.evaluation import interval

CATEGORIES = ("writing", "coding", "reasoning")
HOSTILE = '</script><script>document.title = "owned"</script><img src="https://example.org/x.png">'


def answer(model, index):
    """What a model says; one answer tries to break out of the page."""
    words = f"{model} on prompt {index}: " + "so it goes. " * (1 + len(model) % 5)
    return f"{words}{HOSTILE}" if index == 0 else words


def cell(values, better=1, doc="what it is", **more):
    """A column's entry of scores.json."""
    known = [x for x in values if x is not None]
    mean, low, high = interval(known) if known else (None, None, None)
    return {"mean": mean, "low": low, "high": high, "better": better, "doc": doc} | more


class JudgedRun:
    """A run whose models were compared with a baseline by a judge."""

    benchmark = "duel"
    judge = "wise-72b"
    baseline = "base"
    lead = "win_rate"

    def __init__(self, folder, models, n_prompts=12, section="s" * 64, in_table=True):
        self.folder, self.models, self.n_prompts = folder, models, n_prompts
        self.section, self.in_table = section, in_table

    def write(self):
        """Write the folder and return it."""
        rows = [self.write_model(name, strength) for name, strength in self.models.items()]
        self.folder.mkdir(exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (self.folder / "scores.jsonl").write_text(lines)
        (self.folder / "recipe.yaml").write_text("name: synthetic\nmodel: facts\nstages: []\n")
        record = {"versions": {"alignzoo": "0.1.0"}, "plugins": ["alignzoo_duel@1#abc"]}
        (self.folder / "run.json").write_text(json.dumps(record))
        return self.folder

    def values(self, name, strength):
        """A verdict per prompt; the last reply of every model but the baseline is unreadable."""
        noise = random.Random(name)
        lost = name != self.baseline
        drawn = [min(1.0, max(0.0, noise.gauss(strength, 0.2))) for _ in range(self.n_prompts)]
        return [*drawn[:-1], None] if lost else [0.5] * self.n_prompts

    def write_model(self, name, strength):
        """One model's evaluation folder; its row of scores.jsonl."""
        values = self.values(name, strength)
        place = self.folder / "evaluations" / "01-duel" / name.replace("/", "--")
        place.mkdir(parents=True)
        row = self.row(name, values)
        scores = {
            "row": row,
            "section": {"benchmark": self.benchmark, "settings": {"template": "f" * 64}},
            "values": {self.lead: values, "length": [len(name)] * self.n_prompts},
        }
        (place / "scores.json").write_text(json.dumps(scores))
        self.write_lines(place / "answers.jsonl", map(self.exchange, self.indices(name)))
        self.write_lines(place / "judgments.jsonl", self.judgments(name, values))
        return row

    def indices(self, name):
        """(model, prompt) for every prompt."""
        return [(name, index) for index in range(self.n_prompts)]

    def write_lines(self, file, rows):
        """JSON Lines."""
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def exchange(self, place):
        """A row of answers.jsonl."""
        name, index = place
        return {
            "prompt": [{"role": "user", "content": f"Question {index} <b>& more</b>?"}],
            "responses": [{"text": answer(name, index)}],
            "meta": {"id": f"q{index}", "category": CATEGORIES[index % len(CATEGORIES)]},
            "baseline": [answer(str(self.baseline), index)],
        }

    def judgments(self, name, values):
        """Rows of judgments.jsonl, one game a prompt."""
        for index, value in enumerate(values):
            if name == self.baseline:
                return
            known = {"value": value, "label": "A>B", "reply": f"I read both.\nVerdict {HOSTILE}"}
            lost = {"value": None, "label": None, "reply": "I cannot decide."}
            shown = known if value is not None else lost
            yield {"id": f"{index}/1", "index": index, "candidate": index % 2,
                   "judge": self.judge, "weight": 1.0} | shown  # fmt: skip

    def row(self, name, values):
        """A row of scores.jsonl."""
        n_lost = values.count(None)
        return {
            "benchmark": self.benchmark,
            "options": {"games": 1},
            "model": name,
            "baseline": self.baseline,
            "is_baseline": name == self.baseline and self.in_table,
            "prompts": self.n_prompts,
            "samples": 1,
            "section": self.section,
            "result": f"{self.section[:4]}-{name}",
            "identity": f"identity of {name}",
            "judge": self.judge,
            "cost": 0.25,
            "counts": {"judged": self.n_prompts, "parsed": self.n_prompts - n_lost,
                       "failed": n_lost},
            "columns": {
                self.lead: cell(values, doc="share of games won", error=0.031),
                "length": cell([float(len(answer(name, 1)))] * self.n_prompts, 0, "characters"),
            },
        }  # fmt: skip


class GradedRun(JudgedRun):
    """A run whose answers in two turns were graded one by one."""

    benchmark = "grades"
    baseline = None
    lead = "average"

    def values(self, name, strength):
        """A mean grade per prompt."""
        return [None if v is None else 1 + 9 * v for v in super().values(name, strength)]

    def exchange(self, place):
        """A row of answers.jsonl with an earlier turn."""
        row = super().exchange(place)
        row |= {"turns": [[f"first reply of {place[0]}"]], "later": ["And then?"]}
        return {key: value for key, value in row.items() if key != "baseline"}
