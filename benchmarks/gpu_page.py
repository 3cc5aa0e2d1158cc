"""What `gpu.py` says of its measurements: what is wrong with them, and the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CLOSE = {"fp32": 1e-3, "bf16": 3e-2}  # of losses, relative


@dataclass
class Report:
    """What was found, and what is wrong with it."""

    facts: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    agreement: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def check(report: Report) -> None:
    """Losses that differ more than rounding explains."""
    for name, found in report.agreement.items():
        for precision, limit in CLOSE.items():
            steps = 1 if name.endswith("-on") else None  # later samples follow other weights
            pairs = list(zip(found["cpu"][:steps], found[precision][:steps], strict=True))
            off = max(abs(a - b) / max(abs(a), 1e-2) for a, b in pairs)
            if not off <= limit:
                report.wrong.append(f"{name} in {precision}: losses are {off:.1e} off the CPU's")
    plain = report.settings.get("dpo")
    for name in ("dpo-fsdp2", "dpo-zero3", "dpo-flash"):
        other = report.settings.get(name)
        if plain and other and not abs(other["losses"][0] - plain["losses"][0]) <= 1e-2:
            report.wrong.append(f"{name}: its first loss is not that of dpo")


def page(report: Report) -> str:
    """gpu.md."""
    device = next(iter(report.settings.values()), {"device": "?"})["device"]
    listed = ", ".join(f"{name} {x}" for name, x in report.facts["versions"].items())
    text = f"# On one GPU\n\n    python benchmarks/gpu.py\n\n{device}; {listed}; "
    text += f"commit {report.facts['commit']}.\n\n"
    text += "| setting | s/step | tokens/s | MFU | peak GB | predicted GB |\n"
    text += "|---|---|---|---|---|---|\n"
    for name, x in report.settings.items():
        share = "" if x["mfu"] is None else f"{x['mfu']:.1%}"
        text += (
            f"| {name} | {x['seconds_per_step']:.2f} | {x['tokens_per_second']:.0f} | {share} | "
        )
        foreseen = x.get("predicted_bytes")
        text += f"{(x['peak_bytes'] or 0) / 1e9:.1f} | "
        text += f"{'' if foreseen is None else f'{foreseen / 1e9:.1f}'} |\n"
    text += "\nAgreement with float32 on the CPU, loss of the last step:\n\n"
    for name, x in report.agreement.items():
        text += f"- {name}: " + ", ".join(f"{k} {v[-1]:.6f}" for k, v in x.items()) + "\n"
    for name, why in report.skipped.items():
        text += f"- not run: {name}: {why}\n"
    for fault in report.wrong:
        text += f"- **wrong**: {fault}\n"
    return text
