"""Staleness, the ledger's guard, and what is published when the model fails its gate."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.intervals import normal_interval
from contracts.response import SteadyResponse
from contracts.surface import DynamicResponse
from workflow import runner
from workflow.artifacts import Draft
from workflow.codec import surface_arrays, write_arrays, write_frame
from workflow.init import initialise
from workflow.job import Job
from workflow.paths import secret_home
from workflow.progress import Report
from workflow.steps import Made
from workflow.warehouse import read_view

Plumb = Callable[..., tuple[int, dict[str, Any]]]


def states(plumb: Plumb, root: Path) -> dict[str, str]:
    """State of each step as `plumb status` says."""
    code, answer = plumb("status", root)
    assert code == 0, answer
    return {row["step"]: row["state"] for row in answer["steps"]}


def releases(root: Path) -> dict[str, bytes]:
    """Published files."""
    return {p.name: p.read_bytes() for p in sorted((root / "releases").glob("*.parquet"))}


def test_a_released_workspace_is_stale_only_where_its_inputs_changed(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    code, answer = plumb("lift", workspace)
    assert code == 3 and "plumb release" in answer["error"]
    code, answer = plumb("release", workspace)
    assert code == 0 and answer["rho_charged"] > 0 and answer["made"] == ["check", "release", "publish"], answer
    code, answer = plumb("lift", workspace)
    assert code == 0 and answer["made"] == ["lift", "publish"] and answer["rho_charged"] == 0
    published = releases(workspace)
    for command in ("release", "lift"):
        code, answer = plumb(command, workspace)
        assert (code, answer["made"], answer["rho_charged"]) == (0, [], 0.0)
    found = states(plumb, workspace)
    assert (found["release"], found["lift"], found["fit_calibrated"]) == ("up to date", "up to date", "never run")
    tests = pd.read_csv(workspace / "experiments.csv")
    tests.loc[tests["kind"] == "geo", "spend_delta"] = -1.0
    tests.to_csv(workspace / "experiments.csv", index=False)
    found = states(plumb, workspace)
    assert (found["release"], found["lift"]) == ("up to date", "stale")
    code, answer = plumb("lift", workspace)
    assert code == 0 and "lift" in answer["made"] and releases(workspace) == published


def test_every_test_has_a_readout_that_is_written_again_when_it_is_lost(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    assert plumb("release", workspace)[0] == 0
    assert plumb("lift", workspace)[0] == 0
    tests = sorted(read_view(workspace / "warehouse.duckdb", "v_lift")["experiment"].unique())
    pages = {p.stem: p.read_text(encoding="utf-8") for p in (workspace / "readouts").glob("*.html")}
    assert sorted(pages) == tests and len(tests) > 0
    for name, html in pages.items():
        assert f"<h1>{name}: " in html and "What would change the conclusion" in html and "http" not in html
    (workspace / "readouts" / f"{tests[0]}.html").unlink()
    (workspace / "readouts" / "mine.html").write_text("a page of the user's own", encoding="utf-8")
    assert plumb("lift", workspace)[1]["made"] == ["lift"]
    assert (workspace / "readouts" / f"{tests[0]}.html").read_text(encoding="utf-8") == pages[tests[0]]
    assert (workspace / "readouts" / "mine.html").is_file()


def test_a_new_geo_does_not_touch_what_is_out(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    assert plumb("release", workspace)[0] == 0
    published = releases(workspace)
    path = workspace / "plumb.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('geos = ["geo_01"', 'geos = ["geo_new", "geo_01"'), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != text
    (workspace / "controls.csv").unlink()
    path.write_text(path.read_text(encoding="utf-8").replace('[inputs.controls]\npath = "controls.csv"', ""), "utf-8")
    code, answer = plumb("release", workspace)
    assert code == 0 and answer["rho_charged"] == 0, answer
    assert releases(workspace) == published


def test_a_restored_ledger_is_refused(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    path = workspace / "plumb.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("[project]\n", "[project]\ncalendar_end = 2024-06-30\n"), encoding="utf-8")
    assert plumb("release", workspace)[0] == 0
    older = workspace.parent / "older"
    shutil.copytree(workspace / ".plumb", older)
    path.write_text(text, encoding="utf-8")
    assert plumb("release", workspace)[1]["rho_charged"] > 0
    kept = releases(workspace)
    for name in older.glob("ledger.sqlite*"):
        shutil.copy(name, workspace / ".plumb" / name.name)
    for stray in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        if not (older / stray).exists():
            (workspace / ".plumb" / stray).unlink(missing_ok=True)
    code, answer = plumb("run", workspace)
    assert code == 2 and answer["kind"] == "LedgerError" and "older" in answer["error"], answer
    assert releases(workspace) == kept


def test_a_workspace_without_its_secret_is_refused(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    assert plumb("release", workspace)[0] == 0
    (secret_home(Job.open(workspace).config.project.id) / "secret").unlink()
    code, answer = plumb("run", workspace)
    assert code == 2 and "the secret of this workspace is missing" in answer["error"]


def test_budget_adds_up_to_the_ledger(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    charged = plumb("release", workspace)[1]["rho_charged"]
    code, answer = plumb("budget", workspace)
    assert code == 0
    assert sum(b["spent"] for b in answer["blocks"]) == pytest.approx(charged, abs=1e-9)
    assert sum(c["rho"] for c in answer["charges"]) == pytest.approx(charged, abs=1e-9)
    assert all(b["spent"] <= b["cap"] == 0.2 for b in answer["blocks"])
    assert answer["year_epsilon"] > max(b["epsilon"] for b in answer["blocks"])


def test_as_of_releases_the_open_quarter_once(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    code, answer = plumb("release", workspace, "--as-of", "2024-05-20")
    assert code == 0, answer
    charges = read_view(workspace / "warehouse.duckdb", "v_charges")
    assert set(charges["block"]) == {"quarter-2024-01-01", "quarter-2024-04-01"}
    kpi = read_view(workspace / "warehouse.duckdb", "v_kpi")
    assert max(kpi["week"]) == date(2024, 5, 13)  # it ends on the 19th
    assert plumb("lift", workspace)[0] == 3, "today more weeks should be out"
    assert plumb("lift", workspace, "--as-of", "2024-05-20")[0] == 0
    published = releases(workspace)
    code, answer = plumb("release", workspace)
    assert code == 0 and set(published) < set(releases(workspace))
    assert {n: b for n, b in releases(workspace).items() if n in published} == published


def test_a_day_that_has_not_come_is_refused_before_any_charge(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    code, answer = plumb("release", workspace, "--as-of", "2999-01-01")
    assert code == 2 and "2999-01-01 lies in the future" in answer["error"] and not releases(workspace)


def test_weekly_releases_follow_the_open_quarter_and_add_up_to_its_share(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    config = workspace / "plumb.toml"
    text = config.read_text(encoding="utf-8")
    assert text.count('kpi = "quarter"') == 1 and text.count('journeys = "quarter"') == 1
    config.write_text(text.replace('kpi = "quarter"', 'kpi = "week"'), encoding="utf-8")
    code, answer = plumb("release", workspace, "--as-of", "2024-05-06")
    assert code == 0, answer
    published = releases(workspace)
    code, answer = plumb("release", workspace, "--as-of", "2024-05-20")
    assert code == 0 and answer["rho_charged"] == pytest.approx(2 * 0.1 / 13, abs=1e-6), "two weeks of kpi more"
    assert {n: b for n, b in releases(workspace).items() if n in published} == published
    kpi = read_view(workspace / "warehouse.duckdb", "v_kpi")
    mine = kpi[(kpi["metric"] == "conversions") & (kpi["geo"] == kpi["geo"].iloc[0])]
    assert sorted(mine["week"]) == sorted(set(mine["week"])) and max(mine["week"]) == date(2024, 5, 13)
    assert mine["variance"].nunique() <= 2 and mine["release_id"].nunique() == len(mine)
    config.write_text(text, encoding="utf-8")
    code, answer = plumb("release", workspace)
    assert code == 0, answer
    charges = read_view(workspace / "warehouse.duckdb", "v_charges")
    first = charges[(charges["measure"] == "kpi") & (charges["block"] == "quarter-2024-01-01")]
    assert len(first) == 13 and first["rho"].sum() == pytest.approx(0.1, abs=1e-6)
    second = charges[(charges["measure"] == "kpi") & (charges["block"] == "quarter-2024-04-01")]
    assert len(second) == 7, "what is out stays out: its other weeks cannot be bought by another cadence"


def fake_fit(passed: bool, mean: float) -> Callable[[Job, Draft, Report], Made]:
    """Stands for a fitted model with one channel."""

    def build(job: Job, draft: Draft, report: Report) -> Made:
        row = {"scope": "total", "geo": None, "week": None, "channel": "tv", "metric": "incremental_kpi"}
        write_frame(pd.DataFrame([row | normal_interval(mean, 1.0)]), draft.path("effects.parquet"))
        curve = {"channel": "tv", "spend": 1.0, "marginal": 1.0, "observed": True}
        write_frame(pd.DataFrame([curve | normal_interval(mean, 1.0)]), draft.path("curves.parquet"))
        one, three = np.ones((1, 1)), np.array([[1.0], [2.0], [3.0]])
        response = SteadyResponse(("tv",), ("a",), three[:, None], one, three, three, one, one[0], np.full(3, 1 / 3))
        whole = DynamicResponse(
            response,
            0.1 * three,
            0 * three,
            2,
            one[None],
            one,
            one[0],
            date(2024, 9, 23),
            7,
            "USD",
            "conversions",
            None,
        )
        write_arrays(surface_arrays(whole), draft.path("surface.npz"))
        draft.path("checks.json").write_text("[]", encoding="utf-8")
        facts = {"model_version": "m", "release_id": "r", "evidence_ids": "e"}
        return Made(facts) if passed else Made(facts, "failed_gate", "R-hat of tv is 1.2 (limit 1.01)")

    return build


def put_model(monkeypatch: pytest.MonkeyPatch, passed: bool, mean: float) -> None:
    """Replaces the model's steps; what rests on the model is skipped."""
    for name in ("fit_uncalibrated", "fit_calibrated"):
        step = dataclasses.replace(
            runner.STEPS[name], build=fake_fit(passed, mean), settings=lambda job: {"passed": passed, "mean": mean}
        )
        monkeypatch.setitem(runner.STEPS, name, step)
    for name in ("reconcile", "plan"):
        monkeypatch.setitem(runner.STEPS, name, dataclasses.replace(runner.STEPS[name], skip=lambda job: "not here"))


