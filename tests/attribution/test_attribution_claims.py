"""Platform claims as a credit model: exact, restated by as-of date, split over periods by days; cost beside credit."""

from __future__ import annotations

import math
from datetime import date

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution.claims import COLUMNS, claimed_credits, covered, newest, restated, within
from attribution.costs import cost_columns
from attribution.parity import over_claimed
from contracts.errors import ContractError
from contracts.evidence import Credit
from contracts.intervals import normal_interval

QUARTER = (date(2024, 1, 1), date(2024, 3, 31))
NEXT = (date(2024, 4, 1), date(2024, 6, 30))


def claims(*rows: tuple[object, ...]) -> pd.DataFrame:
    """(platform, channel, start, end, conversions, revenue, spend, as_of)."""
    full = [(p, c, "", "", s, e, float(n), float(v), float(x), a) for p, c, s, e, n, v, x, a in rows]  # type: ignore[arg-type]
    return pd.DataFrame(full, columns=list(COLUMNS))


WHOLE = claims(
    ("google", "search", *QUARTER, 700, 9000, 300, None),
    ("meta", "social", *QUARTER, 500, 4000, 200, None),
)


def test_claims_above_all_sales_show_as_a_negative_rest() -> None:
    found = claimed_credits(WHOLE, {("conversions", QUARTER): (1000.0, 12.0)}, "claims:1")
    assert {c.channel: c.mean for c in found} == {"search": 700, "social": 500, "unattributed": -200}
    assert [c.sd for c in found] == [0, 0, 12] and {c.evidence_ids for c in found} == {("claims:1",)}
    (over,) = over_claimed(found, "platform_claimed")
    assert (over.value, over.status, over.text) == (1.2, "warn", "platforms claim 120% of all conversions")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6), st.floats(-100, 1e6))
def test_claims_and_the_rest_sum_to_the_total(amounts: list[float], total: float) -> None:
    rows = [("p", f"c{i}", *QUARTER, a, a, 1, None) for i, a in enumerate(amounts)]
    found = claimed_credits(claims(*rows), {("revenue", QUARTER): (total, 1.0)}, "x")
    assert sum(c.mean for c in found) == pytest.approx(total, abs=1e-6)


def test_the_newest_as_of_counts_and_older_ones_can_be_asked_for() -> None:
    early, late = date(2024, 4, 2), date(2024, 5, 2)
    both = claims(
        ("google", "search", *QUARTER, 700, 9000, 300, early), ("google", "search", *QUARTER, 760, 9500, 300, late),
    )  # fmt: skip
    totals = {("conversions", QUARTER): (1000.0, 0.0)}
    assert claimed_credits(both, totals, "x")[0].mean == 760
    assert claimed_credits(both, totals, "x", as_of=early)[0].mean == 700
    history = restated(both, QUARTER, "conversions")
    assert list(history["value"]) == [700, 760] and list(history["as_of"]) == [early, late]


def test_a_row_over_the_edge_is_split_by_days() -> None:
    across = claims(("google", "search", date(2024, 3, 22), date(2024, 4, 10), 200, 2000, 100, None))
    assert within(across, QUARTER, ["channel"])["conversions"].tolist() == [pytest.approx(100)]
    assert within(across, NEXT, ["channel"])["spend"].tolist() == [pytest.approx(50)]


def test_a_period_that_an_export_does_not_cover_is_left_out() -> None:
    half = claims(
        ("google", "search", *QUARTER, 700, 9000, 300, None),
        ("meta", "social", date(2024, 2, 1), date(2024, 3, 31), 500, 4000, 200, None),
    )
    assert not covered(half, QUARTER) and not covered(half.iloc[:0], QUARTER) and covered(WHOLE, QUARTER)
    assert claimed_credits(half, {("conversions", QUARTER): (1000.0, 0.0)}, "x") == ()
    nothing = WHOLE.assign(revenue=math.nan)
    assert claimed_credits(nothing, {("revenue", QUARTER): (1000.0, 0.0)}, "x") == ()


def test_what_would_count_twice_is_refused() -> None:
    twice = claims(*[("google", "search", *QUARTER, 700, 9000, 300, None)] * 2)
    with pytest.raises(ContractError, match="google/search for 2024-01-01 to 2024-03-31 stand twice; keep one row"):
        newest(twice)
    overlap = claims(
        ("google", "search", *QUARTER, 700, 9000, 300, None),
        ("google", "search", date(2024, 3, 31), date(2024, 3, 31), 9, 90, 3, None),
    )
    with pytest.raises(ContractError, match="google/search for 2024-03-31 to 2024-03-31 overlap"):
        newest(overlap)
    with pytest.raises(ContractError, match="platform claims are of conversions and revenue; got 'clicks'"):
        claimed_credits(WHOLE, {("clicks", QUARTER): (1.0, 0.0)}, "x")


def credit(metric: str, mean: float, sd: float) -> Credit:
    return Credit("linear", "search", metric, *QUARTER, evidence_ids=("r",), **normal_interval(mean, sd))  # type: ignore[arg-type]


def test_cost_per_credit_and_return() -> None:
    cpa = cost_columns(credit("conversions", 100, 10), 500.0)
    assert cpa["cpa"] == 5 and cpa["cpa_p05"] == pytest.approx(500 / 116.4485, rel=1e-4)
    assert cpa["cpa_p05"] < cpa["cpa"] < cpa["cpa_p95"] and math.isnan(cpa["roas"])
    roas = cost_columns(credit("revenue", 2000, 100), 500.0)
    assert roas["roas"] == 4 and roas["roas_p95"] == pytest.approx(2164.485 / 500, rel=1e-4) and math.isnan(roas["cpa"])


@pytest.mark.parametrize(
    ("metric", "mean", "spend"), [("conversions", 5, 500.0), ("revenue", 100, 0.0), ("conversions", 100, None)]
)
def test_where_there_is_no_ratio_there_is_no_number(metric: str, mean: float, spend: float | None) -> None:
    found = cost_columns(credit(metric, mean, 10), spend)
    assert all(math.isnan(found[n]) for n in ("cpa", "cpa_p05", "cpa_p95", "roas", "roas_p05", "roas_p95"))
    assert math.isnan(found["spend"]) is (spend is None)
