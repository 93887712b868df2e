"""Saved scenarios as plans of the planning room, to and from files, and what the commands do with them."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from app.saved import pricing, remarks, scenarios
from app.saved.scenarios import Pricing, Saved
from app.store import Snapshot
from contracts.errors import InputError
from planning import plan_files, plans
from planning.objective import Objective
from planning.pacing import Planned, by_period, pacing
from planning.plans import Approval, Plan
from planning.scenarios import CURRENT, RECOMMENDED, plan_of_cells
from planning.surface import Surface, held
from workflow.job import Job

SUFFIXES = (".json", ".csv", ".xlsx")


def plan_of(saved: Saved, said: Sequence[remarks.Approval] = (), record: remarks.OfRecord | None = None) -> Plan:
    """A saved scenario as a plan by week, geo and channel."""
    cells = saved.pricing.cells
    cube = cells.pivot_table(index="period_start", columns=["geo", "channel"], values="spend", aggfunc="sum").fillna(
        0.0
    )
    geos, channels = (tuple(sorted(cells[k].unique())) for k in ("geo", "channel"))
    spend = cube.reindex(columns=pd.MultiIndex.from_product([geos, channels]), fill_value=0.0).to_numpy()
    approvals = tuple(
        Approval(a.author, _utc(a.decided_at), a.decision == "approved", a.reason)
        for a in said
        if (a.scenario_id, a.version) == (saved.id, saved.version)
    )
    return Plan(
        name=saved.name, author=saved.author, made=_utc(saved.saved_at), note=saved.note, version=saved.version,
        currency=saved.pricing.currency, start=saved.pricing.period_start, period_days=7, geos=geos, channels=channels,
        spend=spend.reshape(len(cube), len(geos), len(channels)), model_version=saved.pricing.model_version,
        locked=saved.locked, approvals=approvals,
        of_record=record is not None and (record.scenario_id, record.version) == (saved.id, saved.version),
    )  # fmt: skip


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def on_surface(plan: Plan, surface: Surface) -> np.ndarray:
    """Spend (T, G, C) of a plan by week on a surface of its period. Raises ContractError that names the misfit:
    currency, channel, geo, a start before the history ends, another period."""
    days = surface.response.period_days
    if plan.period_days == 7 and days == 1:
        daily = np.repeat(plan.spend / 7, 7, axis=0)
        plan = dataclasses.replace(plan, spend=daily, period_days=1)
    return plans.fitting(plan, surface).spend


def write_plan(plan: Plan, path: Path) -> None:
    """Writes a plan as its ending says. Raises InputError for another ending, and where the file is there."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path.name} must end in {', '.join(SUFFIXES)}.")
    if path.exists():
        raise InputError(f"{path} exists; choose another name. Nothing was written.")
    if path.suffix == ".xlsx":
        path.write_bytes(plan_files.to_xlsx(plan))
    else:
        text = plan_files.to_json(plan) if path.suffix == ".json" else plan_files.to_csv(plan)
        path.write_text(text, encoding="utf-8", newline="")


