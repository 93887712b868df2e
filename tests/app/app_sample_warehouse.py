"""A small warehouse with internally consistent numbers, written with the exact columns of `contracts.tables`.

One set of posterior draws of a Hill response makes every figure, so that totals, weeks, curves, credits and factors
agree with each other. It stands in for the file that the real job writes; it is test material, not a model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from app.draws import PERIOD_KEY, RESPONSE_KEY, Period, from_tables, surface_of, to_tables
from app.draws import Tables as DrawTables
from contracts.intervals import normal_interval, summarise
from contracts.response import SteadyResponse
from contracts.surface import DynamicResponse
from contracts.tables import BY_NAME, VIEWS
from planning.scenarios import evaluate_plan, today
from planning.surface import Surface, held

CHANNELS = ("retargeting", "search", "social", "tv", "video")
GEOS = tuple(f"geo_{i:02d}" for i in range(12))
WEEKS = tuple(date(2025, 1, 6) + timedelta(weeks=i) for i in range(78))
QUARTERS = tuple((WEEKS[13 * i], WEEKS[13 * i + 12] + timedelta(days=6)) for i in range(6))
DRAWS = 200
REVENUE_PER_KPI = 50.0
AS_OF = datetime(2026, 7, 8, 6, 30)
MODEL = "mmm-4f2a91c0"
EFFECT_RUN = "run-20260708"
CREDIT_BIAS = {  # credited ÷ truly incremental, per model
    "last_touch": (2.6, 2.1, 0.7, 0.15, 0.6),
    "first_touch": (0.9, 1.5, 1.2, 0.3, 1.1),
    "linear": (1.7, 1.7, 0.9, 0.2, 0.8),
    "markov": (1.5, 1.6, 0.9, 0.2, 0.9),
}
META = {
    "project": "fixture shop",
    "kpi": "conversions",
    "currency": "EUR",
    "user_level": "true",
    "consent": "assumed",
    "period_start": WEEKS[0].isoformat(),
    "period_end": (WEEKS[-1] + timedelta(days=6)).isoformat(),
    "generated_at": AS_OF.isoformat(),
    "model_version": MODEL,
    "seed": "7",
}


@dataclass(frozen=True)
class World:
    """Draws and totals from which all tables are made."""

    response: SteadyResponse
    spend: np.ndarray  # (G, T, C)
    draws: np.ndarray  # (D, G, T, C) incremental KPI
    kpi: np.ndarray  # (G, T)


@dataclass
class Tables:
    """Rows per view; what is absent is written as an empty table."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    draws: DrawTables | None = None
    meta: dict[str, str] = field(default_factory=lambda: dict(META))


@lru_cache(maxsize=1)
def world() -> World:
    """The one world behind the fixture."""
    rng = np.random.default_rng(7)
    size = rng.dirichlet(np.full(len(GEOS), 6.0))
    base_spend = np.array([4_000.0, 12_000.0, 9_000.0, 20_000.0, 7_000.0])
    flights = rng.uniform(0.4, 1.6, (len(WEEKS), len(CHANNELS)))
    flights[:, 3] *= (np.arange(len(WEEKS)) % 13 < 7) * 1.6
    spend = size[:, None, None] * flights[None] * base_spend
    current = spend[:, -13:].mean(axis=1)
    unit = 1 / np.maximum(spend.mean(axis=1), 1e-9)
    weekly = np.array([80.0, 300.0, 280.0, 420.0, 160.0])
    spread = np.array([0.25, 0.18, 0.25, 0.15, 0.45])
    level = weekly * np.exp(spread * rng.standard_normal((DRAWS, 1, len(CHANNELS))))
    amplitude = 2.0 * level * size[None, :, None]
    half = np.exp(np.log(1.1) + 0.15 * rng.standard_normal((DRAWS, len(CHANNELS))))
    slope = np.exp(np.log(1.1) + 0.08 * rng.standard_normal((DRAWS, len(CHANNELS))))
    response = SteadyResponse(
        CHANNELS, GEOS, amplitude, unit, half, slope, current, spend.sum(axis=0).max(axis=0), np.full(DRAWS, 1 / DRAWS)
    )
    draws = np.stack([response.evaluate(spend[:, t]) for t in range(len(WEEKS))], axis=2)
    season = 1 + 0.12 * np.sin(2 * np.pi * np.arange(len(WEEKS)) / 52)
    base = size[:, None] * 2_400 * season[None] * (1 + 0.03 * rng.standard_normal((len(GEOS), len(WEEKS))))
    kpi = base + draws.mean(axis=0).sum(axis=2) + 12 * rng.standard_normal((len(GEOS), len(WEEKS)))
    return World(response, spend, draws, np.round(kpi))


