"""What every page shares: nothing runs or loads, nothing acts unseen, no peak is lost."""

import base64
import hashlib
import math
import random
import re

import pytest

from alignzoo.pages import (
    Band,
    Series,
    Source,
    axis,
    chart,
    render,
    spanning,
    thinned,
    ticks,
    visible,
)


@pytest.fixture
def source(tmp_path):
    """A page of somebody's own."""
    (tmp_path / "own.html.j2").write_text(
        '{% extends "shell.html.j2" %}{% block title %}{{ name }}{% endblock %}'
        "{% block body %}<p>{{ name }}</p>{% endblock %}"
    )
    (tmp_path / "own.css").write_text("p { color: red; }")
    (tmp_path / "own.js").write_text('document.title = "mine";')
    return Source(tmp_path, styles=("own.css",), scripts=("own.js",))


def digest(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_policy_allows_the_page_s_own_style_and_script_and_nothing_else(source):
    page = render("own.html.j2", [source], {"name": "a"})
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    assert style.endswith("p { color: red; }")
    rules = dict(rule.split(" ", 1) for rule in policy.replace("&#39;", "'").split("; "))
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": digest(style),
        "script-src": digest(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_a_page_without_a_script_allows_none(source):
    page = render("own.html.j2", [Source(source.folder)], {"name": "a"})
    assert "script-src &#39;none&#39;" in page
    assert "<script" not in page


def test_a_name_that_is_missing_is_no_empty_place(source):
    with pytest.raises(Exception, match="'name' is undefined"):
        render("own.html.j2", [source], {})


def test_hostile_text_is_shown_and_not_run(source):
    page = render("own.html.j2", [source], {"name": "<script>a()</script>\x1b[2J\u202eabc\ud800"})
    assert "&lt;script&gt;a()&lt;/script&gt;[U+001B][2J[U+202E]abc[U+D800]" in page
    assert page.count("<script>") == 1
    page.encode("utf-8")


def test_letters_of_any_script_stay_as_they_are():
    text = "Grüße, Привет, שלום, مرحبا, 你好, 👩\u200d🔬, a\tb\nc"
    assert visible(text) == text


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (37, 91, [40, 60, 80]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_numbers_inside(low, high, expected):
    assert ticks(low, high) == expected


def test_equal_values_still_have_a_scale():
    scale = spanning([0.0, 0.0], 0, 100)
    assert scale(0.0) == 50
    assert scale.low < 0 < scale.high


def test_ticks_of_very_small_numbers_differ():
    assert ticks(0, 4e-15) == [0, 1e-15, 2e-15, 3e-15, 4e-15]


def test_an_axis_says_where_its_numbers_stand():
    drawn = axis("step", spanning([0, 100], 0, 600, room=0))
    assert drawn.ticks == ((0, "0"), (20, "20"), (40, "40"), (60, "60"), (80, "80"), (100, "100"))


def test_ten_thousand_steps_become_few_points_and_every_peak_stays():
    noise = random.Random(0)
    points = [(float(step), noise.random()) for step in range(10_000)]
    points[4321] = (4321.0, 9.0)
    kept = thinned(points, columns=100)
    assert len(kept) <= 2 * 100 + 3
    assert kept == sorted(kept)
    assert {points[0], points[4321], points[-1]} <= set(kept)
    for column in (0, 37, 98):
        inside = [y for x, y in points if column <= x / 99.99 < column + 1]
        left = [y for x, y in kept if column <= x / 99.99 < column + 1]
        assert (min(inside), max(inside)) == (min(left), max(left))
    (curve,) = chart("loss", "step", "nats", [Series("a", kept)]).curves
    assert len(curve.path) < 2_500


def test_thinning_leaves_short_curves_alone_and_loses_no_gap():
    short = [(float(x), 1.0) for x in range(20)]
    assert thinned(short, columns=10) == short
    gap = [(float(x), math.nan if x == 777 else 1.0) for x in range(1000)]
    assert [x for x, y in thinned(gap, columns=10) if math.isnan(y)] == [777.0]


def test_a_path_says_the_places_of_its_points():
    (curve,) = chart("x", "step", "", [Series("a", [(0, 0.0), (1, 1.0), (2, 0.5)])]).curves
    assert drawn(curve.path) == [(6, 946), (300, 54), (594, 500)]


def drawn(path):
    """The places that path data reaches."""
    numbers = list(map(int, re.findall(r"-?\d+", path)))
    places = [(numbers[0], numbers[1])]
    for dx, dy in zip(numbers[2::2], numbers[3::2], strict=True):
        places.append((places[-1][0] + dx, places[-1][1] + dy))
    return places


def test_a_gap_is_not_bridged_and_a_point_alone_is_a_dot():
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 3.0), (4, math.inf), (5, 1.0), (6, 1.0)]
    (curve,) = chart("loss", "step", "", [Series("a", points)]).curves
    assert curve.path.count("M") == 2
    assert len(curve.dots) == 1


def test_nothing_finite_is_no_chart():
    assert chart("loss", "step", "", [Series("a", [(0, math.nan)]), Series("b", [])]) is None


@pytest.mark.parametrize(
    ("band", "strip"),
    [
        (Band(low=0.5), (0, 500)),
        (Band(high=0.5), (500, 500)),
        (Band(0.22, 0.78), (250, 500)),
        (Band(low=2.0), None),
    ],
)
def test_the_healthy_band_is_drawn_as_far_as_it_is_in_sight(band, strip):
    found = chart(
        "x", "step", "", [Series("a", [(0, 0.0), (1, 1.0)])], band
    ).band  # of -.06 to 1.06
    assert found == strip
