"""What stands on the page and in its JSON twin, without a browser."""

import base64
import gzip
import json
import re

import numpy as np
import pytest
import torch
from lens_pages import lens_of
from tiny_models import word_tokenizer

from alignzoo.contract.errors import UsageError
from alignzoo.lens.coloured import colour_of
from alignzoo.lens.export import write_json
from alignzoo.lens.pack import FULL, packed, rounded
from alignzoo.lens.page import first_responses, render_lens
from alignzoo.lens.view import at_tokens, limit_of


@pytest.fixture(scope="module")
def lens():
    return lens_of(word_tokenizer(), 20, 7, 2)


def unpacked(text):
    """The head and the arrays, read as data.js does."""
    whole = gzip.decompress(base64.b64decode(text))
    size = int.from_bytes(whole[:4], "little")
    head, at, arrays = json.loads(whole[4 : 4 + size]), 4 + size, {}
    for name, kind, n in head["arrays"]:
        arrays[name] = np.frombuffer(whole, f"<{kind}", n, at)
        at += -(-arrays[name].nbytes // 4) * 4
    return head, arrays


def test_json_holds_every_number_in_full_precision(lens, tmp_path):
    write_json(lens, tmp_path / "lens.json")
    twin = json.loads((tmp_path / "lens.json").read_text())
    assert [m["name"] for m in twin["methods"]] == ["method 0", "method 1"]
    for number, row in enumerate(twin["responses"]):
        assert row["ids"] == list(lens.rows[number].tokens.response) and len(row["tokens"]) == 7
        for m, method in enumerate(row["methods"]):
            for name, values in method["values"].items():
                told = lens.methods[m].rows[number].values[name]
                assert torch.equal(torch.tensor(values), told)
            own = method["top"]["policy"]
            top = lens.methods[m].rows[number].top["policy"]
            assert [[entry[0] for entry in best] for best in own["best"]] == top.ids.tolist()
            assert torch.equal(torch.tensor(own["own"]), top.own)


def test_the_compact_data_hold_what_the_page_shows_of_every_number(lens):
    head, arrays = unpacked(packed(lens))
    for m, method in enumerate(lens.methods):
        for q, quantity in enumerate(method.quantities):
            told = torch.cat([row.values[quantity.name] for row in method.rows]).numpy()
            np.testing.assert_allclose(arrays[f"v{m}.{q}"], told, rtol=2.0**-12)
        first = arrays[f"t{m}.0"]
        for d, name in enumerate(method.distributions):
            places = arrays[f"t{m}.{d}"] ^ first if d else first
            ids = torch.cat([row.top[name].ids for row in method.rows]).flatten().tolist()
            assert [head["table"][place][1] for place in places] == ids
            shares = torch.cat([row.top[name].shares for row in method.rows]).flatten().numpy()
            assert np.abs(arrays[f"p{m}.{d}"] / FULL - shares).max() <= 0.5 / FULL + 1e-9


def test_infinite_and_undefined_values_stay_what_they_are():
    values = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0, 3.4e38])
    assert str(rounded([values]).tolist()[:4]) == "[inf, -inf, nan, 0.0]"


def test_the_middle_colour_is_zero_on_both_sides_and_the_ends_are_the_limits():
    assert colour_of(0.0, 2.0) == "c10" and colour_of(float("nan"), 2.0) == "u"
    assert (colour_of(2.0, 2.0), colour_of(-2.0, 2.0)) == ("c20", "c0")
    assert (colour_of(9.0, 2.0), colour_of(float("-inf"), 2.0)) == ("c20", "c0")
    values = [torch.tensor([float(n) for n in range(-100, 101)]), torch.tensor([torch.inf])]
    assert limit_of(values) == 99.0


def test_the_third_line_is_the_difference_of_the_first_two(lens):
    shown, legends = first_responses(lens, 3)
    assert [legend.name for legend in legends] == ["method 0: kl", "method 1: kl", "difference"]
    assert legends[0].limit == legends[1].limit != legends[2].limit
    one, two = (at_tokens(m, m.quantities[0], 2, 0) for m in lens.methods)
    told = [f"{x:.3g} nats" for x in (one - two).tolist()]
    assert [token.told for token in shown[2].lines[2].tokens] == told


def test_official_positions_give_a_token_the_value_of_the_position_it_sits_on(lens):
    method = lens.methods[0]
    values = method.rows[0].values["kl"]
    assert torch.equal(at_tokens(method, method.quantities[0], 0, 0), values[:-1])
    assert torch.equal(at_tokens(method, method.quantities[0], 0, 1), values[1:])


def test_the_first_responses_can_be_read_without_javascript(lens):
    page = render_lens(lens)
    assert page.count('<article class="resp">') == 12
    static = page.partition('<div id="static">')[2]
    colours = re.findall(r'<span class="(c\d+)" title="([^"]*)">', static)
    assert len(colours) == 12 * 3 * 7
    assert all(colour == "c10" or told for colour, told in colours)
    assert "8 more responses" in page


def test_a_section_for_another_page_needs_one_function(lens):
    shown, legends = first_responses(lens, 2, ["reward"])
    assert len(shown) == 2 and legends[0].name == "method 0: reward"
    assert "".join(text for text, _ in shown[0].lines[0].tokens[0].parts)


def test_a_signal_that_no_method_has_is_refused_with_those_that_there_are(lens):
    with pytest.raises(
        UsageError, match=r"--signal rewrd: method 0 has no such signal; did you mean 'reward'"
    ):
        render_lens(lens, ["rewrd"])
