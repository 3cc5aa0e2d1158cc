"""What to say about a judge whose first replies hold no verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from alignzoo.contract.verdicts import AskedJudge, Decoding, JudgedBenchmark, JudgeError, Reply

QUOTED = 200  # characters of a reply in an error
CUT = "finish_reason: length"


@dataclass(frozen=True)
class Remedies:
    """How keys of the block that asks judges are changed, for errors; as `alignzoo eval` has it."""

    bar: str = "--set min_parsed=0"
    room: str = "`--set with.max_tokens={room}`"
    judge: str = "judge.with"  # the key of the judge's options


EVALUATING = Remedies()


def evaluating(keys: str, judge: str = EVALUATING.judge) -> Remedies:
    """Of an `evaluate` block whose keys begin so, such as "evaluate.0."."""
    room = f"`--set {keys}with.max_tokens={{room}}`"
    return Remedies(f"--set {keys}min_parsed=0", room, f"{keys}{judge}")


@contextmanager
def spoken(remedies: Remedies) -> Iterator[None]:
    """Name a judge's options as the block has them; judges name them as `alignzoo eval` does."""
    try:
        yield
    except JudgeError as error:
        text = str(error).replace(f"{EVALUATING.judge}.", f"{remedies.judge}.")
        if text == str(error):
            raise
        raise JudgeError(text) from error


def held(reply: Reply) -> str:
    """What a reply without a verdict holds, in a few words that others may share."""
    if reply.error is not None:
        return reply.error
    if reply.finish == "length":
        return CUT
    return "words without a verdict" if reply.text.strip() else "no text"


def quoted(benchmark: JudgedBenchmark, reply: Reply, remedies: Remedies = EVALUATING) -> str:
    """One reply without a verdict, for an error; with the remedy if it was cut."""
    if reply.error is not None:
        return reply.error
    cut = f" ({CUT}; {_more_room(benchmark, remedies)})" if reply.finish == "length" else ""
    return repr(reply.text[:QUOTED]) + cut


def mute(
    benchmark: JudgedBenchmark,
    judge: AskedJudge,
    replies: Sequence[Reply],
    remedies: Remedies = EVALUATING,
) -> JudgeError:
    """The error about a judge that has said nothing that can be read, with what it said."""
    kinds = Counter(map(held, replies))
    what = "; ".join(f"{n} x {kind}" for kind, n in kinds.most_common(3))
    shown = min(replies, key=lambda reply: -kinds[held(reply)])
    return JudgeError(
        f"judge '{judge.name}': none of the first {len(replies)} replies holds a verdict ({what}); "
        f"for example {quoted(benchmark, shown, remedies)}; every reply is kept, and "
        f"--rejudge-failed asks again; with `min_parsed: 0` ({remedies.bar}) nothing stops"
    )


def _more_room(benchmark: JudgedBenchmark, remedies: Remedies) -> str:
    if not hasattr(benchmark, "max_tokens"):
        return "the judge needs more tokens than the benchmark gives it, or has to think less"
    room = 4 * (benchmark.max_tokens or Decoding().max_tokens)
    return f"give the judge more room: {remedies.room.format(room=room)}"