def _stamp(evidence: str = "rel-kpi-1;exp-search-dark") -> dict[str, Any]:
    return {
        "run_id": EFFECT_RUN,
        "release_id": "rel-kpi-1",
        "model_version": MODEL,
        "as_of": AS_OF,
        "evidence_ids": evidence,
    }


def _kpi_rows(w: World) -> list[dict[str, Any]]:
    rows = []
    for g, geo in enumerate(GEOS):
        for t, week in enumerate(WEEKS):
            for metric, scale in (("conversions", 1.0), ("revenue", REVENUE_PER_KPI), ("active_users", 9.0)):
                rows.append(
                    _stamp("rel-kpi-1")
                    | {"geo": geo, "week": week, "metric": metric, "value": w.kpi[g, t] * scale}
                    | {"variance": 144.0 * scale**2, "suppressed": g == len(GEOS) - 1 and t % 9 == 0}
                )
    return rows


def _effect(scope: str, channel: str, metric: str, draws: np.ndarray, geo: str | None, week: date | None) -> dict:
    key = {"status": "published", "scope": scope, "geo": geo, "week": week, "channel": channel, "metric": metric}
    return _stamp() | key | summarise(draws)


def _effect_rows(w: World) -> list[dict[str, Any]]:
    rows = []
    now = w.response.current_spend
    marginal = (w.response.marginal(now) * (now / now.sum(axis=0))[None]).sum(axis=1)
    for c, channel in enumerate(CHANNELS):
        total = w.draws[..., c].sum(axis=(1, 2))
        spend = w.spend[..., c].sum()
        figures = {
            "incremental_kpi": total,
            "incremental_revenue": total * REVENUE_PER_KPI,
            "share": total / w.kpi.sum(),
            "roi": total * REVENUE_PER_KPI / spend,
            "mroi": marginal[:, c] * REVENUE_PER_KPI,
        }
        rows += [_effect("total", channel, m, d, None, None) for m, d in figures.items()]
        weekly = w.draws[..., c].sum(axis=1)
        rows += [_effect("week", channel, "incremental_kpi", weekly[:, t], None, x) for t, x in enumerate(WEEKS)]
        by_geo = w.draws[..., c].sum(axis=2)
        rows += [_effect("geo", channel, "incremental_kpi", by_geo[:, g], x, None) for g, x in enumerate(GEOS)]
    return rows


def _curve_rows(w: World) -> list[dict[str, Any]]:
    rows = []
    now = w.response.current_spend
    for c, channel in enumerate(CHANNELS):
        top = w.response.observed_max[c]
        for total in np.linspace(0, 1.5 * top, 25):
            spend = now * (total / now[:, c].sum())
            draws = w.response.evaluate(spend)[..., c].sum(axis=1)
            marginal = (w.response.marginal(spend)[..., c] * now[:, c] / now[:, c].sum()).sum(axis=1).mean()
            row = {"channel": channel, "spend": total, "marginal": marginal, "observed": bool(total <= top)}
            rows.append(_stamp() | row | summarise(draws))
    return rows


