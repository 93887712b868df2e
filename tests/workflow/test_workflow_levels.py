"""v_levels from two release files, through the warehouse; shares of people in v_checks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import duckdb
import pandas as pd
import pytest

from contracts.release import Release
from contracts.tables import BY_NAME
from workflow.artifacts import Artifact
from workflow.views_out import cohort_check, diagnostics_checks, kpi_view, levels_view
from workflow.warehouse import Content, build

WEEKS = (date(2024, 1, 1), date(2024, 1, 8))


def release(measure: str, rows: list[tuple], columns: list[str]) -> Release:  # type: ignore[type-arg]
    """A release with made-up figures."""
    return Release(
        f"{measure}-1", measure, "quarter-2024-01-01", WEEKS[0], date(2024, 3, 31), pd.DataFrame(rows, columns=columns),
        (), 0.1, 1.0, 1e-6, {"spec": {"regions": {}}},
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.fixture
def releases() -> tuple[Release, Release]:
    kpi = [("conversions", g, w, "conversions", v, 4.0) for g, v in (("a", 10.0), ("b", 20.0)) for w in WEEKS]
    levels = [("nation:conversions", "nation", "nation", w, "conversions", 36.0, 1.0) for w in WEEKS]
    levels += [("quarter:conversions", "quarter", g, None, "conversions", 55.0, 9.0) for g in ("a", "b")]
    return (
        release("kpi", kpi, ["vector", "geo", "week", "metric", "value", "variance"]),
        release("levels", levels, ["vector", "level", "area", "week", "metric", "value", "variance"]),
    )


def artifact() -> Artifact:
    now = datetime(2024, 4, 1, tzinfo=UTC).replace(tzinfo=None)
    fields = dict.fromkeys(Artifact.__dataclass_fields__, "") | {"run_id": "run", "finished_at": now}
    return Artifact(**fields)  # type: ignore[arg-type]


def test_levels_are_shown_as_released_and_made_consistent(releases, tmp_path) -> None:  # type: ignore[no-untyped-def]
    frame = levels_view(releases, 50, artifact())
    assert set(BY_NAME["v_levels"].names) <= set(frame.columns) and len(frame) == 2 * 3 + 2
    nation = frame[frame["level"] == "nation"].iloc[0]
    # z = (10, 20, 36), D = (4, 4, 1): the sum of the geos has variance 8, so the nation is (30/8 + 36) / (1/8 + 1)
    assert nation["value"] == 36 and nation["consistent"] == pytest.approx((30 / 8 + 36) / (1 / 8 + 1))
    assert nation["consistent_variance"] == pytest.approx(8 / 9)
    whole = frame[frame["level"] == "quarter"]
    assert whole["consistent"].isna().all() and whole["value"].tolist() == [55.0, 55.0]
    assert set(frame["release_id"]) == {"kpi-1;levels-1"}
    build(tmp_path / "w.duckdb", tmp_path / "tables", Content({"v_levels": frame}, None, {}))
    with duckdb.connect(str(tmp_path / "w.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(*), count(week), count(consistent) FROM v_levels").fetchone() == (8, 6, 6)


def test_without_levels_the_view_is_empty(releases) -> None:  # type: ignore[no-untyped-def]
    assert levels_view(releases[:1], 50, artifact()).empty


def test_cells_of_small_noisy_cohorts_are_marked_and_kept(releases) -> None:  # type: ignore[no-untyped-def]
    """Geo a has 49.9 noisy people, b has 50: at a minimum of 50 a is marked where it stands alone, as region too."""
    people = [("cohort", "cohort", g, v, 1.0) for g, v in (("a", 49.9), ("b", 50.0), ("other", -3.0))]
    cohorts = release("diagnostics", people, ["vector", "metric", "geo", "value", "variance"])
    kpi, levels = releases
    shown = kpi_view([kpi, cohorts], 50, artifact()).set_index("geo")
    assert shown.loc["a", "suppressed"].all() and not shown.loc["b", "suppressed"].any()
    assert shown.loc["a", "value"].tolist() == [10.0, 10.0], "a suppressed cell keeps its figure for the model"
    assert not kpi_view([kpi, cohorts], 0, artifact())["suppressed"].any()
    assert cohort_check([kpi, cohorts], 50)["status"].tolist() == ["pass"]
    blind = cohort_check([kpi], 50)
    assert blind["status"].tolist() == ["warn"] and "no cell of quarter-2024-01-01 can be marked" in blind["text"][0]
    assert cohort_check([kpi], 0)["status"].tolist() == ["pass"], "nothing was asked"
    areas = [("region:conversions", "region", name, w, "conversions", 30.0, 1.0) for name in ("big", "small") for w in
             WEEKS]  # fmt: skip
    table = pd.concat([levels.table, pd.DataFrame(areas, columns=levels.table.columns)], ignore_index=True)
    named = replace(levels, table=table, metadata={"spec": {"regions": {"big": ["a", "b"], "small": ["a"]}}})
    marked = levels_view([kpi, named, cohorts], 50, artifact()).groupby(["level", "area"])["suppressed"].unique()
    assert {key: list(v) for key, v in marked.items()} == {
        ("geo", "a"): [True], ("geo", "b"): [False], ("nation", "nation"): [False], ("quarter", "a"): [True],
        ("quarter", "b"): [False], ("region", "big"): [False], ("region", "small"): [True],
    }  # fmt: skip


def test_consent_and_bots_are_told_as_noisy_shares() -> None:
    """Rate and sd by the delta method; bots are a share of the consenting, among whom they are counted."""
    columns = ["vector", "metric", "geo", "value", "variance"]
    rows = [
        ("people", m, "", v, 100.0) for m, v in (("people", 1000.0), ("consenting", 800.0), ("invalid_people", -8.0))
    ]
    checks = diagnostics_checks([release("diagnostics", [*rows, ("cohort", "cohort", "a", 5.0, 9.0)], columns)])
    told = checks.set_index("check_name")
    rate = told.loc["diagnostics consent rate"]
    assert rate["value"] == pytest.approx(0.8) and rate["text"] == "consent rate: 80.0% of people (noise sd 1.3%)"
    assert told.loc["diagnostics invalid share", "value"] == pytest.approx(-0.01), "never clipped at zero"
    few = release("diagnostics", [(*r[:3], r[3] / 100, r[4]) for r in rows], columns)
    told = diagnostics_checks([few]).set_index("check_name")
    assert pd.isna(told.loc["diagnostics consent rate", "value"]) and "noise hides" in told.loc[
        "diagnostics consent rate", "text"]  # fmt: skip