def read_plan(path: Path, author: str) -> Plan:
    """Reads a plan as its ending says. Raises InputError."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path.name} must end in {', '.join(SUFFIXES)}.")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    given: dict[str, Any] = {"author": author, "at": datetime.now(UTC), "note": f"from {path.name}"}
    if path.suffix == ".xlsx":
        return plan_files.from_xlsx(raw, source=path.name, **given)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not text in UTF-8.") from None
    if path.suffix == ".json":
        return plan_files.from_json(text, path.name)
    return plan_files.from_csv(text, source=path.name, **given)


def start_from(s: Snapshot, con: sqlite3.Connection, root: Path, name: str) -> np.ndarray:
    """Spend (T, G, C) of today held, of the recommendation, or of a saved scenario."""
    here = pricing.surface(s)
    if name == CURRENT:
        return held(here)
    if name == RECOMMENDED:
        from workflow.warehouse import read_view

        cells = read_view(root / "warehouse.duckdb", "v_scenario_cells")
        mine = cells[(cells["scenario"] == RECOMMENDED) & (cells["scenario_id"] == "")]
        if mine.empty:
            raise InputError("there is no recommendation in the warehouse; run `plumb plan`.")
        return plan_of_cells(here, mine.assign(period_start=pd.to_datetime(mine["period_start"]).dt.date))
    return pricing.spend_of(scenarios.by_name(con, name).pricing, here)


def changed(here: Surface, spend: np.ndarray, amounts: Mapping[str, str]) -> np.ndarray:
    """The plan with some channels' spend per week set ("12000") or moved ("+10%", "-5%"). Raises InputError."""
    out, known, weeks = spend.copy(), here.response.channels, here.periods * here.response.period_days / 7
    for channel, text in amounts.items():
        if channel not in known:
            raise InputError(f"--spend names {channel!r}; the model knows {', '.join(known)}. Nothing was saved.")
        c = known.index(channel)
        try:
            share = text.endswith("%")
            value = float(text.rstrip("%")) / (100 if share else 1)
        except ValueError:
            raise InputError(f"--spend {channel}={text}: write an amount per week, or a change such as +10%.") from None
        if not np.isfinite(value) or (value < -1 if share else value < 0):
            raise InputError(f"--spend {channel}={text}: the spend would be negative. Nothing was saved.")
        total = float(out[:, :, c].sum())
        target = total * (1 + value) if share else value * weeks
        out[:, :, c] = out[:, :, c] * (target / total) if total > 0 else held(here, np.eye(len(known))[c])[
            :, :, c] * target / here.periods  # fmt: skip
    return out


def compare(s: Snapshot, named: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Plans side by side, the first as the base: `planning.plans.compare` in the KPI."""
    here = pricing.surface(s)
    at = datetime.now(UTC)
    made = [plans.create(here, spend, name=name, author="compare", at=at) for name, spend in named.items()]
    return plans.compare(here, made, Objective())


def pace(job: Job, saved: Pricing, as_of: date | None) -> tuple[pd.DataFrame, pd.DataFrame, date]:
    """Pacing by channel, spend by week and channel, and the day that they stand at (the last day that spend covers,
    where not given). Raises InputError where no spend of the plan's period has come."""
    cells = saved.cells.groupby(["period_start", "channel"])["spend"].sum().unstack("channel").fillna(0.0)
    plan = Planned(saved.period_start, 7, tuple(str(c) for c in cells.columns), cells.to_numpy())
    actual, covered = actual_spend(job)
    actual = actual[(actual["date"] >= plan.start) & (actual["date"] <= plan.last)]
    if actual.empty:
        raise InputError(
            f"no spend of the plan's period ({plan.start} to {plan.last}) has come yet; add it to the spend table."
        )
    last = as_of or min(covered, plan.last)
    return pacing(plan, actual, last), by_period(plan, actual), last


def actual_spend(job: Job) -> tuple[pd.DataFrame, date]:
    """Spend by day and channel (date, channel, spend), and the last day that it covers."""
    if job.panel_door:
        panel = job.panel
        rows = [
            {"date": week, "channel": c, "spend": float(panel.spend[:, t, i].sum())}
            for t, week in enumerate(panel.weeks)
            for i, c in enumerate(panel.channels)
        ]
        return pd.DataFrame(rows), panel.weeks[-1] + timedelta(days=panel.period_days - 1)
    spend = job.public.spend
    if spend is None:
        raise InputError("there is no spend table; add one to plumb.toml.")
    frame = spend.rows[["day", "channel", "spend"]].rename(columns={"day": "date"})
    frame["date"] = [d if isinstance(d, date) and not isinstance(d, datetime) else pd.Timestamp(d).date()
                     for d in frame["date"]]  # fmt: skip
    return frame.groupby(["date", "channel"], as_index=False)[["spend"]].sum(), spend.last


def describe(saved: Saved) -> dict[str, Any]:
    """What a command prints of a saved scenario."""
    p = saved.pricing
    return {
        "id": saved.id, "name": saved.name, "version": saved.version, "author": saved.author, "note": saved.note,
        "period_start": p.period_start, "period_end": p.period_end, "budget": p.budget, "currency": p.currency,
        "kpi": p.kpi, "locked": list(saved.locked), "p10": p.total["p10"], "p50": p.total["p50"],
        "p90": p.total["p90"],
        "extrapolated": [str(c) for c, far in zip(p.channels["channel"], p.channels["extrapolated"], strict=True)
                         if far],
        "plan": p.plan,
    }  # fmt: skip
