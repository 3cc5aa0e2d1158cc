"""What the losses of the zoo take, each beside the same loss by lean autograd.

    python benchmarks/loss_speed.py [--only jsd entropy] [--json]

512 positions, V = 151,936, H = 256, float32, one thread, a process each (loss_case.py). The engine
computes the rows of the method's metrics too; naive autograd does not. `NAME_cpu` and `NAME_peak`
are engine over naive. `log_prob` is SFT, `pair_log_prob` DPO, whose loss of a pair is known only
when both answers are read. About seven minutes of one core, and 5 GB.
"""

from __future__ import annotations

from loss_memory import measured
from measured import Bar, in_turns, middle, parser, show

NAMES = (
    "log_prob",
    "pair_log_prob",
    "reverse_kl",
    "forward_kl",
    "jsd",
    "aligndistil",
    "entropy",
)
BARS = {"log_prob_cpu": Bar(1.05, 0.85), "reverse_kl_cpu": Bar(0.8, 0.65)}
SIZE, SMALL = (512, 151_936, 256), (256, 8000, 32)


def main() -> None:
    """Measure, compare, show."""
    own = parser(__doc__)
    own.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    asked = own.parse_args()
    size, rows, figures = SMALL if asked.small else SIZE, [], {}
    for name in asked.only:
        works = {
            way: lambda way=way, name=name: measured(name, way, size) for way in ("naive", "engine")
        }
        found = {way: middle(some) for way, some in in_turns(works, asked.rounds).items()}
        plain, ours = found["naive"], found["engine"]
        if abs(plain.said["loss"] - ours.said["loss"]) > 1e-3:
            raise SystemExit(f"{name}: the two do not compute one loss")
        both = {"naive CPU s": plain.cpu, "engine CPU s": ours.cpu}
        rows.append({"loss": name, **both, "naive MB": plain.peak, "engine MB": ours.peak})
        figures |= {f"{name}_cpu": ours.cpu / plain.cpu, f"{name}_peak": ours.peak / plain.peak}
    show(asked, rows, figures, BARS)


if __name__ == "__main__":
    main()