def _lift_rows(w: World) -> list[dict[str, Any]]:
    rows = []
    plan = (
        ("search_dark_spring", "geo", "search", "", 30, 34, slice(0, 3), -1.0, "geo_regression"),
        ("tv_heavy_up", "geo", "tv", "", 50, 54, slice(3, 7), 1.0, "geo_regression"),
        ("retargeting_holdout", "user", "retargeting", "treated", 60, 64, slice(0, 12), 1.0, "difference_in_means"),
    )
    for name, kind, channel, arm, first, last, geos, sign, estimator in plan:
        c = CHANNELS.index(channel)
        effect = sign * 0.8 * w.draws[:, geos, first:last, c].sum(axis=(1, 2)).mean()
        sd = abs(effect) * 0.22
        delta = float("nan") if kind == "user" else sign * 0.8 * w.spend[geos, first:last, c].sum()
        figures = normal_interval(effect, sd)
        window = {"start": WEEKS[first], "end": WEEKS[last] - timedelta(days=1)}
        ratio = sorted((figures["p05"] / delta, figures["p95"] / delta))
        rows.append(
            _stamp(f"exp-{name}")
            | {"experiment": name, "estimator": estimator, "kind": kind, "channel": channel, "arm": arm}
            | {"metric": "conversions", "p_value": 0.0001, "noise_variance_share": 0.08, "spend_delta": delta}
            | {"p_value_family": float("nan"), "published": True}
            | {"iroas": effect / delta, "iroas_p05": ratio[0], "iroas_p95": ratio[1]}
            | window
            | figures
        )
    return rows


def _credit_rows(w: World, periods: tuple[tuple[date, date], ...]) -> list[dict[str, Any]]:
    rows = []
    for start, end in periods:
        span = [t for t, x in enumerate(WEEKS) if start <= x <= end]
        true = w.draws[:, :, span].sum(axis=(1, 2)).mean(axis=0)
        total = w.kpi[:, span].sum()
        for model, bias in CREDIT_BIAS.items():
            credit = true * np.array(bias)
            named = [*zip(CHANNELS, credit, strict=True), ("unattributed", total - credit.sum())]
            key = {"model": model, "metric": "conversions", "period_start": start, "period_end": end}
            rows += [_stamp("rel-journeys-1") | key | {"channel": c} | normal_interval(v, 45.0) for c, v in named]
    return rows


def _factor_rows(w: World, periods: tuple[tuple[date, date], ...]) -> list[dict[str, Any]]:
    rows = []
    for start, end in periods:
        span = [t for t, x in enumerate(WEEKS) if start <= x <= end]
        draws = w.draws[:, :, span].sum(axis=(1, 2))
        for model, bias in CREDIT_BIAS.items():
            for c, channel in enumerate(CHANNELS):
                credited = draws[:, c].mean() * bias[c]
                hidden = model == "last_touch" and channel == "tv"
                figures = dict.fromkeys(("mean", "sd", "p05", "p10", "p50", "p90", "p95"))
                p05, p95 = np.quantile(draws[:, c], (0.05, 0.95))
                lift = 0.5 if channel in ("search", "tv", "retargeting") else 0.0
                flag = "credit is over twice what tests and model support" if bias[c] > 2 else ""
                rows.append(
                    _stamp()
                    | {"channel": channel, "model": model, "period_start": start, "period_end": end}
                    | (figures if hidden else summarise(draws[:, c] / credited))
                    | {"incremental_kpi": draws[:, c].mean(), "incremental_p05": p05, "incremental_p95": p95}
                    | {"credited": credited, "weight_lift": lift, "weight_mmm": 0.9 - lift, "weight_credit": 0.1}
                    | {"flag": flag}
                )
    return rows


def _score_rows(w: World) -> list[dict[str, Any]]:
    """What the model, last touch and all other evidence said of each test, in two quarters."""
    offs = {"mmm": 0.1, "last_touch": 1.2, "pool": 0.05}
    tests = {r["experiment"]: r for r in _lift_rows(w)}
    rows = []
    for k, test in enumerate(tests.values()):
        for source, off in offs.items():
            predicted, se = test["mean"] * (1 + off), test["sd"]
            z = (test["mean"] - predicted) / se
            rows.append(
                _stamp() | {"source": source, "experiment": test["experiment"], "channel": test["channel"]}
                | {"quarter": f"2025-Q{1 + k % 2}", "predicted": predicted, "p05": predicted - 1.645 * se}
                | {"p95": predicted + 1.645 * se, "observed": test["mean"], "std_error": se}
                | {"covered": bool(abs(z) < 1.645), "log_score": float(-0.5 * z**2 - np.log(se) - 0.919)}
            )  # fmt: skip
    return rows


