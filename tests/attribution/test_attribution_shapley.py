"""Shapley credit against the definition over all orders of arrival, and what it is equal to."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from journey_worlds import Journey, exact_table, release_of, simulate

from attribution.credit import credits
from attribution.shapley import conversion_matrix, rate_shares, shapley_weights, subset_sums
from attribution.tables import read_journeys
from contracts.errors import ContractError

CHANNELS = ("search", "social", "video", "mail")


def by_arrival(worth: dict[frozenset[str], float]) -> dict[str, float]:
    """Mean marginal worth over all orders in which the channels could have come."""
    out = dict.fromkeys(CHANNELS, 0.0)
    orders = list(permutations(CHANNELS))
    for order in orders:
        seen: frozenset[str] = frozenset()
        for c in order:
            out[c] += (worth[seen | {c}] - worth[seen]) / len(orders)
            seen = seen | {c}
    return out


def games(journeys: list[Journey]) -> tuple[dict[frozenset[str], float], dict[frozenset[str], float]]:
    """Worth of every set: conversions, and conversion rate, of the journeys that only saw channels of the set."""
    sets = [frozenset(c for i, c in enumerate(CHANNELS) if m >> i & 1) for m in range(16)]
    conversions, rate = {}, {}
    for s in sets:
        inside = [j for j in journeys if j.path and set(j.path) <= s]
        won = sum(j.value is not None for j in inside)
        conversions[s] = float(won)
        rate[s] = won / len(inside) if inside else 0.0
    return conversions, rate


@pytest.fixture(scope="module")
def journeys() -> list[Journey]:
    return simulate(np.random.default_rng(11), CHANNELS, 4000)


def test_conversions_game(journeys: list[Journey]) -> None:
    expected = by_arrival(games(journeys)[0])
    found = {c.channel: c.mean for c in credits([release_of(exact_table(journeys, CHANNELS))], CHANNELS)
             if (c.model, c.metric) == ("shapley", "conversions")}  # fmt: skip
    for channel in CHANNELS:
        assert found[channel] == pytest.approx(expected[channel], rel=1e-9)
    # Zhao et al. 2018: the same as sharing each conversion equally between its distinct channels
    linear = dict.fromkeys(CHANNELS, 0.0)
    for j in journeys:
        for c in set(j.path) if j.value is not None else ():
            linear[c] += 1 / len(set(j.path))
    assert found["mail"] == pytest.approx(linear["mail"], rel=1e-9)


def test_it_is_the_same_from_channel_by_number_of_distinct_channels(journeys: list[Journey]) -> None:
    """What is released above ten channels."""
    full, short = (
        read_journeys(release_of(exact_table(journeys, CHANNELS, by_size=b)), CHANNELS).sets for b in (False, True)
    )
    assert full is not None and short is not None and full.full and not short.full
    np.testing.assert_allclose(
        conversion_matrix(full) @ full.cells.value, conversion_matrix(short) @ short.cells.value, rtol=1e-12
    )
    with pytest.raises(ContractError, match="needs every set of channels, which is released up to 10 channels"):
        rate_shares(short, 4, short.cells.value)


def test_rate_game(journeys: list[Journey]) -> None:
    expected = by_arrival(games(journeys)[1])
    sets = read_journeys(release_of(exact_table(journeys, CHANNELS)), CHANNELS).sets
    assert sets is not None
    total = sum(expected.values())
    found = rate_shares(sets, 4, sets.cells.value)
    np.testing.assert_allclose(found, [expected[c] / total for c in CHANNELS], rtol=1e-9)


def test_non_converting_journeys_matter_to_the_rate_game_only(journeys: list[Journey]) -> None:
    more = [*journeys, *[Journey(("video",), None)] * 3000]
    tables = [release_of(exact_table(j, CHANNELS)) for j in (journeys, more)]
    found = [
        {(c.model, c.channel): c.mean for c in credits([t], CHANNELS, models=("shapley", "shapley_rate"))
         if c.metric == "conversions"} for t in tables
    ]  # fmt: skip
    assert found[0]["shapley", "video"] == pytest.approx(found[1]["shapley", "video"])
    assert found[1]["shapley_rate", "video"] < found[0]["shapley_rate", "video"] - 1


@pytest.mark.parametrize("n", [1, 2, 5, 10])
def test_weights_share_the_worth_of_all(n: int) -> None:
    weights = shapley_weights(n)
    worth = np.random.default_rng(n).normal(size=2**n)
    assert (weights @ worth).sum() == pytest.approx(worth[-1] - worth[0])


def test_subset_sums() -> None:
    values = np.arange(8.0)
    found = subset_sums(values, 3)
    for s in range(8):
        assert found[s] == sum(values[t] for t in range(8) if t & s == t)


def test_a_set_that_the_channels_do_not_make_is_refused(journeys: list[Journey]) -> None:
    table = exact_table(journeys, CHANNELS)
    table.loc[table["channels"] == "search+mail", "channels"] = "search+post"
    with pytest.raises(ContractError, match=r"channel set 'search\+post', which its channels do not make"):
        credits([release_of(pd.DataFrame(table))], CHANNELS)
