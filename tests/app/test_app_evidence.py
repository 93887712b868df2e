"""View models of Reconcile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import app_sample_warehouse as sample
import pandas as pd
import pytest

from app import evidence, tables
from app.store import Snapshot

Read = Callable[[str], Snapshot]


def test_periods_are_newest_first(snapshot: Read) -> None:
    found = evidence.periods(snapshot("full"))
    assert len(found) == 6
    assert found[0].label == "2026-04-06 to 2026-07-05"
    assert list(found) == sorted(found, reverse=True)


def test_without_factors_the_period_is_the_workspaces(snapshot: Read) -> None:
    (period,) = evidence.periods(snapshot("aggregate_only"))
    assert period.label == "2025-01-06 to 2026-07-05"
    assert evidence.periods(snapshot("empty"))[0] == period


def test_sources_stand_on_one_scale_from_answer_to_description(snapshot: Read) -> None:
    s = snapshot("one_period")
    (period,) = evidence.periods(s)
    rows = evidence.sources(s, "search", period)
    assert list(dict.fromkeys(rows["family"])) == ["pooled", "model", "lift", "credit"]
    by_name = rows.set_index("source")["mean"]
    c = sample.CHANNELS.index("search")
    true = sample.world().draws[..., c].sum(axis=(1, 2)).mean()
    assert by_name["pooled"] == pytest.approx(true)
    assert by_name["MMM, calibrated"] == pytest.approx(true)
    assert by_name["credit, last touch"] == pytest.approx(2.1 * true)
    # The test's own ratio is that of its weeks and geos; over the period it must come near, not hit.
    assert by_name["test search_dark_spring"] == pytest.approx(true, rel=0.25)
    assert (rows["p05"] <= rows["mean"]).all()
    assert (rows["mean"] <= rows["p95"]).all()


def test_spend_of_the_whole_period_is_exact_where_revenue_is_known(snapshot: Read) -> None:
    s = snapshot("one_period")
    (period,) = evidence.periods(s)
    spend, basis = evidence.period_spend(s, "search", period)
    assert spend == pytest.approx(sample.world().spend[..., 1].sum())
    assert basis == "spend of the period"


def test_spend_of_a_quarter_is_current_spend_and_says_so(snapshot: Read) -> None:
    s = snapshot("full")
    spend, basis = evidence.period_spend(s, "search", evidence.periods(s)[0])
    assert spend == pytest.approx(13 * sample.world().response.current_spend[:, 1].sum())
    assert basis == "current spend per week × 13"
    assert evidence.period_spend(replace(s, surface=None), "search", evidence.periods(s)[0]) == (None, "")


def test_spend_comes_from_the_current_scenario_of_the_same_period(snapshot: Read) -> None:
    s = snapshot("full")
    row = s.scenarios[s.scenarios["scenario"] == "current"].iloc[0]
    period = evidence.Period(pd.Timestamp(row["period_start"]), pd.Timestamp(row["period_end"]))
    assert evidence.period_spend(s, row["channel"], period) == (row["spend"], "spend of the period")


def test_a_quarters_model_row_adds_its_weeks(snapshot: Read) -> None:
    s = snapshot("full")
    period = evidence.periods(s)[0]
    rows = evidence.sources(s, "tv", period).set_index("source")
    c = sample.CHANNELS.index("tv")
    assert rows.loc["MMM, calibrated", "mean"] == pytest.approx(
        sample.world().draws[:, :, 65:, c].sum(axis=(1, 2)).mean()
    )


def test_a_test_without_spend_change_is_named_apart(snapshot: Read) -> None:
    s = snapshot("full")
    assert evidence.unscaled_tests(s, "retargeting") == "retargeting_holdout"
    assert "lift" not in set(evidence.sources(s, "retargeting", evidence.periods(s)[0])["family"])


def test_flags_are_one_line_a_channel_and_reason(snapshot: Read) -> None:
    s = snapshot("full")
    period = evidence.periods(s)[0]
    assert evidence.flags(s, period) == [
        "retargeting (last touch): credit is over twice what tests and model support",
        "search (last touch): credit is over twice what tests and model support",
    ]


def test_a_factor_that_must_not_be_printed_says_why(snapshot: Read) -> None:
    s = snapshot("full")
    table = tables.factors(s, evidence.periods(s)[0])
    cell = table[(table["channel"] == "tv") & (table["credit model"] == "last touch")].iloc[0]
    assert cell["factor (90 % interval)"] == "not printed: the credit's interval holds 0"


def test_tests_table_is_signed(snapshot: Read) -> None:
    table = tables.tests(snapshot("full")).set_index("test")
    assert table.loc["search_dark_spring", "effect (90 % interval)"].startswith("−208")
    assert table.loc["search_dark_spring", "spend change, EUR"].startswith("−")
    assert table.loc["retargeting_holdout, arm treated", "spend change, EUR"] == "–"


@pytest.mark.parametrize("variant", ["aggregate_only", "no_experiments", "empty"])
def test_nothing_breaks_where_sources_are_missing(snapshot: Read, variant: str) -> None:
    s = snapshot(variant)
    period = evidence.periods(s)[0]
    rows = evidence.sources(s, "search", period)
    assert "lift" not in set(rows["family"])
    assert list(rows.columns) == ["source", "family", "mean", "p05", "p95", "note"]
    assert len(tables.tests(s)) == 0


def test_a_period_with_factors_comes_before_newer_credit_alone(snapshot: Read) -> None:
    s = snapshot("full")
    whole = s.incrementality.assign(period_start=pd.Timestamp("2023-01-02"), period_end=pd.Timestamp("2024-12-29"))
    found = evidence.periods(replace(s, incrementality=whole))
    assert found[0] == evidence.Period(pd.Timestamp("2023-01-02"), pd.Timestamp("2024-12-29"))
    assert len(found) > 1


def test_credit_of_the_whole_period_is_the_sum_of_its_quarters(snapshot: Read) -> None:
    s = snapshot("full")
    quarters = evidence.periods(s)
    whole = evidence.Period(quarters[-1].start, quarters[0].end)
    rows = evidence.sources(s, "search", whole)
    shown = rows[rows["family"] == "credit"].set_index("source")["mean"]
    mine = s.credit[(s.credit["channel"] == "search") & (s.credit["metric"] == s.meta.kpi)]
    assert shown["credit, last touch"] == pytest.approx(mine[mine["model"] == "last_touch"]["mean"].sum())
    one = evidence.sources(s, "search", quarters[0])
    assert one[one["family"] == "credit"]["mean"].sum() < shown.sum()
