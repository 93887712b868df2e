"""[[privacy.corrections]] of plumb.toml: asked for by name, paid by the reserve, read once."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from contracts.errors import ConfigError
from contracts.release import Release
from contracts.tables import BY_NAME
from workflow.artifacts import Artifact
from workflow.config import parse
from workflow.job import Job
from workflow.step_release import advance_release
from workflow.views_out import kpi_view, levels_view, releases_view

Plumb = Callable[..., tuple[int, dict[str, Any]]]
ASK = '\n[[privacy.corrections]]\nquarter = {quarter}\nmeasure = "{measure}"\nshare = {share}\n'


def ask(work: Path, text: str) -> None:
    path = work / "plumb.toml"
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def job_of(work: Path) -> Job:
    job = Job.open(work, quiet=True)
    advance_release(job, build=False)
    return job


def artifact() -> Artifact:
    fields = dict.fromkeys(Artifact.__dataclass_fields__, "") | {"finished_at": datetime(2024, 1, 1)}
    return Artifact(**fields)  # type: ignore[arg-type]


def test_a_correction_is_charged_once_and_read_in_place_of_the_first(work: Path, plumb: Plumb) -> None:
    quarter = plumb("budget", work)[1]["blocks"][-1]["block"].removeprefix("quarter-")
    before = kpi_view(job_of(work).releases, 0, artifact())

    ask(work, ASK.format(quarter=quarter, measure="kpi", share=0.9))
    code, answer = plumb("release", work)
    assert code == 0 and answer["rho_charged"] == pytest.approx(0.009, rel=1e-6)
    job = job_of(work)
    fixed = next(r for r in job.published if r.correction)
    after = kpi_view(job.releases, 0, artifact())
    assert len(after) == len(before), "no cell is read twice and none is missing"
    assert not after.duplicated(["geo", "week", "metric"]).any()
    mine = after[pd.to_datetime(after["week"]).dt.date >= fixed.block_start]
    assert set(mine["release_id"]) == {fixed.release_id}
    assert set(job.panel.evidence_ids) == set(after["release_id"])
    told = releases_view(job.published, "run")
    assert set(told.columns) == set(BY_NAME["v_releases"].names)
    old = told[(told["measure"] == "kpi") & (told["block"] == fixed.block) & (told["correction"] == 0)]
    assert len(old) == 3 and set(old["superseded_by"]) == {fixed.release_id}
    assert (told[told["release_id"] != fixed.release_id]["superseded_by"] == fixed.release_id).sum() == 3
    with duckdb.connect(str(work / "warehouse.duckdb"), read_only=True) as con:
        scaled = con.execute(
            "SELECT value, text FROM v_checks WHERE check_name = 'scaled back for clipping'"
        ).fetchall()
        paid = con.execute("SELECT release_id FROM v_charges WHERE paid_by = 'reserve'").fetchall()
    assert paid == [(fixed.release_id,)]
    assert (
        scaled[0][0] == pytest.approx(job.panel.scale_back[0]) and f"(sd {job.panel.scale_back[1]:.3f}" in scaled[0][1]
    )

    code, budget = plumb("budget", work)
    reserve = next(m for m in budget["blocks"][-1]["measures"] if m["measure"] == "reserve")
    assert reserve["spent"] == pytest.approx(0.009, rel=1e-6) and reserve["left"] == pytest.approx(0.001, rel=1e-3)
    assert [c["paid_by"] for c in budget["charges"] if c["release_id"] == fixed.release_id] == ["reserve"]
    assert plumb("verify", "-C", work)[0] == 0

    code, answer = plumb("release", work)
    assert code == 0 and answer["rho_charged"] == 0, "the same question again"
    text = (work / "plumb.toml").read_text(encoding="utf-8").split("\n[[privacy.corrections]]")[0]
    (work / "plumb.toml").write_text(text, encoding="utf-8")
    assert fixed.release_id in {r.release_id for r in job_of(work).releases}, "taken out of plumb.toml, it stays out"

    ask(work, ASK.format(quarter=quarter, measure="journeys", share=0.5))
    code, answer = plumb("release", work)
    assert code == 2 and "the reserve has 0.001" in answer["error"] and "lower its share" in answer["error"]


def test_a_measure_that_a_quarter_was_opened_without_does_not_stop_the_others(work: Path, plumb: Plumb) -> None:
    quarter = plumb("budget", work)[1]["blocks"][-1]["block"].removeprefix("quarter-")
    path = work / "plumb.toml"
    shares = path.read_text(encoding="utf-8").replace("\njourneys = 0.25", "\njourneys = 0.1")
    text = re.sub(r"\n(media|levels|credit) = 0(\.0)?\b", r"\n\1 = 0.05", shares)
    assert text != path.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    code, answer = plumb("release", work)
    assert code == 0 and answer["rho_charged"] == 0, answer
    (step,) = (s for s in answer["steps"] if s["step"] == "release")
    assert f"media of quarter-{quarter}" in step["reason"] and "opened without a share for media" in step["reason"]
    with duckdb.connect(str(work / "warehouse.duckdb"), read_only=True) as con:
        rows = con.execute("SELECT subject, status FROM v_checks WHERE check_name = 'release left out'").fetchall()
    assert (f"media of quarter-{quarter}", "warn") in rows
    for measure in ("media", "levels", "credit"):
        ask(work, ASK.format(quarter=quarter, measure=measure, share=0.33))
    code, answer = plumb("release", work)
    assert code == 0 and 0.008 < answer["rho_charged"] <= 0.0099, answer
    assert {r.measure for r in job_of(work).releases if r.correction} == {"media", "levels", "credit"}
    with duckdb.connect(str(work / "warehouse.duckdb"), read_only=True) as con:
        shown = con.execute("SELECT measure, min(period_start) FROM v_releases WHERE correction = 1 GROUP BY 1").df()
    assert len(shown) == 3 and shown.iloc[:, 1].nunique() == 1, "cells of a whole quarter have no week, and a start"


@pytest.mark.slow
def test_a_correction_waits_for_what_it_corrects(work: Path, plumb: Plumb) -> None:
    quarter = plumb("budget", work)[1]["blocks"][-1]["block"].removeprefix("quarter-")
    ask(work, ASK.format(quarter="2040-01-01", measure="kpi", share=1.0))
    ask(work, ASK.format(quarter=quarter, measure="kpi", share=0.5))
    ask(work, ASK.format(quarter=quarter, measure="kpi", share=0.5))
    code, answer = plumb("release", work)
    (step,) = (s for s in answer["steps"] if s["step"] == "release")
    assert code == 0 and answer["rho_charged"] == pytest.approx(0.005, rel=1e-6), "the second follows the first"
    assert "the correction 1 is not out" in step["reason"] and "the quarter is not closed yet" in step["reason"]
    code, answer = plumb("release", work)
    assert code == 0 and [r.correction for r in job_of(work).releases if r.measure == "kpi"][-1] == 2


def test_a_quarter_is_named_by_its_first_day(workspace: Path) -> None:
    raw = {"project": {"id": "abcd", "fiscal_year_start": 2}, "inputs": {"events": {"path": "events.csv"}}}
    asked = {"corrections": [{"quarter": "2024-01-01", "measure": "kpi"}]}
    with pytest.raises(ConfigError, match="no fiscal quarter begins on 2024-01-01.*begins on 2023-11-01"):
        parse(raw | {"privacy": asked})
    with pytest.raises(ConfigError, match="measure"):
        parse(raw | {"privacy": {"corrections": [{"quarter": "2024-02-01", "measure": "trials"}]}})


def test_levels_are_made_to_agree_only_with_kpi_of_the_same_rows() -> None:
    week = datetime(2024, 1, 1).date()
    kpi = [("conversions", g, week, "conversions", v, 4.0) for g, v in (("a", 10.0), ("b", 20.0))]
    levels = [("nation:conversions", "nation", "nation", week, "conversions", 36.0, 1.0)]

    def made(measure: str, rows: list[Any], columns: list[str], number: int) -> Release:
        meta = {"spec": {"regions": {}}, "correction": {"number": number, "as_of": "2024-09-01"} if number else None}
        table = pd.DataFrame(rows, columns=columns)
        return Release(
            f"{measure}-{number}", measure, "quarter-2024-01-01", week, week, table, (), 0.1, 1.0, 1e-6, meta
        )  # type: ignore[arg-type]

    names = ["vector", "geo", "week", "metric", "value", "variance"]
    places = ["vector", "level", "area", "week", "metric", "value", "variance"]
    frame = levels_view([made("kpi", kpi, names, 1), made("levels", levels, places, 0)], 0, artifact())
    assert frame["value"].tolist() == [36.0] and set(frame["release_id"]) == {"levels-0"}
    assert "consistent" not in frame or frame["consistent"].isna().all()
    frame = levels_view([made("kpi", kpi, names, 1), made("levels", levels, places, 1)], 0, artifact())
    assert frame["consistent"].notna().all() and len(frame) == 3