def _scenario_rows(w: World) -> dict[str, list[dict[str, Any]]]:
    """Rows of v_scenarios and v_scenario_cells."""
    moves = {"current": np.zeros(5), "best": np.array([-0.3, -0.2, 0.3, 0.06, 0.1])}
    here, now = surface(), today(surface())
    saved = {"scenario_id": "", "version": 0, "author": "", "note": "", "outdated": False}
    rows: dict[str, list[dict[str, Any]]] = {"v_scenarios": [], "v_scenario_cells": []}
    for name, change in moves.items():
        done = evaluate_plan(here, held(here, now * (1 + change)), name)
        own = saved | {"locked": False, "of_record": False}
        rows["v_scenarios"] += [_stamp() | own | r for r in done.channels.to_dict("records")]
        cell = {"scenario_id": "", "version": 0}
        rows["v_scenario_cells"] += [_stamp() | cell | r for r in done.cells.to_dict("records")]
    return rows


def dynamic() -> DynamicResponse:
    """The world's response in time: what was spent in its last weeks is still in flight."""
    w = world()
    r, lags = w.response, 5
    exposure = w.spend * r.unit[:, None, :]
    draws, channels = r.half_saturation.shape
    return DynamicResponse(
        steady=r, retention=np.full((draws, channels), 0.4), delay=np.zeros((draws, channels)), lags=lags,
        recent=exposure[:, -(lags - 1) :], observed=exposure.max(axis=1), population=np.ones(len(GEOS)),
        last_period=WEEKS[-1], period_days=7, currency=META["currency"], kpi_name=META["kpi"], revenue_per_kpi=None,
    )  # fmt: skip


PERIOD = Period(WEEKS[-1] + timedelta(days=7), 13, {})


@lru_cache(maxsize=1)
def surface() -> Surface:
    """What the explorer prices plans on in a file of this world."""
    found = from_tables(to_tables(dynamic()))
    assert found is not None
    return surface_of(found, PERIOD.to_json())


def _provenance() -> dict[str, list[dict[str, Any]]]:
    blocks = [f"quarter-{start.isoformat()}" for start, _ in QUARTERS]
    releases = [
        {"run_id": EFFECT_RUN, "release_id": "rel-kpi-1", "measure": "kpi", "block": b, "vector": "conversions"}
        | {"period_start": s, "period_end": e, "rho": 0.1, "epsilon": 1.9, "delta": 1e-6, "l2_bound": 4.0}
        | {"sigma": 12.0, "published_at": AS_OF, "hash": "9b1c" * 16, "correction": 0, "superseded_by": ""}
        for b, (s, e) in zip(blocks, QUARTERS, strict=True)
    ]
    charges = [
        {"release_id": f"rel-{m}-1", "measure": m, "block": b, "rho": rho, "block_spent": 0.18, "block_cap": 0.2}
        | {"charged_at": AS_OF, "paid_by": m}
        for b in blocks
        for m, rho in (("kpi", 0.1), ("journeys", 0.05), ("trials", 0.03))
    ]
    runs = [
        {"run_id": EFFECT_RUN, "step": s, "status": "done", "reason": "", "started_at": AS_OF, "seconds": x}
        for s, x in (("check", 1.2), ("release", 14.0), ("lift", 3.1), ("fit", 190.0), ("credit", 0.6))
    ]
    checks = [
        {"check_name": "r_hat", "subject": "published totals", "status": "pass", "value": 1.004, "threshold": 1.01}
        | {"text": "Every published total has R-hat below 1.01."},
        {"check_name": "unattributed", "subject": "journeys", "status": "warn", "value": 0.31, "threshold": 0.05}
        | {"text": "31 % of conversions have no recorded touch."},
    ]
    lineage = [{"output": "v_effects", "input": "rel-kpi-1", "input_hash": "9b1c" * 16}]
    return {"v_releases": releases, "v_charges": charges, "v_runs": runs, "v_checks": checks, "v_lineage": lineage}


