"""What a run shows while it goes: plain lines for files, bars for terminals."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import TextColumn

from alignzoo.cli.doing.generating import converse
from alignzoo.cli.terminal.console import Lines, Live, Pace, duration, figures
from alignzoo.contract.types import GroupSample, PromptSample, Response


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_step_shows_loss_reward_and_kl_under_their_own_names():
    assert figures({"lr": 1e-3, "kl": 0.25, "loss": 0.5, "reward": 1.5}) == (
        "loss 0.5, reward 1.5, kl 0.25"
    )
    assert figures({"rewards/chosen": 1.0, "rewards/margin": 2.0, "loss": 1.0}) == (
        "loss 1, rewards/margin 2"
    )
    assert figures({"kl_full/x": 3.0, "perplexity": 1.0}) == "kl_full/x 3"


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.4, "8 s"), (125, "2 min 05 s"), (12_000, "3 h 20 min")]
)
def test_durations_read_like_speech(seconds, text):
    assert duration(seconds) == text


def test_time_left_ignores_loading_and_the_steps_of_an_earlier_run():
    clock = Clock()
    pace = Pace(clock)
    pace.start()
    clock.now += 60  # loading
    pace.at(41)  # resumed after step 40
    assert pace.left(50) is None
    clock.now += 4
    pace.at(43)
    assert pace.left(50) == 14.0
    assert pace.left(0) is None


def test_plain_lines_come_now_and_then_and_at_the_end():
    lines, clock = [], Clock()
    shown = Lines(lines.append, Pace(clock))
    shown.stage_started("dpo", 2, 4)
    for step in range(1, 11):
        clock.now += 1
        shown.step("dpo", step, 10, {"loss": 1 / step}, {"tokens_per_second": 1234.5})
    shown.stage_finished("dpo")
    assert lines == [
        "[2/4] dpo",
        "dpo: 5/10, loss 0.2, 1,234 tokens/s, 5 s left",
        "dpo: 10/10, loss 0.1, 1,234 tokens/s",
        "dpo: done in 10 s",
    ]


def test_bars_show_every_stage_with_its_last_figures():
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, legacy_windows=False)
    bars = Bars(TextColumn("{task.description} {task.completed} {task.fields[text]}", markup=False),
                console=console)  # fmt: skip
    shown = Live(bars)
    with bars:
        shown.stage_reused("sft", 1, 2)
        shown.stage_started("dpo [x]", 2, 2)
        shown.step("dpo [x]", 3, 7, {"loss": 0.25}, {})
        shown.note("a [sentence] with brackets")
        shown.step("unknown", 1, 2, {}, {})
        shown.stage_finished("dpo [x]")
    text = out.getvalue()
    for part in ("[1/2] sft 1 reused", "[2/2] dpo [x] 7 loss 0.25", "a [sentence] with brackets"):
        assert part in text


class Echo:
    """A chat model that repeats the last turn and remembers what it was asked."""

    chats = True

    def __init__(self):
        self.prompts = []

    def sample_of(self, text, before=()):
        return PromptSample((*before, {"role": "user", "content": text}))

    def answer(self, prompts):
        self.prompts += [prompt.prompt for prompt in prompts]
        return [GroupSample(p.prompt, (Response(p.prompt[-1]["content"] + "!"),)) for p in prompts]


def test_a_conversation_remembers_its_turns_and_ends_with_an_empty_line():
    model, written, said = Echo(), [], iter(["hello", "and now", ""])
    converse(model, lambda prompt: next(said), written.append)
    assert written[1:] == ["hello!", "and now!"]
    roles = [message["role"] for message in model.prompts[-1]]
    assert roles == ["user", "assistant", "user"]


def test_a_conversation_ends_at_the_end_of_input():
    def read(prompt):
        raise EOFError

    written = []
    converse(Echo(), read, written.append)
    assert len(written) == 1
