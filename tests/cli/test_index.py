"""The index of plug-in packages: what an entry must say, and whether the package agrees."""

from __future__ import annotations

import pytest
from source_tree import ROOT

from alignzoo import hookimpl
from alignzoo.cli.authoring.index import index_command, read_index
from alignzoo.contract.errors import RecipeError

ENTRY = {
    "package": "alignzoo-outsider",
    "entry_point": "alignzoo_outsider",
    "offers": "{algorithm: [margin-dpo], judge: [politeness]}",
    "summary": "DPO with a margin",
    "url": "https://example.org/alignzoo-outsider",
    "licence": "Apache-2.0",
}


def written(tmp_path, *entries):
    lines = ["packages:"]
    for entry in entries:
        pairs = [f"{key}: {value}" for key, value in entry.items()]
        lines += [f"  - {pairs[0]}", *(f"    {pair}" for pair in pairs[1:])]
    file = tmp_path / "plugins.yaml"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_the_index_of_this_repository_is_sound(capsys):
    assert index_command(ROOT / "docs" / "plugins.yaml") == 0
    assert "the index is sound" in capsys.readouterr().out


def test_the_entry_that_the_index_shows_is_one(tmp_path):
    text = (ROOT / "docs" / "plugins.yaml").read_text()
    shown = text.partition("looks so:\n#\n")[2].partition("packages:")[0]
    lines = [line[2:].partition("     ")[0].rstrip() for line in shown.splitlines()]
    file = tmp_path / "plugins.yaml"
    file.write_text("packages:\n" + "\n".join(lines) + "\n")
    (package,) = read_index(file).packages
    assert package.offers == {"algorithm": ("margin-dpo",), "judge": ("politeness",)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"package": "Alignzoo_Outsider"}, "packages.0.package"),
        ({"entry_point": "alignzoo-outsider"}, "packages.0.entry_point"),
        ({"url": "http://example.org"}, "packages.0.url"),
        ({"url": "https://me:key@example.org"}, "packages.0.url"),
        ({"url": "javascript:alert(1)"}, "packages.0.url"),
        ({"summary": "a | b"}, "packages.0.summary"),
        ({"summary": '"<script>alert(1)</script>"'}, "packages.0.summary"),
        ({"summary": "x" * 121}, "packages.0.summary"),
        ({"offers": "{}"}, "packages.0.offers"),
        ({"offers": "{algorithms: [x]}"}, "no kind of plug-in; kinds are algorithm, dataset"),
        ({"licenze": "MIT"}, "unknown key"),
    ],
)
def test_a_bad_entry_is_told_with_its_line(tmp_path, changes, said):
    file = written(tmp_path, ENTRY | changes)
    with pytest.raises(RecipeError) as caught:
        read_index(file)
    assert said in str(caught.value)
    assert f"{file}:" in str(caught.value)


def test_packages_are_sorted_and_stand_there_once(tmp_path):
    other = ENTRY | {"package": "alignzoo-a", "entry_point": "alignzoo_a", "offers": "{judge: [a]}"}
    with pytest.raises(RecipeError, match="stands after alignzoo-outsider; sort by package"):
        read_index(written(tmp_path, ENTRY, other))
    with pytest.raises(RecipeError, match="'alignzoo-outsider' is there already"):
        read_index(written(tmp_path, ENTRY, ENTRY))
    assert len(read_index(written(tmp_path, other, ENTRY)).packages) == 2


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The outside package of the tests, as an editable installation leaves it."""
    about = tmp_path / "site" / "alignzoo_outsider-0.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: alignzoo-outsider\nVersion: 0.2\n"
    )
    points = "[alignzoo]\nalignzoo_outsider = alignzoo_outsider\n"
    (about / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "third_party"))
    monkeypatch.syspath_prepend(str(about.parent))


def test_an_installed_package_must_register_what_its_entry_says(tmp_path, installed, capsys):
    assert index_command(written(tmp_path, ENTRY)) == 0
    assert "kept" in capsys.readouterr().out
    assert index_command(written(tmp_path, ENTRY | {"offers": "{judge: [politeness]}"})) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "BROKEN" in out and "1 broken" in out
    assert index_command(written(tmp_path, ENTRY | {"entry_point": "alignzoo_other"})) == 1
    assert "no entry point" in " ".join(capsys.readouterr().out.split())


def test_a_package_may_offer_a_name_that_another_has(tmp_path, installed, monkeypatch, capsys):
    """Recipes tell the two apart as `package:name`."""
    import alignzoo_outsider
    from alignzoo_dpo import DPO

    own = type("OwnDPO", (DPO,), {"__doc__": DPO.__doc__})
    monkeypatch.setattr(alignzoo_outsider, "register_algorithms", hookimpl(lambda: [own]))
    entry = ENTRY | {"offers": "{algorithm: [dpo], judge: [politeness]}"}
    assert index_command(written(tmp_path, entry)) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "kept algorithm dpo, judge politeness" in out


def test_a_package_that_is_not_here_is_not_said_to_be_tried(tmp_path, capsys):
    assert index_command(written(tmp_path, ENTRY)) == 0
    assert "not installed here" in " ".join(capsys.readouterr().out.split())