def full() -> Tables:
    """The complete workspace: user-level releases, three experiments, six quarters."""
    w = world()
    effects = _effect_rows(w)
    rows = {
        "v_kpi": _kpi_rows(w),
        "v_effects": effects,
        "v_effects_history": effects,
        "v_curves": _curve_rows(w),
        "v_lift": _lift_rows(w),
        "v_credit": _credit_rows(w, QUARTERS),
        "v_incrementality": _factor_rows(w, QUARTERS),
        "v_pool_scores": _score_rows(w),
    } | _scenario_rows(w)
    return Tables(rows | _provenance(), to_tables(dynamic()))


NEED_A_MODEL = ("v_incrementality", "v_scenarios", "v_scenario_cells", "v_pool_scores")


def variant(name: str) -> Tables:
    """'full', or a state: see the branches. 'released_only' stops before the fit."""
    t = full()
    if name == "empty":
        return Tables()
    if name == "aggregate_only":
        for view in ("v_lift", "v_credit", "v_incrementality", "v_pool_scores", "v_releases", "v_charges"):
            t.rows[view] = []
        t.rows["v_kpi"] = [
            r | {"release_id": "panel", "variance": 0.0} for r in t.rows["v_kpi"] if r["metric"] == "conversions"
        ]
        t.meta |= {"user_level": "false"}
    if name == "failed_gate":
        t.rows["v_effects"] = [r | {"status": "failed_gate"} for r in t.rows["v_effects"]]
        for view in (*NEED_A_MODEL, "v_effects_history", "v_curves"):
            t.rows[view] = []  # what rests on the model is not published
        t.draws = None
        t.rows["v_checks"][0] |= {"status": "fail", "value": 1.2, "text": "R-hat of search is 1.2; the limit is 1.05."}
        t.rows["v_runs"][3] |= {"status": "failed_gate", "reason": "R-hat of search is 1.2; the limit is 1.05."}
    if name == "released_only":
        for view in (*NEED_A_MODEL, "v_effects", "v_effects_history", "v_curves", "v_credit"):
            t.rows[view] = []
        t.draws = None
        t.rows["v_runs"] = t.rows["v_runs"][:3] + [
            {"run_id": EFFECT_RUN, "step": step, "status": "skipped", "reason": f"{step} has too few weeks."}
            | {"started_at": None, "seconds": 0.0}
            for step in ("fit", "credit")
        ]
    if name == "no_experiments":
        t.rows["v_lift"] = []
    if name == "no_revenue":
        money = ("incremental_revenue", "roi", "mroi")
        t.rows["v_effects"] = [r for r in t.rows["v_effects"] if r["metric"] not in money]
    if name == "one_period":
        whole = ((WEEKS[0], WEEKS[-1] + timedelta(days=6)),)
        t.rows |= {"v_credit": _credit_rows(world(), whole), "v_incrementality": _factor_rows(world(), whole)}
    return t


def write(path: Path, tables: Tables) -> Path:
    """Writes every view of the contract, `response_draws` and `meta` to a new DuckDB file."""
    with duckdb.connect(str(path)) as con:
        for view in VIEWS:
            columns = ", ".join(f'"{c.name}" {c.type}' for c in view.columns)
            con.execute(f"CREATE TABLE t_{view.name[2:]} ({columns})")
            con.execute(f"CREATE VIEW {view.name} AS SELECT * FROM t_{view.name[2:]}")
            rows = tables.rows.get(view.name, [])
            if rows:
                frame = pd.DataFrame(rows, columns=list(BY_NAME[view.name].names))  # noqa: F841 - read by DuckDB
                con.execute(f"INSERT INTO t_{view.name[2:]} SELECT * FROM frame")
        held = tables.draws or to_tables(dynamic())
        for name, frame in (("response_draws", held.draws), ("response_recent", held.recent)):
            con.register("frame", frame if tables.draws else frame.iloc[:0])
            con.execute(f"CREATE TABLE {name} AS SELECT * FROM frame")
            con.unregister("frame")
        con.execute("CREATE TABLE meta (key VARCHAR, value VARCHAR)")
        meta = dict(tables.meta)
        if tables.draws:
            meta |= {RESPONSE_KEY: tables.draws.facts, PERIOD_KEY: PERIOD.to_json()}
        if meta:
            con.executemany("INSERT INTO meta VALUES (?, ?)", list(meta.items()))
    return path


if __name__ == "__main__":
    import sys

    write(Path(sys.argv[2]), variant(sys.argv[1]))
