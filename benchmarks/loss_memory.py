"""What the three-model loss of AlignDistil takes, beside lean autograd and its own matrix products.

    python benchmarks/loss_memory.py [--json]

Every row is a process of its own (loss_case.py): V = 151,936, float32, one thread. CPU seconds of
one step; MB over models and batch at the peak, the gradient of the head included.

| figure | is |
|---|---|
| `peak_ratio`, `cpu_ratio` | engine over naive autograd, 2,048 positions, H = 256 |
| `cpu_over_matmuls`, `cpu_over_matmuls_wide` | engine over its five products, H = 256 and 1,536 |
| `peak_ratio_leanest` | over autograd that forgets logits once their log-softmax is known |
| `peak_growth` | peak at 2,048 positions over that at 512 |
| `gradient_error` | error against float64 over that of naive autograd, the worst parameter |

About eight minutes of one core, and 14 GB.
"""

from __future__ import annotations

import sys
from pathlib import Path

from measured import Bar, Spent, in_turns, middle, parser, progress, show, spent

CASE = Path(__file__).with_name("loss_case.py")
BARS = {
    "peak_ratio": Bar(0.025, 0.02),
    "cpu_ratio": Bar(0.65, 0.5),
    "cpu_over_matmuls": Bar(1.5, 1.3),
    "cpu_over_matmuls_wide": Bar(1.15, 1.08),
    "peak_growth": Bar(1.05, 1.0),
    "gradient_error": Bar(1.2, 1.0),
}
WORKS = (("naive", 0), ("leanest", 0), ("engine", 0), ("matmuls", 0), ("engine", 1))
WORKS += (("engine", 2), ("matmuls", 2))
SIZES = ((2048, 151_936, 256), (512, 151_936, 256), (512, 151_936, 1536))  # N, V, H
SMALL = ((512, 8000, 32), (256, 8000, 32), (256, 8000, 64))
ERROR, SMALL_ERROR = (128, 32_000, 256), (128, 2000, 16)


def measured(quantity: str, way: str, size: tuple[int, int, int]) -> Spent:
    """The figures of one step, said by its process."""
    n, v, h = map(str, size)
    words = ["--positions", n, "--vocabulary", v, "--hidden", h]
    said = spent([sys.executable, "-P", CASE, quantity, way, *words]).said
    progress(f"{quantity} {way} N={n} H={h}: {said}")
    return Spent(said.get("cpu", 0.0), said.get("peak", 0.0), said)


def main() -> None:
    """Measure, compare, show."""
    asked = parser(__doc__).parse_args()
    sizes = SMALL if asked.small else SIZES
    works = {
        (way, at): lambda way=way, at=at: measured("aligndistil", way, sizes[at])
        for way, at in WORKS
    }
    found = {key: middle(some) for key, some in in_turns(works, asked.rounds).items()}
    plain, ours = (found[way, 0].said["loss"] for way in ("naive", "engine"))
    if abs(plain - ours) > 1e-3:
        raise SystemExit(f"the two do not compute one loss: {plain}, {ours}")
    rows = [
        {"way": way, "N": sizes[at][0], "H": sizes[at][2], "CPU s": x.cpu, "MB": x.peak}
        for (way, at), x in sorted(found.items(), key=lambda pair: pair[0][1])
    ]
    error = measured("aligndistil", "error", SMALL_ERROR if asked.small else ERROR)
    engine, plain = found["engine", 0], found["naive", 0]
    figures = {
        "peak_ratio": engine.peak / plain.peak,
        "peak_ratio_leanest": engine.peak / found["leanest", 0].peak,
        "cpu_ratio": engine.cpu / plain.cpu,
        "cpu_over_matmuls": engine.cpu / found["matmuls", 0].cpu,
        "cpu_over_matmuls_wide": found["engine", 2].cpu / found["matmuls", 2].cpu,
        "peak_growth": engine.peak / found["engine", 1].peak,
        "gradient_error": error.said["error"],
    }
    show(asked, rows, figures, BARS)


if __name__ == "__main__":
    main()