def test_a_failed_gate_keeps_the_last_passing_run(
    workspace: Path, plumb: Plumb, monkeypatch: pytest.MonkeyPatch
) -> None:
    initialise(workspace)
    put_model(monkeypatch, passed=False, mean=1.0)
    code, answer = plumb("run", workspace)
    assert code == 4 and "R-hat of tv is 1.2" in answer["error"]
    effects = read_view(workspace / "warehouse.duckdb", "v_effects")
    assert effects["status"].tolist() == ["failed_gate"] and effects["mean"].tolist() == [1.0]
    assert read_view(workspace / "warehouse.duckdb", "v_curves").empty

    put_model(monkeypatch, passed=True, mean=2.0)
    code, answer = plumb("run", workspace)
    assert code == 0, answer
    put_model(monkeypatch, passed=False, mean=3.0)
    assert plumb("run", workspace)[0] == 4
    effects = read_view(workspace / "warehouse.duckdb", "v_effects")
    assert effects["status"].tolist() == ["published"] and effects["mean"].tolist() == [2.0]
    assert read_view(workspace / "warehouse.duckdb", "v_curves")["mean"].tolist() == [2.0]
    history = read_view(workspace / "warehouse.duckdb", "v_effects_history")
    assert history["mean"].tolist() == [2.0]
    runs = read_view(workspace / "warehouse.duckdb", "v_runs").set_index("step")
    assert runs.at["fit_calibrated", "status"] == "failed_gate" and "R-hat" in runs.at["fit_calibrated", "reason"]
    assert plumb("run", workspace)[0] == 4  # nothing is stale, and it still has not passed


