"""View models of the Overview, and its story."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import app_sample_warehouse as sample
import numpy as np
import pandas as pd
import pytest

from app import figures, story, tables
from app.store import Snapshot

Read = Callable[[str], Snapshot]


def test_kpi_total_is_the_sum_of_the_cells_of_the_projects_kpi(snapshot: Read) -> None:
    total = figures.kpi_total(snapshot("full"))
    assert total is not None
    assert total.mean == pytest.approx(sample.world().kpi.sum())
    assert total.p95 - total.mean == pytest.approx(1.645 * 12 * np.sqrt(12 * 78), rel=1e-3)
    assert figures.kpi_noise(snapshot("full")) == "released noise: ± 600 (90 %)"
    assert figures.kpi_noise(snapshot("aggregate_only")) == "exact: no noise was added"


def test_incremental_total_adds_means_and_joins_intervals_by_correlation(snapshot: Read) -> None:
    total = figures.incremental_total(snapshot("full"))
    assert total is not None
    draws = sample.world().draws.sum(axis=(1, 2, 3))
    assert total.amount.mean == pytest.approx(draws.mean())
    low, high = np.quantile(draws, (0.05, 0.95))
    assert total.amount.p05 == pytest.approx(low, rel=0.05)
    assert total.amount.p95 == pytest.approx(high, rel=0.05)
    assert total.share is not None
    assert total.share.mean == pytest.approx(draws.mean() / sample.world().kpi.sum())


def test_without_draws_the_total_takes_the_widest_interval_and_says_so(snapshot: Read) -> None:
    s = snapshot("full")
    joined, widest = figures.incremental_total(s), figures.incremental_total(replace(s, surface=None))
    assert joined is not None
    assert widest is not None
    assert widest.amount.p95 - widest.amount.mean == pytest.approx(
        figures.Z90 * figures.effect(s, "incremental_kpi")["sd"].sum()
    )
    assert widest.amount.p95 > joined.amount.p95
    assert "widest" in widest.basis


def test_channel_rows_hold_what_the_warehouse_holds(snapshot: Read) -> None:
    s = snapshot("full")
    rows = {r.channel: r for r in figures.channel_rows(s)}
    assert list(rows) == sorted(rows, key=lambda c: -rows[c].incremental.mean)
    search = rows["search"]
    c = sample.CHANNELS.index("search")
    assert search.spend == pytest.approx(sample.world().response.current_spend[:, c].sum())
    assert search.credit is not None
    assert search.credit.mean == pytest.approx(2.1 * search.incremental.mean)
    assert search.factor is not None
    assert search.factor.mean == pytest.approx(1 / 2.1)
    assert search.change == pytest.approx(-0.2)
    assert search.roi is not None
    assert rows["tv"].factor is None, "a factor that must not be printed is not printed"


def test_cost_is_spend_over_outcome_and_the_next_unit_costs_more(snapshot: Read) -> None:
    s = snapshot("full")
    assert s.response is not None
    costs = figures.cost_per_kpi(s.response)
    now = s.response.current_spend
    caused = s.response.evaluate(now).sum(axis=1)
    for c, channel in enumerate(s.response.channels):
        average, marginal = costs[channel]
        assert average is not None
        assert marginal is not None
        assert average.mean == pytest.approx(np.median(now[:, c].sum() / caused[:, c]), rel=0.01)
        assert average.p05 < average.mean < average.p95
        assert marginal.mean > average.mean, "past the bend of the curve returns fall"


def test_a_channel_without_spend_has_no_cost(snapshot: Read) -> None:
    r = snapshot("full").response
    assert r is not None
    now = r.current_spend.copy()
    now[:, 0] = 0
    assert figures.cost_per_kpi(replace(r, current_spend=now))[r.channels[0]] == (None, None)


@pytest.mark.parametrize(
    ("variant", "level", "headline"),
    [
        ("full", "warn", "1 of 2 checks warn"),
        ("failed_gate", "fail", "Not published"),
        ("empty", "none", "No check has run"),
    ],
)
def test_health_is_the_worst_of_gate_and_checks(snapshot: Read, variant: str, level: str, headline: str) -> None:
    health = figures.health(snapshot(variant))
    assert health.level == level
    assert headline in health.headline


def test_health_names_a_later_run_that_failed_while_older_figures_stand(snapshot: Read) -> None:
    s, failed = snapshot("full"), snapshot("failed_gate")
    health = figures.health(replace(s, runs=failed.runs, checks=failed.checks))
    assert health.level == "fail"
    assert "last passing run" in health.headline
    assert any("R-hat of search is 1.2" in r for r in health.reasons)


def test_an_older_failure_that_was_mended_does_not_count(snapshot: Read) -> None:
    s, failed = snapshot("full"), snapshot("failed_gate")
    later = s.runs.assign(started_at=s.runs["started_at"] + pd.Timedelta("1D"))
    health = figures.health(replace(s, runs=pd.concat([failed.runs, later]), checks=s.checks))
    assert health.level == "warn"
    assert not any("R-hat of search is 1.2" in r for r in health.reasons)


def test_all_checks_passed(snapshot: Read) -> None:
    s = snapshot("full")
    assert figures.health(replace(s, checks=s.checks[s.checks["status"] == "pass"])).level == "ok"


def test_privacy_facts(snapshot: Read) -> None:
    assert any("No user-level data was used" in f for f in figures.privacy_facts(snapshot("aggregate_only")))
    facts = " ".join(figures.privacy_facts(snapshot("full")))
    assert "consenting people" in facts
    assert "Consent was assumed" in facts


def test_timeline_stacks_up_to_the_kpi(snapshot: Read) -> None:
    parts, total = figures.timeline(snapshot("full"))
    assert set(parts["part"]) == {"baseline", *sample.CHANNELS}
    top = parts.groupby("week")["y1"].max()
    np.testing.assert_allclose(top, total.set_index("week")["value"])
    np.testing.assert_allclose(parts["y1"] - parts["y0"], parts["value"])
    np.testing.assert_allclose(total["value"], sample.world().kpi.sum(axis=0))


def test_a_long_timeline_is_added_up_in_fours(snapshot: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MAX_POINTS", 50)
    parts, total = figures.timeline(snapshot("full"))
    assert len(total) == 20
    assert total["value"].sum() == pytest.approx(sample.world().kpi.sum())
    assert parts["value"].sum() == pytest.approx(sample.world().kpi.sum())


def test_timeline_of_nothing(snapshot: Read) -> None:
    parts, total = figures.timeline(snapshot("empty"))
    assert parts.empty
    assert total.empty


def test_units_read_the_period_from_the_calendar(snapshot: Read) -> None:
    s = snapshot("full")
    assert figures.units(s).period == "week"
    daily = s.kpi.assign(week=pd.to_datetime("2025-01-01") + pd.to_timedelta(np.arange(len(s.kpi)), "D"))
    assert figures.units(replace(s, kpi=daily)).period == "day"


def test_provenance_joins_ids_once() -> None:
    frame = pd.DataFrame(
        {
            "as_of": pd.to_datetime(["2026-01-01", "2026-01-02"]),
            "model_version": ["m", "m"],
            "evidence_ids": ["a;b", "b"],
            "release_id": ["r", None],
        }
    )
    stamp = figures.provenance(frame, frame.iloc[:0])
    assert (stamp.as_of, stamp.model_version) == ("2026-01-02 00:00 UTC", "m")
    assert (stamp.evidence, stamp.releases) == (("a", "b"), ("r",))


def test_story_names_who_is_over_credited_and_what_to_do(snapshot: Read) -> None:
    told = story.tell(snapshot("full"))
    assert "90 % interval" in told.what
    assert "Last touch credits search" in told.why
    assert "retargeting" in told.why
    assert "tv" not in told.why
    assert told.todo.startswith("Move budget from retargeting (−30 %) and search (−20 %) to social (+30 %)")
    assert "not clearly different from no change" in told.todo


def test_story_of_under_credit_alone(snapshot: Read) -> None:
    s = snapshot("full")
    rows = s.incrementality.assign(mean=2.0, p05=1.5, p95=3.0)
    why = story.tell(replace(s, incrementality=rows)).why
    assert why.startswith("Last touch gives ")
    assert "less credit than they caused" in why


def test_story_without_credit_plan_or_gate(snapshot: Read) -> None:
    s = snapshot("aggregate_only")
    assert "no credit to compare" in story.tell(s).why
    assert "No plan has been computed" in story.tell(replace(s, scenarios=s.scenarios.iloc[:0])).todo
    kept = s.scenarios.assign(spend_change=0.0)
    assert "Keep the split" in story.tell(replace(s, scenarios=kept)).todo
    failed = story.tell(snapshot("failed_gate"))
    assert "nothing is claimed" in failed.what
    assert "R-hat of search is 1.2" in failed.why
    assert "Do not move budget" in failed.todo


def test_overview_table_shows_returns_or_costs(snapshot: Read) -> None:
    with_money, without = tables.overview(snapshot("full")), tables.overview(snapshot("no_revenue"))
    assert any(c.startswith("ROI, EUR per EUR") for c in with_money)
    assert any(c.startswith("marginal cost, EUR per incremental conversions") for c in without)
    assert not any(c.startswith("ROI") for c in without)
    assert not any("credit" in c for c in tables.overview(snapshot("aggregate_only")))
    row = with_money.set_index("channel").loc["search"]
    assert row["recommended change"] == "−20 %"
    assert " to " in row["incremental conversions (90 % interval)"]


def test_overview_csv_has_one_number_a_cell(snapshot: Read) -> None:
    text = tables.overview_csv(snapshot("full")).splitlines()
    assert len(text) == 6
    assert "factor_p95" in text[0]
