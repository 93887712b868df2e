"""One total per period, and its gap to the KPI table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from journey_worlds import exact_table, release_of, simulate, with_noise

from attribution.tables import read_journeys
from attribution.totals import all_sums, gap_to_kpi, precision_weights, reconciled_total
from contracts.errors import ContractError

CHANNELS = ("a", "b", "c")
NOISE = {"flow": 10.0, "position": 6.0, "position_value": 100.0, "sets": 14.0}


@pytest.mark.parametrize("by_size", [False, True])
def test_every_table_says_the_same_when_exact(by_size: bool) -> None:
    journeys = simulate(np.random.default_rng(0), CHANNELS, 1500)
    release = release_of(exact_table(journeys, CHANNELS, by_size=by_size))
    won = [j for j in journeys if j.value is not None]
    bare = sum(not j.path for j in won)
    for sums in all_sums(read_journeys(release, CHANNELS)):
        assert sums.touched == pytest.approx(len(won) - bare), sums.table
        assert sums.untouched == bare, sums.table
    assert reconciled_total(release) == (pytest.approx(len(won)), 0.0)


def test_total_is_unbiased_with_the_stated_sd_and_better_than_any_table() -> None:
    journeys = simulate(np.random.default_rng(1), CHANNELS, 1500)
    table = exact_table(journeys, CHANNELS)
    truth = sum(j.value is not None for j in journeys)
    found = [reconciled_total(release_of(with_noise(table, NOISE, np.random.default_rng(s)))) for s in range(300)]
    means, sds = np.array(found).T
    assert abs(means.mean() - truth) < 4 * sds[0] / np.sqrt(300)
    assert means.std() == pytest.approx(sds[0], rel=0.2)
    release = release_of(with_noise(table, NOISE, np.random.default_rng(0)))
    for sums in all_sums(read_journeys(release, CHANNELS)):
        assert sds[0] ** 2 < sums.touched_variance + sums.untouched_variance


def test_precision_weights() -> None:
    np.testing.assert_allclose(precision_weights(np.array([1.0, 4.0])), [0.8, 0.2])
    np.testing.assert_allclose(precision_weights(np.array([0.0, 4.0, 0.0])), [0.5, 0.0, 0.5])


def test_gap_to_the_kpi_table_in_sd() -> None:
    journeys = simulate(np.random.default_rng(1), CHANNELS, 1500)
    release = release_of(with_noise(exact_table(journeys, CHANNELS), NOISE, np.random.default_rng(3)))
    mean, sd = reconciled_total(release)
    rows = {"vector": "conversions", "geo": "x", "week": "2024-01-01", "metric": ["conversions", "revenue"]}
    kpi = release_of(pd.DataFrame(rows | {"value": [mean - 50.0, 9e9], "variance": [20.0**2, 1.0]}), measure="kpi")
    gap = gap_to_kpi(release, kpi)
    assert (gap.gap, gap.sd) == (pytest.approx(50.0), pytest.approx(np.hypot(20.0, sd)))
    assert gap.in_sd == pytest.approx(50.0 / np.hypot(20.0, sd))
    with pytest.raises(ContractError, match="compare releases of one block"):
        gap_to_kpi(release, replace(kpi, block="quarter-2024-04-01"))
    with pytest.raises(ContractError, match="holds no rows of metric 'conversions'"):
        gap_to_kpi(release, release)
