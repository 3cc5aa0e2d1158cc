"""Build the documentation site: gather its pages, generate what is generated, run Sphinx.

    python docs/site/build.py [--output FOLDER]

A warning of Sphinx, such as a link to a page or heading that does not exist, is an error. The extra
[docs] installs what it takes. `FOLDER/html/index.html` is the site; it asks nobody for anything.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from gather import gather  # noqa: E402


def build(output: Path) -> int:
    """Write the site to `output`/html; the exit status of Sphinx."""
    from sphinx.cmd.build import build_main

    source, html = output / "source", output / "html"
    for folder in (source, html):
        shutil.rmtree(folder, ignore_errors=True)
    gather(source)
    options = ["-b", "html", "-c", str(HERE), "-d", str(output / "doctrees"), "-E", "-q"]
    return build_main([*options, "--fail-on-warning", "--keep-going", str(source), str(html)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE.parents[1] / "build" / "site")
    where = parser.parse_args().output.resolve()
    status = build(where)
    if status == 0:
        print(f"The site begins at {where / 'html' / 'index.html'}")
    raise SystemExit(status)
