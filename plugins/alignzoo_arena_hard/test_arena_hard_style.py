"""Arena-Hard: counting games, and style control against independent optimisers."""

import math

import numpy as np
import pytest
import torch

from alignzoo_arena_hard import (
    REVISIONS,
    STYLE,
    Entrant,
    Game,
    Record,
    battles,
    chance,
    each_game,
    interval_2024,
    interval_2025,
    rating,
    raw_chances,
    record,
    regression,
    style_control,
    style_of,
    whole_duels,
    win_rate,
)
from alignzoo_arena_hard.control import chance_of
from alignzoo_arena_hard.style import density, relative, without_code

# --- counting ---------------------------------------------------------------------------------


DUELS = [
    [Game(1, 3), Game(0.5)],
    [Game(0), None],
    [None, None],
    [Game(0), Game(1)],
]


def test_the_win_rate_is_the_weighted_mean_of_the_games():
    assert win_rate(record(DUELS, each_game)) == pytest.approx((3 + 0.5 + 0 + 0 + 1) / 7)


def test_in_2025_a_question_with_a_missing_verdict_counts_for_nothing():
    assert win_rate(record(DUELS, whole_duels)) == pytest.approx((3 + 0.5 + 0 + 1) / 6)


def test_the_closed_form_is_the_maximum_of_the_bradley_terry_likelihood():
    sklearn = pytest.importorskip("sklearn.linear_model")
    x = np.array([[math.log(10)]] * 8)  # battles entered twice; a tie is a win and a loss
    y = np.array([1, 1, 1, 1, 1, 0, 0, 0])
    fitted = sklearn.LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(x, y)
    games = [[Game(1)], [Game(1)], [Game(0.5)], [Game(0)]]
    elo = 1000 + 400 * fitted.coef_[0, 0]
    assert rating(win_rate(record(games, each_game))) == pytest.approx(elo, abs=1e-3)


def test_a_rating_and_a_win_rate_are_two_names_of_one_number():
    assert rating(0.5) == 1000
    assert [chance(rating(p)) for p in (0.0, 0.1, 0.9, 1.0)] == pytest.approx([0.0, 0.1, 0.9, 1.0])


def test_upstreams_interval_repeats_with_its_seed_and_holds_the_win_rate():
    duels = [[Game(float(i % 3 == 0), 1 + 2 * (i % 2)), Game(0.5)] for i in range(60)]
    games = battles([duels], each_game)
    assert len(games) == 60 * 2 + 60
    ((low, high),) = interval_2024(games, raw_chances(1))
    assert low < 100 * win_rate(record(duels, each_game)) < high
    assert interval_2024(games, raw_chances(1)).tolist() == [[low, high]]
    assert interval_2025(games.value)[1] > low, "90 % lie within 95 %"


# --- style ------------------------------------------------------------------------------------

MARKDOWN = """# Title
## Part
#no header
1. one
  2. two
- three
* four
**bold** and __bold__ and ** not
bold**
```python
# comment
- code
```
"""


def test_markdown_is_counted_outside_of_code():
    found = style_of(MARKDOWN, 40)
    assert (found.tokens, found.headers, found.lists, found.bold) == (40, 2, 4, 2)


def test_the_text_of_a_code_block_is_removed_wherever_it_stands_as_upstream_does():
    assert without_code("a b ``` ```") == "ab``````"


def test_contrasts_of_both_revisions_by_hand():
    own, other = np.array([[30.0, 2, 4, 0]]), np.array([[10.0, 1, 0, 0]])
    assert relative(own, other).tolist() == [[20 / 41, 1 / 4, 4 / 5, 0]]
    headers, lists = (2 / 30 - 1 / 10) / (2 / 30 + 1 / 10 + 1), (4 / 30) / (4 / 30 + 1)
    assert density(own, other)[0].tolist() == pytest.approx([1 / 2, headers, lists, 0])
    assert np.isfinite(density(0 * own, 0 * other)).all()


def made_up(n=120, seed=0, effect=2.0):
    """A candidate as good as the baseline, by a judge that likes length."""
    noise = np.random.default_rng(seed)
    own = np.column_stack([noise.integers(50, 400, n), *noise.integers(0, 5, (3, n))]).astype(float)
    other = np.column_stack([noise.integers(50, 200, n), *noise.integers(0, 5, (3, n))])
    p = chance_of(effect * relative(own, other)[:, 0])
    weight = noise.integers(0, 4, n).astype(float)
    return Entrant(Record(weight * (noise.random(n) < p), weight), own, other.astype(float))


def written_out(entrants, model):
    """Rows of single battles, and their outcomes."""
    rows = regression(entrants, model, STYLE)
    lost = rows.weight - rows.won
    x = np.concatenate([np.repeat(rows.x, k.astype(int), 0) for k in (rows.won, lost)])
    return x, np.repeat([1.0, 0.0], [int(rows.won.sum()), int(lost.sum())])


def test_style_control_of_2024_is_scikit_learns_regression_of_doubled_battles():
    sklearn = pytest.importorskip("sklearn.linear_model")
    entrants, model = [made_up(seed=1), made_up(seed=2)], REVISIONS["2024"].style
    x, y = written_out(entrants, model)
    fitted = sklearn.LogisticRegression(fit_intercept=False, tol=1e-10, max_iter=1000)
    beta = fitted.fit(np.tile(x, (2, 1)), np.tile(y, 2)).coef_[0]
    expected = [100 / (1 + 10 ** (beta[0] - beta[k])) for k in (1, 2)]
    found = style_control(entrants, model, STYLE)
    assert found.scores == pytest.approx(expected, abs=1e-4)
    assert found.coefficients == pytest.approx(beta[3:], abs=1e-5)


def test_style_control_of_2025_is_the_optimum_without_a_penalty():
    entrants, model = [made_up(seed=1), made_up(seed=2)], REVISIONS["2025"].style
    x, y = map(torch.from_numpy, written_out(entrants, model))
    beta = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([beta], max_iter=500, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(x @ beta, y, reduction="sum")
        value.backward()
        return value

    optimiser.step(loss)
    found = style_control(entrants, model, STYLE)
    expected = 100 * torch.sigmoid(beta[1:3] - beta[0]).detach().numpy()
    assert found.scores == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("revision", REVISIONS)
def test_equal_style_takes_a_judges_love_of_length_out_and_the_official_reading_does_not(revision):
    entrant = made_up(n=4000)
    found = style_control([entrant], REVISIONS[revision].style, STYLE)
    assert 100 * win_rate(entrant.record) > 58
    assert found.scores[0] > 58, "alone in a fit, its own mean style is the reference"
    assert found.equal[0] == pytest.approx(50, abs=3)


def test_a_feature_that_never_differs_changes_nothing():
    entrant = made_up()
    entrant.own[:, 3] = entrant.other[:, 3] = 0
    for revision in REVISIONS.values():
        found = style_control([entrant], revision.style, STYLE)
        assert np.isfinite(found.scores).all() and found.coefficients[3] == pytest.approx(0)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_model_that_always_wins_or_loses_has_a_finite_controlled_win_rate(share):
    entrant = made_up()
    always = Entrant(Record(share * entrant.record.weight, entrant.record.weight),
                     entrant.own, entrant.other)  # fmt: skip
    for revision in REVISIONS.values():
        (score,) = style_control([always], revision.style, STYLE).scores
        assert score == pytest.approx(100 * share, abs=5)
