"""Position weights, and rules that were worked out person by person before the release."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journey_worlds import exact_table, release_of, simulate, with_noise

from attribution.credit import credits, estimates
from attribution.definitions import definition
from attribution.rules import PositionWeights, position_weights
from attribution.tables import Cells, PositionTable
from contracts.errors import ContractError
from contracts.release import Release

CHANNELS = ("search", "social", "video")
BLOCK = "quarter-2024-01-01"


def _table(length: int) -> PositionTable:
    cells = Cells(np.ones(length), np.zeros(length))
    return PositionTable(cells, np.zeros(length, int), np.arange(1, length + 1), np.full(length, length))


@pytest.mark.parametrize(
    ("weights", "length", "expected"),
    [
        (PositionWeights(), 1, [1.0]),
        (PositionWeights(), 2, [0.5, 0.5]),
        (PositionWeights(), 4, [0.4, 0.1, 0.1, 0.4]),
        (PositionWeights(0.6, 0.2, 0.2), 2, [0.75, 0.25]),
        (PositionWeights(0.0, 1.0, 0.0), 2, [0.5, 0.5]),
        (PositionWeights(0.0, 1.0, 0.0), 3, [0.0, 1.0, 0.0]),
        (PositionWeights(1.0, 0.0, 1.0), 3, [0.5, 0.0, 0.5]),
    ],
)
def test_position_weights(weights: PositionWeights, length: int, expected: list[float]) -> None:
    np.testing.assert_allclose(position_weights(_table(length), weights), expected)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(0, 1)] * 3).filter(lambda w: sum(w) > 0.01), st.integers(1, 12))
def test_the_weights_of_a_journey_sum_to_one(parts: tuple[float, float, float], length: int) -> None:
    assert position_weights(_table(length), PositionWeights(*parts)).sum() == pytest.approx(1.0)


def test_weights_of_zero_are_refused() -> None:
    with pytest.raises(ContractError, match="position_based has only weights of 0"):
        PositionWeights(0, 0, 0)


def rule_table(sd: float, rng: np.random.Generator, scale: float = 1.0) -> pd.DataFrame:
    """Two rules of conversions and one of revenue, and a clipped mass that no reader may sum in."""
    truth = {"time_decay:conversions": (300, 500, 100, 250), "mine:conversions": (420, 400, 80, 250),
             "mine:revenue": (8000, 9000, 1500, 6000)}  # fmt: skip
    rows = []
    for vector, cells in truth.items():
        model, metric = vector.split(":")
        noise = sd * (20 if metric == "revenue" else 1)
        for channel, value in zip((*CHANNELS, "unattributed"), cells, strict=True):
            noisy = scale * value + noise * rng.standard_normal()
            rows.append({"vector": vector, "model": model, "channel": channel, "metric": metric, "value": noisy,
                         "variance": noise**2})  # fmt: skip
        rows.append({"vector": f"clipped:{vector}", "model": model, "channel": "", "metric": f"clipped:{metric}",
                     "value": 9e6, "variance": 1.0})  # fmt: skip
    return pd.DataFrame(rows)


def _rules(sd: float = 0.0, seed: int = 0, scale: float = 1.0) -> Release:
    return release_of(rule_table(sd, np.random.default_rng(seed), scale), measure="credit")


def test_alone_exact_rules_are_returned_as_they_are() -> None:
    found = {(c.model, c.metric, c.channel): c for c in credits([_rules()], CHANNELS)}
    assert found["time_decay", "conversions", "social"].mean == pytest.approx(500)
    assert found["mine", "revenue", "unattributed"].mean == pytest.approx(6000)
    assert len(found) == 12 and all(c.sd == pytest.approx(0, abs=1e-9) for c in found.values())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 5000), st.booleans())
def test_all_models_of_a_period_have_one_total(seed: int, with_journeys: bool) -> None:
    rng = np.random.default_rng(seed)
    releases = [_rules(9.0, seed)]
    if with_journeys:
        table = exact_table(simulate(np.random.default_rng(3), CHANNELS, 1500), CHANNELS)
        noise = {"flow": 9.0, "position": 6.0, "position_value": 200.0, "sets": 8.0}
        releases.append(release_of(with_noise(table, noise, rng)))
    sums: dict[str, list[float]] = {}
    for e in estimates(releases, CHANNELS, draws=100, seed=1):
        assert e.mean.sum() == pytest.approx(sum(r["mean"] for r in e.intervals))
        sums.setdefault(e.metric, []).append(float(e.mean.sum()))
    for found in sums.values():
        np.testing.assert_allclose(found, found[0], rtol=1e-9)


def test_journeys_of_other_days_give_no_total() -> None:
    table = exact_table(simulate(np.random.default_rng(3), CHANNELS, 1500), CHANNELS)
    other = release_of(table, block="quarter-2024-04-01")
    found = [c for c in credits([_rules(), other], CHANNELS, draws=100) if c.model == "time_decay"]
    assert sum(c.mean for c in found if c.metric == "conversions") == pytest.approx(1150)


def test_intervals_of_rules_cover() -> None:
    """60 releases x 12 intervals; 90 % within four standard errors of dependent intervals."""
    truth = {(c.model, c.metric, c.channel): c.mean for c in credits([_rules()], CHANNELS)}
    held = [
        c.p05 <= truth[c.model, c.metric, c.channel] <= c.p95
        for seed in range(60)
        for c in credits([_rules(9.0, seed)], CHANNELS)
    ]
    assert 0.85 <= np.mean(held) <= 0.95


def test_refusals() -> None:
    with pytest.raises(ContractError, match="credit release 'credit-quarter-2024-01-01' tracks channel 'video'"):
        credits([_rules()], CHANNELS[:2])
    table = rule_table(0.0, np.random.default_rng(0))
    short = table[~((table["channel"] == "video") & (table["model"] == "mine"))]
    with pytest.raises(ContractError, match="lacks 'video' in one of its rules"):
        credits([release_of(short, measure="credit")], CHANNELS)
    with pytest.raises(ContractError, match="credit releases .* cover the same days"):
        credits([_rules(), _rules()], CHANNELS)


def test_definitions_say_the_parameters() -> None:
    spec = {
        "credit": {
            "lookback_days": 30, "max_touches": 20, "path": "first_of_run",
            "rules": {"mine": {"kind": "time_decay", "half_life_days": 3.5, "weights_by_age": []}},
        }
    }  # fmt: skip
    release = Release("r", "credit", BLOCK, *(_rules().block_start, _rules().block_end), _rules().table, (), 0.1, 1.0,
                      1e-6, {"spec": spec})  # fmt: skip
    assert definition("mine", release) == (
        "a touch weighs half for every 3.5 days before the conversion; the last 20 touches; 30 days of look-back; "
        "runs of one channel count once, by their first touch"
    )
    assert definition("position_based", None, PositionWeights(0.5, 0.25, 0.25)) == "0.5 first, 0.25 between, 0.25 last"
    assert "what the platforms claim" in definition("platform_claimed", None)
