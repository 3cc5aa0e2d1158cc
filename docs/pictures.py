"""Take the screenshots of docs/images from a finished run, with a headless Chromium.

    python docs/pictures.py RUN

RUN is what `make demo` leaves. Each picture is a page that a command writes, opened as a reader
opens it; to add one, add a line to PICTURES.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "helpers"))

from chromium import chromium  # noqa: E402  (the tests of pages use the same browser)


@dataclass(frozen=True)
class Picture:
    """A command whose PAGE is looked at, in a window of a size in pixels."""

    command: tuple[str, ...]
    width: int
    height: int
    click: str = ""  # an element that the reader clicks first


PICTURES = {
    "leaderboard": Picture(("leaderboard", "RUN", "--html", "PAGE"), 1400, 1450),
    "report": Picture(("report", "RUN", "-o", "PAGE"), 1400, 1480),
    "lens": Picture(
        (
            "lens",
            "--run",
            "RUN",
            "--stage",
            "aligndistil",
            "--signal",
            "distil/reward",
            "-o",
            "PAGE",
        ),
        1400,
        900,
        "#list .resp:nth-child(3) .toks span:nth-child(16)",
    ),
}


def take(name: str, picture: Picture, run: Path, folder: Path) -> Path:
    """Write the page into a folder and its picture beside this file."""
    page, target = folder / f"{name}.html", HERE / "images" / f"{name}.png"
    stands = {"RUN": str(run), "PAGE": str(page)}
    words = [stands.get(word, word) for word in picture.command]
    subprocess.run(
        [sys.executable, "-m", "alignzoo", *words], check=True, stdout=subprocess.DEVNULL
    )
    with chromium(folder) as browser:
        tab = browser.page(page, width=picture.width, height=picture.height)
        if picture.click:
            tab.wait(f"!!document.querySelector({json.dumps(picture.click)})")
            tab.click(picture.click)
            tab.look("scrollTo({top: 0, behavior: 'instant'})")
        tab.screenshot(target)
    return target


def main(run: Path) -> None:
    """Take every picture."""
    with tempfile.TemporaryDirectory() as folder:
        for name, picture in PICTURES.items():
            print(take(name, picture, run.resolve(), Path(folder)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
