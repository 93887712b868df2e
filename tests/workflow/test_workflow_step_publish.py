"""The job and the explorer share one warehouse: neither loses what the other wrote."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from app.saved import database, files, frames, publish, remarks, scenarios
from contracts.intervals import INTERVAL
from workflow import step_publish
from workflow.init import initialise
from workflow.warehouse import read_view

Plumb = Callable[..., tuple[int, dict[str, Any]]]


def priced() -> scenarios.Pricing:
    """One channel, one geo, one week; figures stand for themselves."""
    figures = {name: float(i) for i, name in enumerate(INTERVAL)}
    start, end = date(2026, 1, 5), date(2026, 1, 11)
    channel = {"channel": "search", "spend": 100.0, "spend_change": 0.1} | figures
    channel |= {"within": 0.8, "beyond": 0.2, "carried_in": 0.1, "extrapolated": False}
    cell = {"channel": "search", "period_start": start, "period_end": end, "geo": "north", "spend": 100.0} | figures
    return scenarios.Pricing(
        currency="USD", kpi="conversions", period_days=7, period_start=start, period_end=end, run_id="run-1",
        release_id="rel-1", model_version="m-1", evidence_ids="e-1", response_id="draws-1",
        priced_at="2026-01-01 00:00:00.000", budget=100.0, total=figures, channels=pd.DataFrame([channel]),
        cells=pd.DataFrame([cell]),
    )  # fmt: skip


def save(root: Path, name: str) -> None:
    with database.writing(root / files.STATE_NAME) as con:
        one = scenarios.create(con, name, "ana", "", priced())
        remarks.comment(con, "scenario", one.id, "bo", f"on {name}")
        remarks.decide(con, one.id, 1, "approved", "fits", "cfo")


def state_views(root: Path) -> dict[str, pd.DataFrame]:
    return {name: read_view(root / "warehouse.duckdb", name) for name in frames.STATE_VIEWS}


def test_a_job_takes_in_what_was_saved_and_then_has_nothing_to_do(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    assert plumb("release", workspace)[0] == 0
    warehouse = workspace / "warehouse.duckdb"
    assert publish.published_digest(warehouse) == "" and not (workspace / files.STATE_NAME).exists()

    save(workspace, "Push")  # the explorer died before it could publish
    code, answer = plumb("release", workspace)
    assert (code, answer["made"]) == (0, ["publish"])
    by_job = state_views(workspace)
    assert by_job["v_scenarios"]["scenario"].tolist() == ["Push"]
    assert by_job["v_comments"]["text"].tolist() == ["on Push"]
    written = warehouse.read_bytes()
    assert plumb("release", workspace)[1]["made"] == []
    assert not publish.publish(warehouse)
    assert warehouse.read_bytes() == written

    save(workspace, "More")
    assert publish.publish(warehouse)
    by_explorer = state_views(workspace)
    assert by_explorer["v_scenarios"]["scenario"].tolist() == ["More", "Push"]
    written = warehouse.read_bytes()
    assert plumb("release", workspace)[1]["made"] == [], "what the explorer wrote is up to date for the job"
    assert warehouse.read_bytes() == written

    # The same state, written by the job: the same rows.
    (workspace / ".plumb" / "runs" / step_publish.POINTER).unlink()
    assert plumb("release", workspace)[1]["made"] == ["publish"]
    for name, frame in state_views(workspace).items():
        pd.testing.assert_frame_equal(frame, by_explorer[name], obj=name)
    copies = workspace / files.TABLES_NAME
    assert pd.read_parquet(copies / "v_scenarios.parquet")["scenario"].tolist() == ["More", "Push"]


def test_a_job_waits_for_an_explorer_that_saves_and_then_says_so(
    workspace: Path, plumb: Plumb, monkeypatch: pytest.MonkeyPatch
) -> None:
    initialise(workspace)
    monkeypatch.setattr(step_publish, "PATIENCE", 0.05)
    with files.publishing(workspace):
        code, answer = plumb("release", workspace)
    assert code == 2 and "is writing the tables of" in answer["error"]
    assert plumb("release", workspace)[0] == 0


def test_a_damaged_warehouse_is_built_again_with_the_saves(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    plumb("release", workspace)
    save(workspace, "Push")
    (workspace / "warehouse.duckdb").write_bytes(b"no database" * 500)
    assert plumb("release", workspace)[1]["made"] == ["publish"]
    assert state_views(workspace)["v_scenarios"]["scenario"].tolist() == ["Push"]
