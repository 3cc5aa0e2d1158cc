"""Calls to judges are found again, with the totals that they had."""

from alignzoo.stages.ledger import Entry, Ledger, Total


def entry(key, cost, judged=4, parsed=4, values=((1.0, 0.0),)):
    return Entry(key, [list(group) for group in values], judged, parsed, {f"q{key}": cost})


def filled(path):
    ledger = Ledger(path)
    for key, cost in (("a", 0.25), ("b", 0.5), ("c", 1.0)):
        ledger.add(entry(key, cost))
    return ledger


def test_a_call_that_comes_again_has_the_totals_of_its_time(tmp_path):
    """A stage that goes on from a checkpoint repeats calls that the ledger has gone past."""
    filled(tmp_path / "x")
    again = Ledger(tmp_path / "x")
    assert again.until("a") == Total(4, 4, 0.25)
    assert again.until("b") == Total(8, 8, 0.75)
    assert again.until("c") == Total(12, 12, 1.75)
    assert again.entries["b"] == entry("b", 0.5)
    assert again.bill == {"qa": 0.25, "qb": 0.5, "qc": 1.0}


def test_a_call_that_is_asked_anew_keeps_its_place(tmp_path):
    ledger = filled(tmp_path / "x")
    ledger.add(entry("a", 0.3, parsed=3, values=((None, 0.5),)))
    again = Ledger(tmp_path / "x")
    assert again.until("a") == Total(4, 3, 0.3) and not again.entries["a"].is_whole
    assert again.until("b") == Total(8, 7, 0.8)
    assert again.entries["a"].values == [[None, 0.5]]


def test_one_price_that_nobody_knows_makes_the_sum_unknown(tmp_path):
    ledger = filled(tmp_path / "x")
    ledger.add(entry("d", None))
    assert ledger.until("c").cost == 1.75 and ledger.until("d").cost is None


def test_a_line_that_a_kill_has_cut_is_no_call(tmp_path):
    path = tmp_path / "x"
    filled(path)
    path.write_bytes(path.read_bytes()[:-20])
    again = Ledger(path)
    assert list(again.entries) == ["a", "b"]
    again.add(entry("e", 2.0))
    assert Ledger(path).until("e") == Total(12, 12, 2.75)
