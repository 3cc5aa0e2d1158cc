"""The documentation site: it is built, whole, without a broken link and without the network."""

import importlib.util
import json
import re
import subprocess
import sys
from html import unescape
from urllib.parse import unquote, urlsplit

import pytest
from chromium import chromium, find_chromium
from site_pages import pages
from source_tree import ROOT

from alignzoo.recipe.file import recipe_schema
from alignzoo.recipe.registry import load_plugins

REGISTRY = load_plugins()
OWN = {p.parent.name for p in (ROOT / "plugins").glob("*/README.md")}
METHODS = [n for n, c in REGISTRY.algorithms.items() if c.__module__.split(".")[0] in OWN]
BUILD = [sys.executable, str(ROOT / "docs" / "site" / "build.py"), "--output"]
WRITTEN = [
    path
    for path in ("*.md", "docs/*.md", "plugins/*/README.md", "benchmarks/**/*.md")
    for path in sorted(ROOT.glob(path))
]
LINK = re.compile(r"`[^`]*`|\]\(([^)\s]+)\)")
needs_generator = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("sphinx", "myst_parser", "furo")),
    reason="the extra [docs] is not installed (pip install '.[docs]')",
)
needs_browser = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)


def prose(path):
    """A page without its blocks of code."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```|^ {4}[^\n]*$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path):
    """The anchors that GitHub gives the headings of a page."""
    text = prose(path)
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_files_of_the_repository_lead_somewhere(page):
    for link in filter(None, LINK.findall(prose(page))):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme in ("https", "http", "mailto"), link
            assert parts.netloc or parts.scheme == "mailto", link
            continue
        target = (page.parent / parts.path) if parts.path else page
        assert target.exists(), link
        assert not parts.fragment or parts.fragment in anchors(target), link


def test_every_key_of_a_recipe_has_a_meaning():
    sys.path.insert(0, str(ROOT / "docs" / "site"))
    try:
        import keys
    finally:
        sys.path.pop(0)
    known = keys.blocks()
    assert {n for n in recipe_schema(REGISTRY)["$defs"] if "." not in n} | {""} == set(known)
    dumb = [
        f"{block}: {key}"
        for block, schema in known.items()
        for key, found in schema.get("properties", {}).items()
        if not keys.meaning(found, known)
    ]
    assert dumb == []


@pytest.mark.parametrize("kind", ["costs", "curves"])
def test_figures_on_pages_of_methods_are_of_methods_that_exist(kind):
    found = json.loads((ROOT / "benchmarks" / "results" / f"{kind}.json").read_text("utf-8"))
    assert set(found["methods"]) <= set(METHODS)
    assert "dpo" in found["methods"]


# --- built ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; a warning of the generator is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run([*BUILD, folder], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def built(site):
    return pages(site)


@needs_generator
def test_no_link_of_the_site_is_broken(built):
    for path, page in built.items():
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == "#":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.name}: {link}"
            if parts.fragment and target in built:
                assert unquote(parts.fragment) in built[target].anchors, f"{path.name}: {link}"


@needs_generator
def test_the_site_loads_nothing_from_anywhere_else(site, built):
    loaded = [x for page in built.values() for x in page.loads]
    assert [x for x in loaded if urlsplit(x).scheme not in ("", "data") or x.startswith("//")] == []
    for style in site.rglob("*.css"):
        found = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", style.read_text())
        assert [x for pair in found for x in pair if re.match(r"(https?:)?//", x)] == []


@needs_generator
def test_every_page_is_reached_from_the_first_one(site, built):
    seen, rest = set(), [(site / "index.html").resolve()]
    while rest:
        path = rest.pop()
        if path in built and path not in seen:
            seen.add(path)
            links = (urlsplit(link) for link in built[path].links)
            rest += [(path.parent / unquote(x.path)).resolve() for x in links if not x.scheme]
    assert {path.name for path in built.keys() - seen} <= {"genindex.html", "search.html"}


@needs_generator
@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_a_page_with_all_that_it_declares(site, name):
    cls = REGISTRY.algorithms[name]
    html = (site / "methods" / f"{name}.html").read_text(encoding="utf-8")
    text = unescape(re.sub(r"<[^>]+>", "", html))
    assert (cls.__doc__ or "").splitlines()[0] in text
    for word in (*cls.roles, *cls.metrics, *(f.name for f in cls.__dataclass_fields__.values())):
        assert word in text
    assert {"Options", "Models", "Signals", "Metrics", "Cost"} <= set(re.findall(r"\w+", text))


@needs_generator
def test_pages_of_authors_show_batches_and_packages(site):
    text = (site / "write-a-plugin.html").read_text(encoding="utf-8")
    for word in ("LabelledBatch", "desirable", "mismatched", "RolloutBatch", "register_judges"):
        assert word in text


@needs_generator
def test_a_page_that_nobody_has_placed_is_in_the_navigation(tmp_path):
    sys.path.insert(0, str(ROOT / "docs" / "site"))
    try:
        import gather
    finally:
        sys.path.pop(0)
    for page in ("index", "start", "unheard-of", "benchmarks/README", "methods/index"):
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / f"{page}.md").write_text(f"# {page}\n")
    gather.navigate(tmp_path)
    assert "\nunheard-of\n" in (tmp_path / "index.md").read_text()
    assert "\nreport\n" not in (tmp_path / "index.md").read_text()


@needs_generator
@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_work_in_a_browser_at_400_pixels(site, tmp_path, dark):
    with chromium(tmp_path) as browser:
        for page in ("index", "methods/index", "methods/dpo", "recipes", "write-a-plugin"):
            file = site / f"{page}.html"
            tab = browser.page(file, width=400, dark=dark)
            assert tab.complaints() == []
            asked = [url for url in tab.requests() if not url.startswith(("file:", "data:"))]
            assert asked == []
            assert tab.look("document.documentElement.scrollWidth") <= 400
            light = (
                tab.look("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
            )
            assert light is not dark


def test_a_wrong_anchor_stops_the_build(tmp_path):
    pytest.importorskip("furo", reason="the extra [docs] is not installed (pip install '.[docs]')")
    source = tmp_path / "source"
    source.mkdir()
    (source / "index.md").write_text("# Page\n\n[there](#nowhere)\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", str(ROOT / "docs" / "site")]
    done = subprocess.run(
        [*command, str(source), str(tmp_path / "html")], check=False, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "nowhere" in done.stderr


def test_the_site_is_built_where_the_tests_run():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'"alignzoo\[[^\]]*docs[^\]]*\]"', project), "dev does not include docs"
    assert "docs/site/build.py" in (ROOT / "Makefile").read_text(encoding="utf-8")