def put_pool(monkeypatch: pytest.MonkeyPatch, passed: bool) -> None:
    """Replaces the reconciliation by one that passes or fails its gate."""

    def build(job: Job, draft: Draft, report: Report) -> Made:
        row = {
            "channel": "tv", "model": "last_touch", "evidence_ids": "e", "flag": "", "period_start": date(2024, 1, 1),
            "period_end": date(2024, 9, 29), "incremental_kpi": 5.0, "incremental_p05": 1.0, "incremental_p95": 9.0,
            "credited": 10.0, "weight_lift": 0.0, "weight_mmm": 1.0, "weight_credit": 0.0,
            "weight_family": 0.0,
        } | normal_interval(0.5, 0.1)  # fmt: skip
        write_frame(pd.DataFrame([row]), draft.path("v_incrementality.parquet"))
        facts = {"rhat": 1.0, "ess": 900.0, "divergences": 0, "draws": 1000}
        return Made(facts) if passed else Made({}, "failed_gate", "R-hat 1.3 after 3 doublings")

    step = dataclasses.replace(
        runner.STEPS["reconcile"], build=build, skip=lambda job: "", inputs=lambda job: {}, settings=lambda job: passed
    )
    monkeypatch.setitem(runner.STEPS, "reconcile", step)


def test_a_failed_reconciliation_holds_back_what_rests_on_it(
    workspace: Path, plumb: Plumb, monkeypatch: pytest.MonkeyPatch
) -> None:
    initialise(workspace)
    put_model(monkeypatch, passed=True, mean=2.0)
    put_pool(monkeypatch, passed=False)
    code, answer = plumb("run", workspace)
    assert code == 4 and "the reconciliation did not pass its own gate" in answer["error"]
    warehouse = workspace / "warehouse.duckdb"
    effects = read_view(warehouse, "v_effects")
    assert effects["status"].tolist() == ["published"], "the model passed, and no older reconciliation is contradicted"
    assert read_view(warehouse, "v_incrementality").empty
    checks = read_view(warehouse, "v_checks").set_index("check_name")
    assert checks.at["reconcile gate", "status"] == "fail" and "R-hat 1.3" in checks.at["reconcile gate", "text"]

    put_pool(monkeypatch, passed=True)
    assert plumb("run", workspace)[0] == 0
    assert read_view(warehouse, "v_incrementality")["mean"].tolist() == [0.5]
    put_model(monkeypatch, passed=True, mean=3.0)
    put_pool(monkeypatch, passed=False)
    assert plumb("run", workspace)[0] == 4
    assert read_view(warehouse, "v_incrementality")["mean"].tolist() == [0.5]
    assert read_view(warehouse, "v_effects")["mean"].tolist() == [2.0], "model and factors of one run stay together"


def test_a_second_run_does_nothing(workspace: Path, plumb: Plumb, monkeypatch: pytest.MonkeyPatch) -> None:
    initialise(workspace)
    put_model(monkeypatch, passed=True, mean=2.0)
    code, answer = plumb("run", workspace)
    assert code == 0 and answer["rho_charged"] > 0, answer
    before = {p: p.read_bytes() for p in (workspace / "warehouse.duckdb", workspace / "report.html")}
    code, answer = plumb("run", workspace)
    assert (code, answer["made"], answer["rho_charged"]) == (0, [], 0.0)
    assert {p: p.read_bytes() for p in before} == before
    (workspace / "warehouse.duckdb").unlink()
    code, answer = plumb("run", workspace)
    assert code == 0 and "publish" in answer["made"] and answer["rho_charged"] == 0
    checks = read_view(workspace / "warehouse.duckdb", "v_checks")
    assert {"input_contract", "consent"} <= set(checks["check_name"])
