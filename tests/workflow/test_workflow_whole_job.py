"""The whole job with its real model: both doors, nothing on a second run, ten kills."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.tables import VIEWS
from privacy.room import read_charges, read_release, verify_ledger
from simulate.world import simulate
from workflow.init import initialise
from workflow.job import Job
from workflow.people_inputs import ledger_paths
from workflow.warehouse import read_view

pytestmark = pytest.mark.slow
Plumb = Callable[..., tuple[int, dict[str, Any]]]


def small_model(root: Path) -> None:
    """Fewer draws than a real job needs; enough for the gate on a small panel."""
    path = root / "plumb.toml"
    text = path.read_text(encoding="utf-8")
    for key, value in (("warmup", 200), ("draws", 500)):
        text = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
    path.write_text(text, encoding="utf-8")


def write_panel(root: Path, price: bool) -> dict[str, float]:
    """Two geos, 80 weeks, two channels with known saturating effects, a control or none. Returns the true totals."""
    rng = np.random.default_rng(5)
    rows, truth = [], {"tv": 0.0, "web": 0.0}
    for geo, size in (("north", 1.0), ("south", 0.6)):
        for t, day in enumerate(pd.date_range("2024-01-01", periods=80, freq="7D")):
            spend = {c: size * 100 * rng.gamma(2.0, 0.5) * (rng.random() < 0.8) for c in truth}
            effect = {"tv": 300 * size * spend["tv"] / (spend["tv"] + 100 * size),
                      "web": 120 * size * spend["web"] / (spend["web"] + 80 * size)}  # fmt: skip
            for channel in truth:
                truth[channel] += effect[channel]
            base = size * (900 + 60 * np.sin(2 * np.pi * t / 52))
            control = {"price": rng.normal(10, 1)} if price else {}
            kpi = base + sum(effect.values()) + rng.normal(0, 20)
            row = {
                "date": day.date(),
                "geo": geo,
                "conversions": kpi,
                "tv_spend": spend["tv"],
                "web_spend": spend["web"],
            }
            rows.append(row | control)
    pd.DataFrame(rows).to_csv(root / "panel.csv", index=False)
    return truth


@pytest.mark.parametrize("price", [True, False], ids=["with a control", "without controls"])
def test_the_panel_door_runs_through(price: bool, tmp_path: Path, plumb: Plumb) -> None:
    truth = write_panel(tmp_path, price)
    initialise(tmp_path)
    small_model(tmp_path)
    code, answer = plumb("run", tmp_path)
    assert code == 0, answer
    steps = {s["step"]: s for s in answer["steps"]}
    assert steps["release"]["status"] == steps["credit"]["status"] == "skipped"
    assert "no user-level data" in steps["release"]["reason"]
    warehouse = tmp_path / "warehouse.duckdb"
    for view in VIEWS:
        assert tuple(read_view(warehouse, view.name).columns) == view.names
    effects = read_view(warehouse, "v_effects")
    totals = effects[(effects["scope"] == "total") & (effects["metric"] == "incremental_kpi")].set_index("channel")
    assert set(totals["release_id"]) == {"panel"} and set(totals["status"]) == {"published"}
    for channel, true in truth.items():
        assert totals.at[channel, "p05"] * 0.8 < true < totals.at[channel, "p95"] * 1.25
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "no user-level data" in report.lower()
    assert not (tmp_path / "raw").exists() and not (tmp_path / ".plumb" / "ledger.sqlite").exists()
    code, answer = plumb("run", tmp_path)
    assert (code, answer["made"]) == (0, [])


def start(root: Path) -> subprocess.Popen[bytes]:
    """`plumb run` in a process group of its own."""
    command = [sys.executable, "-m", "workflow.cli", "run", str(root), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def finish(root: Path) -> None:
    """Runs to the end."""
    process = start(root)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, (out[-2000:], err[-2000:])


def model_tables(root: Path) -> dict[str, pd.DataFrame]:
    """Figures of every step after the release, without the stamps of time."""
    names = ("v_effects", "v_curves", "v_lift", "v_credit", "v_incrementality", "v_scenarios", "v_scenario_cells")
    return {n: read_view(root / "warehouse.duckdb", n).drop(columns=["as_of"]) for n in names}


def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    root = tmp_path / "work"
    simulate(root, people=3000, geos=4, weeks=39, seed=3)
    initialise(root)
    small_model(root)
    chance = random.Random(7)
    seen: dict[str, bytes] = {}
    for attempt in range(10):
        process = start(root)
        time.sleep(chance.uniform(0.5, 12.0) * (1 + attempt / 2))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        here = {p.name: p.read_bytes() for p in (root / "releases").glob("*.parquet")}
        assert {n: b for n, b in here.items() if n in seen} == seen
        seen = here
    finish(root)
    released = {p.name: p.read_bytes() for p in (root / "releases").glob("*.parquet")}
    assert {n: b for n, b in released.items() if n in seen} == seen

    job = Job.open(root)
    verify_ledger(ledger_paths(job))
    charges = read_charges(ledger_paths(job))
    assert set(charges["release_id"]) == {Path(n).stem for n in released}
    assert not charges.duplicated(["release_id", "block"]).any()
    for block, rows in charges.groupby("block"):
        assert rows["rho"].sum() == pytest.approx(rows["block_spent"].iloc[0], abs=1e-12), block
    for path in (root / "releases").glob("*.parquet"):
        found = read_release(path)
        mine = charges.loc[charges["release_id"] == found.release_id, "rho"]
        assert mine.tolist() == pytest.approx([found.rho] * len(mine))

    # Given the release files, every later step says the same again.
    first = model_tables(root)
    for step in ("lift", "fit_uncalibrated", "fit_calibrated", "credit", "reconcile", "plan", "publish", "report"):
        for manifest in (root / ".plumb" / "runs" / step).glob("*/manifest.json"):
            manifest.unlink()
    finish(root)
    assert {p.name: p.read_bytes() for p in (root / "releases").glob("*.parquet")} == released
    for name, frame in model_tables(root).items():
        pd.testing.assert_frame_equal(frame, first[name], obj=name)


def test_every_treatment_of_lifts_reconciles(tmp_path: Path, plumb: Plumb) -> None:
    """One job, then each value of [reconcile] lifts: the same data, no second charge, and what each of them means."""
    root = tmp_path / "work"
    simulate(root, people=8000, geos=6, weeks=52, seed=11)
    initialise(root)
    small_model(root)
    assert plumb("run", root)[0] == 0
    released = {p.name: p.read_bytes() for p in (root / "releases").glob("*.parquet")}
    text = (root / "plumb.toml").read_text(encoding="utf-8")
    assert "[reconcile]" not in text
    weights, sources = {}, {}
    for treatment in ("pooled", "check", "cavity", "leave_one_out"):
        (root / "plumb.toml").write_text(f'{text}\n[reconcile]\nlifts = "{treatment}"\n', encoding="utf-8")
        code, answer = plumb("run", root)
        assert code == 0, (treatment, answer)
        whole = read_view(root / "warehouse.duckdb", "v_reconciled")
        assert np.isfinite(whole["mean"]).all() and (whole["p05"] < whole["p95"]).all(), treatment
        weights[treatment] = float(whole["weight_lift"].max())
        sources[treatment] = set(read_view(root / "warehouse.duckdb", "v_pool_scores")["source"])
    assert {p.name: p.read_bytes() for p in (root / "releases").glob("*.parquet")} == released
    assert weights["pooled"] > 0 and weights["cavity"] > 0
    assert weights["check"] == weights["leave_one_out"] == 0, "the model has the tests; they are not pooled again"
    assert "pool" in sources["pooled"] and "mmm" in sources["pooled"]
    assert "pool" not in sources["check"] and "mmm" not in sources["check"], "who has seen a test is not scored on it"
    assert "mmm" in sources["leave_one_out"], "scored by the posterior that has not seen it"
