"""What to say about a judge whose first replies hold no verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from alignzoo.contract.verdicts import AskedJudge, Decoding, JudgedBenchmark, JudgeError, Reply

QUOTED = 200  # characters of a reply in an error
CUT = "finish_reason: length"


def held(reply: Reply) -> str:
    """What a reply without a verdict holds, in a few words that others may share."""
    if reply.error is not None:
        return reply.error
    if reply.finish == "length":
        return CUT
    return "words without a verdict" if reply.text.strip() else "no text"


def quoted(benchmark: JudgedBenchmark, reply: Reply) -> str:
    """One reply without a verdict, for an error; with the remedy if it was cut."""
    if reply.error is not None:
        return reply.error
    cut = f" ({CUT}; {_more_room(benchmark)})" if reply.finish == "length" else ""
    return repr(reply.text[:QUOTED]) + cut


def mute(benchmark: JudgedBenchmark, judge: AskedJudge, replies: Sequence[Reply]) -> JudgeError:
    """The error about a judge that has said nothing that can be read, with what it said."""
    kinds = Counter(map(held, replies))
    what = "; ".join(f"{n} x {kind}" for kind, n in kinds.most_common(3))
    shown = min(replies, key=lambda reply: -kinds[held(reply)])
    return JudgeError(
        f"judge '{judge.name}': none of the first {len(replies)} replies holds a verdict ({what}); "
        f"for example {quoted(benchmark, shown)}; every reply is kept, and --rejudge-failed asks "
        "again; with `min_parsed: 0` (--set min_parsed=0) nothing stops"
    )


def _more_room(benchmark: JudgedBenchmark) -> str:
    if not hasattr(benchmark, "max_tokens"):
        return "the judge needs more tokens than the benchmark gives it, or has to think less"
    room = 4 * (benchmark.max_tokens or Decoding().max_tokens)
    return f"give the judge more room: `--set with.max_tokens={room}`"
