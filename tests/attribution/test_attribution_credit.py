"""Credit from released tables: equal to a count per journey when exact, efficient always, covering under noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journey_worlds import exact_table, plain_credit, release_of, simulate, with_noise

from attribution.credit import EVERY, MODELS, credits
from attribution.statistics import credit_draws, credit_moments, statistics_of
from attribution.tables import Cells, Journeys, read_journeys
from contracts.errors import ContractError
from contracts.evidence import Credit

CHANNELS = ("search", "social", "video", "mail")
NOISE = {"flow": 12.0, "position": 8.0, "position_value": 300.0, "sets": 10.0}


def _table(seed: int = 0, n: int = 3000, channels: tuple[str, ...] = CHANNELS) -> pd.DataFrame:
    return exact_table(simulate(np.random.default_rng(seed), channels, n), channels)


def _of(found: tuple[Credit, ...], model: str, metric: str) -> dict[str, Credit]:
    return {c.channel: c for c in found if (c.model, c.metric) == (model, metric)}


@pytest.mark.parametrize("rule", ["last_touch", "first_touch", "linear"])
@pytest.mark.parametrize("metric", ["conversions", "revenue"])
@pytest.mark.parametrize("sd", [0.0, 1e-6])
def test_rules_equal_a_count_per_journey(rule: str, metric: str, sd: float) -> None:
    journeys = simulate(np.random.default_rng(3), CHANNELS, 2000)
    table = exact_table(journeys, CHANNELS)
    table["variance"] = sd**2
    found = _of(credits([release_of(table)], CHANNELS, seed=1), rule, metric)
    for channel, expected in plain_credit(journeys, CHANNELS, rule, metric).items():
        assert found[channel].mean == pytest.approx(expected, abs=1e-6)
        assert found[channel].sd == pytest.approx(0.0, abs=1e-3)


def test_markov_equals_the_share_of_conversions_lost() -> None:
    journeys = simulate(np.random.default_rng(5), CHANNELS, 4000)
    found = _of(credits([release_of(exact_table(journeys, CHANNELS))], CHANNELS, seed=1), "markov", "conversions")
    won = [j for j in journeys if j.value is not None]
    assert found["unattributed"].mean == sum(not j.path for j in won)
    assert sum(c.mean for c in found.values()) == pytest.approx(len(won))
    # On first-order data a removal effect is near the share of conversions that the channel touched.
    touched = np.array([sum(c in j.path for j in won) for c in CHANNELS], float)
    seen = np.array([found[c].mean for c in CHANNELS])
    np.testing.assert_allclose(seen / seen.sum(), touched / touched.sum(), atol=0.03)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(EVERY), st.sampled_from(["conversions", "revenue"]))
def test_credits_sum_to_one_total_in_the_mean_and_in_every_draw(seed: int, model: str, metric: str) -> None:
    rng = np.random.default_rng(seed)
    release = release_of(with_noise(_table(), NOISE, rng))
    journeys = read_journeys(release, CHANNELS)
    base = statistics_of(journeys, "last_touch", metric).credit  # type: ignore[arg-type]
    total = base(statistics_of(journeys, "last_touch", metric).value).sum()  # type: ignore[arg-type]
    statistics = statistics_of(journeys, model, metric)  # type: ignore[arg-type]
    mean, covariance = credit_moments(statistics)
    assert mean.sum() == pytest.approx(total, rel=1e-9)
    drawn = credit_draws(statistics, 200, np.random.default_rng(seed))
    assert drawn.mean(axis=0).sum() == pytest.approx(total, rel=1e-9)
    # The total is linear in the cells, so its variance is the same whatever the model.
    _, reference = credit_moments(statistics_of(journeys, "first_touch", metric))  # type: ignore[arg-type]
    assert covariance.sum() == pytest.approx(reference.sum(), rel=1e-6)
    assert drawn.sum(axis=1).std() == pytest.approx(np.sqrt(reference.sum()), rel=0.3)


def test_published_rows_sum_to_the_reconciled_total() -> None:
    release = release_of(with_noise(_table(), NOISE, np.random.default_rng(1)))
    found = credits([release], CHANNELS, seed=7)
    for metric in ("conversions", "revenue"):
        sums = [sum(c.mean for c in _of(found, model, metric).values()) for model in MODELS]
        np.testing.assert_allclose(sums, sums[0], rtol=1e-9)
        left = [_of(found, model, metric)["unattributed"].mean for model in MODELS]
        np.testing.assert_allclose(left, left[0], rtol=1e-9)


def _coverage(runs: int, n: int) -> tuple[dict[str, list[bool]], np.ndarray]:
    """Per model: whether each 90 % interval held the exact credit; and (estimate − truth) / sd of Markov."""
    table = _table(seed=9, n=n)
    truth = credits([release_of(table)], CHANNELS, seed=0)
    held: dict[str, list[bool]] = {m: [] for m in MODELS}
    scaled = []
    for seed in range(runs):
        noisy = release_of(with_noise(table, NOISE, np.random.default_rng([seed, 4])))
        for exact, found in zip(truth, credits([noisy], CHANNELS, draws=400, seed=seed), strict=True):
            held[found.model].append(found.p05 <= exact.mean <= found.p95)
            if (found.model, found.metric) == ("markov", "conversions") and found.channel != "unattributed":
                scaled.append((found.mean - exact.mean) / found.sd)
    return held, np.array(scaled)


def test_intervals_cover_under_released_noise() -> None:
    """40 releases × 40 intervals. Intervals of one release are dependent; 84-96 % leaves four standard errors."""
    held, scaled = _coverage(40, 6000)
    assert 0.86 <= np.mean([h for model in held.values() for h in model]) <= 0.94
    for model, hits in held.items():
        assert 0.84 <= np.mean(hits) <= 0.96, model
    assert abs(scaled.mean()) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("n", [1500, 20_000])
def test_intervals_cover_on_400_releases(n: int) -> None:
    """Small journeys counts (noise near the size of the rows) and large ones."""
    held, scaled = _coverage(400, n)
    for model, hits in held.items():
        assert 0.87 <= np.mean(hits) <= 0.93, model
    assert abs(scaled.mean()) < 0.15


def test_ignoring_the_noise_does_not_cover() -> None:
    table = _table(seed=9, n=6000)
    truth = {(c.model, c.metric, c.channel): c.mean for c in credits([release_of(table)], CHANNELS, seed=0)}
    noisy = with_noise(table, NOISE, np.random.default_rng(2))
    noisy["variance"] = 1e-6
    found = credits([release_of(noisy)], CHANNELS, seed=0)
    held = [c.p05 <= truth[c.model, c.metric, c.channel] <= c.p95 for c in found]
    assert np.mean(held) < 0.2


def test_each_release_is_credited_alone_and_again_the_same() -> None:
    first = release_of(with_noise(_table(1), NOISE, np.random.default_rng(1)))
    second = release_of(with_noise(_table(2), NOISE, np.random.default_rng(2)), block="quarter-2024-04-01")
    both = credits([first, second], CHANNELS, seed=3)
    assert both == credits([first], CHANNELS, seed=3) + credits([second], CHANNELS, seed=3)
    assert {c.period_start for c in both} == {first.block_start, second.block_start}
    assert {c.evidence_ids for c in both} == {(first.release_id,), (second.release_id,)}
    with pytest.raises(ContractError, match="cover the same days"):
        credits([first, first], CHANNELS, seed=3)


def test_channels_without_journeys_get_no_row() -> None:
    found = credits([release_of(_table())], ("tv", *CHANNELS), seed=0)
    assert {c.channel for c in found} == {*CHANNELS, "unattributed"}


def test_without_currency_sums_there_is_no_revenue_credit() -> None:
    table = _table()
    found = credits([release_of(table[table["vector"] != "position_value"])], CHANNELS, seed=0)
    assert {c.metric for c in found} == {"conversions"}


def test_refusals_say_what_to_do() -> None:
    table = _table()
    with pytest.raises(ContractError, match="tracks channel 'mail', which is not declared"):
        credits([release_of(table)], CHANNELS[:3], seed=0)
    with pytest.raises(ContractError, match="holds 'kpi'; credit reads 'journeys'"):
        credits([replace(release_of(table), measure="kpi")], CHANNELS, seed=0)
    with pytest.raises(ContractError, match="has no vector 'flow'"):
        credits([release_of(table[table["vector"] != "flow"])], CHANNELS, seed=0)
    with pytest.raises(ContractError, match="too few to credit. Give journeys more rho"):
        credits([release_of(with_noise(table, dict.fromkeys(NOISE, 5000.0), np.random.default_rng(0)))], CHANNELS)
    with pytest.raises(ContractError, match="draws must be at least 100"):
        credits([release_of(table)], CHANNELS, draws=5)
    with pytest.raises(ContractError, match="unknown credit model 'best'"):
        credits([release_of(table)], CHANNELS, models=("best",))
    broken = table.copy()
    broken.loc[(broken["channel"] == "mail") & (broken["position"] == 2), "position"] = 9
    with pytest.raises(ContractError, match="positions run from 1 to the length"):
        credits([release_of(broken)], CHANNELS)


@pytest.mark.parametrize(
    ("model", "metric"), [("linear", "conversions"), ("linear", "revenue"), ("shapley", "conversions")]
)
def test_the_covariance_knows_that_a_rule_and_its_own_total_read_the_same_cells(model: str, metric: str) -> None:
    """Against 4,000 draws of the released cells: the joint spread of raw credit and the table's own sums."""
    journeys = read_journeys(release_of(with_noise(_table(), NOISE, np.random.default_rng(0))), CHANNELS)
    found = statistics_of(journeys, model, metric).covariance
    np.testing.assert_allclose(found, found.T)
    rng, rows = np.random.default_rng(1), []
    for _ in range(4000):
        rows.append(_redrawn(journeys, model, metric, rng))
    seen = np.cov(np.array(rows), rowvar=False)
    scale = np.sqrt(np.outer(np.diag(found), np.diag(found)))
    np.testing.assert_allclose(seen / scale, found / scale, atol=0.1)  # 6 standard errors of a correlation


def _redrawn(journeys: Journeys, model: str, metric: str, rng: np.random.Generator) -> np.ndarray:
    def noisy(cells: Cells) -> Cells:
        return replace(cells, value=cells.value + np.sqrt(cells.variance) * rng.standard_normal(cells.value.shape))

    assert journeys.position_value is not None and journeys.sets is not None
    again = replace(
        journeys,
        flow=replace(journeys.flow, cells=noisy(journeys.flow.cells)),
        position=replace(journeys.position, cells=noisy(journeys.position.cells)),
        position_value=replace(journeys.position_value, cells=noisy(journeys.position_value.cells)),
        sets=replace(journeys.sets, cells=noisy(journeys.sets.cells)),
    )
    return statistics_of(again, model, metric).value
