"""The benchmarks' files as a user would lay them out, with judge templates of our own words."""

import json
from pathlib import Path

from shared_data import shared

CHATML = """<|im_start|>system
You compare two texts.
<|im_end|>
<|im_start|>user
Task: {instruction}

m: {output_1}

M: {output_2}

Which is better, m or M?
<|im_end|>
"""
CONFIG = {
    "system_prompt": "Compare the two texts. End with one of five verdicts, such as [[A>B]].",
    "prompt_template": ["Question: {question_1}\n\nA: {answer_1}\n\nB: {answer_2}"],
}


def lay_out(root: Path) -> Path:
    """A folder for `$ALIGNZOO_DATA`; skips the test where the shared data is absent."""
    for name in ("alpaca_eval", "arena_hard", "mt_bench"):
        (root / name).mkdir(parents=True)
        for path in shared("eval", name).iterdir():
            (root / name / path.name).symlink_to(path)
    (root / "alpaca_eval" / "alpaca_eval_clf.txt").write_text(CHATML)
    (root / "arena_hard" / "judge_config.yaml").write_text(json.dumps(CONFIG))
    return root
