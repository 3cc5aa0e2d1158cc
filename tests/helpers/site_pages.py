"""What the pages of a built site link to, load and name."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


@dataclass
class Page(HTMLParser):
    """One page: addresses of its links and of what it loads, and its anchors."""

    path: Path
    links: list = field(default_factory=list)
    loads: list = field(default_factory=list)
    anchors: set = field(default_factory=set)

    def __post_init__(self):
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if found.get("id"):
            self.anchors.add(found["id"])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in LOADS and found.get(LOADS[tag]):
            self.loads.append(found[LOADS[tag]])


def pages(site):
    """Every page of a site, by its path."""
    return {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
