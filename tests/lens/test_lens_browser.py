"""The page in a real browser: a headless Chromium points, types, scrolls and looks."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from chromium import chromium, find_chromium
from lens_pages import lens_of
from test_lens_tokens import byte_tokenizer
from tiny_models import word_tokenizer

from alignzoo.lens.page import render_lens
from alignzoo.lens.view import at_tokens

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)
READY = "!document.getElementById('lens').hidden && !!document.querySelector('#list .toks')"
PANEL = "document.getElementById('token').innerText"
COUNT = "document.getElementById('count').textContent"
HOSTILE = "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def lenses():
    return {n: lens_of(word_tokenizer(), 60, 30, n) for n in (1, 2)}


@pytest.fixture(scope="module")
def pages(lenses, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for n, lens in lenses.items():
        (folder / f"{n}.html").write_text(render_lens(lens), encoding="utf-8")
    return folder


def opened(browser, file, **how):
    tab = browser.page(file, **how)
    tab.wait(READY)
    return tab


def sound(tab, file):
    """Nothing went wrong, and nothing was asked for but the file."""
    assert tab.complaints() == []
    assert [url for url in tab.requests() if not url.startswith("data:")] == [file.as_uri()]


def set_to(tab, selector, value, event):
    tab.look(
        f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.value = "
        f"{json.dumps(str(value))}; e.dispatchEvent(new Event('{event}')); }})()"
    )


def point(tab, row, token, line=0):
    tab.look(
        f"document.querySelectorAll('#list .resp')[{row}].querySelectorAll('.toks')[{line}]"
        f".children[{token}].dispatchEvent(new MouseEvent('mouseover', {{bubbles: true}}))"
    )


def told(tab, name):
    """The value of a signal in the panel, of every method."""
    return tab.look(
        "[...document.querySelectorAll('#token dl div')].filter(d => d.firstChild.textContent == "
        f"{json.dumps(name)}).map(d => d.lastChild.textContent.replace(' nats', ''))"
    )


def near(texts, *expected):
    """Three digits of each, a rounding of the last one apart."""
    assert len(texts) == len(expected)
    for text, x in zip(texts, expected, strict=True):
        assert float(text.replace("−", "-")) == pytest.approx(float(x), rel=5.1e-3)
    return True


def test_pointing_at_a_token_tells_every_signal_and_the_five_most_probable_tokens(
    browser, pages, lenses
):
    tab = opened(browser, pages / "1.html", width=1400)
    point(tab, 2, 4)
    reading = lenses[1].methods[0].rows[2]
    for name, values in reading.values.items():
        assert near(told(tab, name), values[4])
    heads = tab.look("[...document.querySelectorAll('#token thead th')].map(h => h.textContent)")
    assert heads == list(reading.top)
    cells = tab.look(
        "[...document.querySelectorAll('#token tbody tr')].map(r => [...r.querySelectorAll('td')]"
        ".map(c => c.textContent))"
    )
    for d, top in enumerate(reading.top.values()):
        shares = [f"{100 * p:.1f} %" for p in top.shares[4].tolist()]
        assert [row[d].split(" ", 1)[1] for row in cells[:5]] == shares
    sound(tab, pages / "1.html")


def test_the_difference_of_two_methods_is_a_third_line(browser, pages, lenses):
    tab = opened(browser, pages / "2.html", width=1400)
    lines = "document.querySelector('#list .resp').querySelectorAll('.toks').length"
    assert tab.look(lines) == 3
    one, two = (at_tokens(m, m.quantities[0], 0, 0) for m in lenses[2].methods)
    set_to(tab, "#at", 0.5, "input")
    marked = tab.look(
        "[...document.querySelectorAll('#list .resp')[0].querySelectorAll('.toks')[2].children]"
        ".map(s => s.classList.contains('h'))"
    )
    assert marked == [bool(x) for x in (one - two) >= 0.5]
    point(tab, 0, 3, line=2)
    assert near(told(tab, "kl"), one[3], two[3])
    sound(tab, pages / "2.html")


def every_value(lens, shift=0):
    method = lens.methods[0]
    rows = range(len(lens.rows))
    return [at_tokens(method, method.quantities[0], r, shift) for r in rows]


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        ("ge", lambda x: x >= 0.75),
        ("le", lambda x: x <= 0.75),
        ("abs", lambda x: x.abs() >= 0.75),
    ],
)
def test_a_threshold_counts_tokens_and_responses_while_it_moves(browser, pages, lenses, kind, test):
    tab = opened(browser, pages / "1.html", width=1400)
    set_to(tab, "#kind", kind, "change")
    set_to(tab, "#at", 0.75, "input")
    values = every_value(lenses[1])
    tokens = sum(int(test(x).sum()) for x in values)
    rows = sum(bool(test(x).any()) for x in values)
    said = tab.look(COUNT)
    assert said.startswith(f"{tokens} of 1800 tokens") and f"in {rows} of 60 responses" in said
    set_to(tab, "#slide", 500, "input")
    assert tab.look(COUNT) != said


def test_bars_of_the_drawings_mark_the_tokens_they_stand_for(browser, pages, lenses):
    tab = opened(browser, pages / "1.html", width=1400)
    values = torch.cat(every_value(lenses[1]))
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    width = (high - low) / 48
    bar = 24
    inside = (values >= low + bar * width) & (values <= low + (bar + 1) * width)
    tab.look(
        f"document.querySelectorAll('#hist rect')[{bar}]"
        ".dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    assert abs(int(tab.look(COUNT).split()[0]) - int(inside.sum())) <= 1  # a value on the edge
    tab.look(
        "document.querySelectorAll('#prof rect')[7]"
        ".dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    assert tab.look(COUNT).startswith("60 of 1800 tokens") and "60 of 60" in tab.look(COUNT)
    marked = (
        "[...document.querySelector('#list .toks').children].map(s => s.className.includes(' h'))"
    )
    assert tab.look(marked) == [n == 7 for n in range(30)]
    point(tab, 0, 7)
    assert tab.look("document.querySelectorAll('#hist .here, #prof .here').length") == 2


def test_the_switch_of_positions_moves_every_value_by_one(browser, pages, lenses):
    tab = opened(browser, pages / "1.html", width=1400)
    point(tab, 0, 4)
    values = lenses[1].methods[0].rows[0].values["kl"]
    assert near(told(tab, "kl"), values[4])
    set_to(tab, "#shift", 1, "change")
    point(tab, 0, 4)
    assert near(told(tab, "kl"), values[5])
    assert "what would follow it" in tab.look(PANEL)
    set_to(tab, "#at", 0.75, "input")
    late = sum(int((x >= 0.75).sum()) for x in every_value(lenses[1], 1))
    assert tab.look(COUNT).startswith(f"{late} of 1800 tokens")
    assert late != sum(int((x >= 0.75).sum()) for x in every_value(lenses[1], 0))


def test_the_keyboard_walks_over_tokens_and_responses(browser, pages):
    tab = opened(browser, pages / "1.html", width=1400)
    tab.look("document.getElementById('list').focus({preventScroll: true})")
    said = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowLeft"):
        tab.press(key)
        said.append(tab.look("document.querySelector('#token h2').textContent").split(" · ")[1])
    assert said == [
        "token 1 of 30 in response 1",
        "token 2 of 30 in response 1",
        "token 2 of 30 in response 2",
        "token 1 of 30 in response 2",
        "token 30 of 30 in response 1",
    ]
    assert tab.look("document.querySelectorAll('#list .a').length") == 1
    sound(tab, pages / "1.html")


def test_every_response_can_be_reached_and_only_those_in_sight_are_drawn(browser, pages):
    tab = opened(browser, pages / "1.html", width=1400)
    seen = set()
    height = tab.look("document.documentElement.scrollHeight")
    for top in range(0, height, 500):
        two = "requestAnimationFrame(() => requestAnimationFrame(() => { window.at = "
        tab.look(f"scrollTo({{top: {top}, behavior: 'instant'}}); {two}{top}; }})); 0")
        tab.wait(f"window.at === {top}")
        now = tab.look(
            "[...document.querySelectorAll('#list .resp h3')].map(h => parseInt(h.textContent))"
        )
        assert len(now) <= 24
        seen |= set(now)
    assert seen == set(range(1, 61))


@pytest.mark.parametrize("order", ["high", "low", "hits"])
def test_responses_can_be_sorted(browser, pages, lenses, order):
    tab = opened(browser, pages / "1.html", width=1400)
    set_to(tab, "#at", 1.0, "input")
    set_to(tab, "#order", order, "change")
    values = every_value(lenses[1])
    by = {"high": lambda x: -x.mean(), "low": lambda x: x.mean(), "hits": lambda x: -(x >= 1).sum()}
    expected = sorted(range(60), key=lambda r: (float(by[order](values[r])), r))
    drawn = (
        "[...document.querySelectorAll('#list .resp')].sort((a, b) => a.dataset.k - b.dataset.k)"
    )
    first = tab.look(f"{drawn}.slice(0, 3).map(r => parseInt(r.querySelector('h3').textContent))")
    assert first == [r + 1 for r in expected[:3]]


@pytest.mark.parametrize("width", [400, 800, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_every_width_and_both_schemes(browser, pages, tmp_path, width, dark):
    tab = opened(browser, pages / "2.html", width=width, dark=dark)
    point(tab, 0, 1)
    assert tab.look("document.documentElement.scrollWidth") <= width
    assert tab.look("document.querySelector('#token table').checkVisibility()")
    name = f"lens-{width}-{'dark' if dark else 'light'}.png"
    tab.screenshot(Path(os.environ.get("ALIGNZOO_SCREENSHOTS", tmp_path)) / name)
    sound(tab, pages / "2.html")


@pytest.mark.parametrize("javascript", [True, False])
def test_hostile_text_is_shown_and_not_run(browser, tmp_path, javascript):
    tokenizer = byte_tokenizer(
        HOSTILE.encode(), b"\x1b[31m", "\u202eabc".encode(), "\u200f".encode()
    )
    lens = lens_of(tokenizer, 3, 6)
    ids = (256, 257, 258, 259, 0xC3, tokenizer.eos_token_id)
    rows = tuple(
        replace(
            row,
            place=HOSTILE,
            label=HOSTILE,
            prompt=replace(row.prompt, prompt=f"\u202e{HOSTILE}\ud800"),
            tokens=replace(row.tokens, response=ids),
        )
        for row in lens.rows
    )
    lens = type(lens).of(rows, lens.methods, lens.pieces, [HOSTILE])
    file = tmp_path / "hostile.html"
    file.write_text(render_lens(lens), encoding="utf-8")
    tab = browser.page(file, javascript=javascript)
    if javascript:
        tab.wait(READY)
        point(tab, 0, 0)
    text = tab.look("document.querySelector('.toks').textContent")
    assert text == f"{HOSTILE}␛[31m⟨U+202E⟩abc⟨U+200F⟩⟨C3⟩<end>".replace(" ", "·")
    assert "\u202e" not in tab.look("document.body.textContent")
    assert tab.look("window.hurt === undefined && !document.querySelector('main img, #static img')")
    sound(tab, file)


MEASURE = """
(async () => {
  const frame = () => new Promise((r) => requestAnimationFrame(() => r()));
  const slide = document.getElementById('slide');
  const acts = {
    scroll: () => scrollBy({ top: 500, behavior: 'instant' }),
    jump: (k) => scrollTo({
      top: (k * 7919 % 97) / 97 * document.body.scrollHeight, behavior: 'instant' }),
    threshold: (k) => { slide.value = 300 + 25 * k; slide.dispatchEvent(new Event('input')); },
  };
  for (let k = 0; k < 20; k++) {
    await frame();
    acts[NAME](k);
    await frame();
    document.body.offsetHeight;
  }
  window.done = NAME;
})();
0
"""


def busy(tab):
    """Seconds that the page's main thread has computed."""
    metrics = tab.call("Performance.getMetrics")["metrics"]
    return next(m["value"] for m in metrics if m["name"] == "TaskDuration")


@pytest.mark.slow
def test_two_thousand_responses_of_two_hundred_tokens_are_redrawn_in_a_tenth_of_a_second(
    browser, tmp_path
):
    """By the time that the page's thread computes, whatever else the machine does."""
    file = tmp_path / "large.html"
    file.write_text(render_lens(lens_of(word_tokenizer(), 2000, 200, 2)), encoding="utf-8")
    tab = opened(browser, file, width=1400)
    tab.call("Performance.enable", timeDomain="threadTicks")
    spent = {}
    for name in ("scroll", "jump", "threshold"):
        before = busy(tab)
        tab.look(MEASURE.replace("NAME", f"'{name}'"))
        tab.wait(f"window.done === '{name}'")
        spent[name] = 1000 * (busy(tab) - before) / 20
    print(
        {name: f"{ms:.0f} ms" for name, ms in spent.items()}, f"{file.stat().st_size / 1e6:.0f} MB"
    )
    assert tab.look("document.querySelectorAll('#list .toks > span').length") < 20_000
    assert max(spent.values()) <= 100, spent
    sound(tab, file)
