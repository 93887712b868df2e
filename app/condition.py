"""View models of Health: gates, drift, freshness and completeness, each as a verdict with its figure and limit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import pandas as pd

from app import figures
from app.rows import each
from app.store import Snapshot
from app.wording import figure, percent, with_interval

STALE_DAYS = 7  # a posterior older than this is stale
GROUPS = {
    "inputs": ("input_contract", "consent", "custody", "rejected"),
    "releases": ("diagnostics", "levels"),
    "model": ("calibrated", "uncalibrated", "model", "forecast"),
    "credit": ("credit",),
    "reconciliation": ("reconcile",),
    "plan": ("plan", "next"),
}
OTHER = "other"
ORDER = {"fail": 0, "warn": 1, "pass": 2}


@dataclass(frozen=True, slots=True)
class Group:
    """Checks of one part of the job."""

    name: str
    failed: int
    warned: int
    passed: int

    @property
    def level(self) -> str:
        """'fail', 'warn' or 'ok'."""
        return "fail" if self.failed else "warn" if self.warned else "ok"


def groups(s: Snapshot) -> tuple[Group, ...]:
    """Counts by part of the job, in the order of the job."""
    part = s.checks["check_name"].map(_group)
    out = []
    for name in (*GROUPS, OTHER):
        status = s.checks.loc[part == name, "status"]
        if len(status):
            out.append(Group(name, *(int((status == k).sum()) for k in ("fail", "warn", "pass"))))
    return tuple(out)


def checks(s: Snapshot, group: str, *, all_of_them: bool) -> pd.DataFrame:
    """Checks of a group, worst first; those that pass only on demand."""
    rows = s.checks[s.checks["check_name"].map(_group) == group]
    rows = rows if all_of_them else rows[rows["status"] != "pass"]
    rows = rows.sort_values("status", key=lambda c: c.map(ORDER), kind="stable")
    return pd.DataFrame(
        [
            {
                "verdict": r.status, "check": str(r.check_name).replace("_", " "), "of": r.subject, "what": r.text,
                "figure": figure(r.value), "limit": figure(r.threshold),
            }
            for r in each(rows)
        ],
        columns=["verdict", "check", "of", "what", "figure", "limit"],
    )  # fmt: skip


def freshness(s: Snapshot, today: date) -> list[tuple[str, str, str]]:
    """(level, what, sentence) for the data and for the posterior."""
    out = []
    if s.meta.period_end:
        days = (today - date.fromisoformat(s.meta.period_end)).days
        text = f"The data end on {s.meta.period_end}, {days} days ago."
        out.append(("warn" if days > 100 else "ok", "data", f"{text} A quarter is released after it has closed."))
    if s.meta.generated_at:
        made = pd.Timestamp(s.meta.generated_at).date()
        days = (today - made).days
        stale = days > STALE_DAYS
        text = f"The figures were made on {made}, {days} day{'s' if days != 1 else ''} ago"
        out.append(("warn" if stale else "ok", "figures", f"{text}{'; run `plumb run`' if stale else ''}."))
    return out


def completeness(s: Snapshot) -> tuple[float, int] | None:
    """Share of geo × period cells of the KPI that hold a value, and how many cells there are; None without a KPI."""
    cells = s.kpi[s.kpi["metric"] == s.meta.kpi]
    if cells.empty:
        return None
    weeks = pd.Series(cells["week"].unique()).sort_values()
    step = pd.Timedelta(days=figures.period_days(s))
    expected = int((weeks.iloc[-1] - weeks.iloc[0]) / step + 1) * cells["geo"].nunique()
    return float(cells["value"].notna().sum() / expected), expected


def drift(s: Snapshot) -> pd.DataFrame:
    """Totals of the newest two published runs beside each other, and whether they moved beyond their intervals."""
    rows = s.effects_history[(s.effects_history["metric"] == "incremental_kpi") & (s.effects_history["status"] ==
                                                                                  figures.PUBLISHED)]  # fmt: skip
    order = rows.groupby("run_id")["as_of"].max().sort_values(ascending=False).index.tolist()
    if len(order) < 2:
        return pd.DataFrame()
    now, then = (rows[rows["run_id"] == run].set_index("channel") for run in order[:2])
    out = []
    for channel in sorted(set(now.index) & set(then.index)):
        a, b = now.loc[channel], then.loc[channel]
        apart = a["p05"] > b["p95"] or a["p95"] < b["p05"]
        out.append(
            {
                "channel": channel,
                "now (90 % interval)": with_interval(a["mean"], a["p05"], a["p95"]),
                "before (90 % interval)": with_interval(b["mean"], b["p05"], b["p95"]),
                "change": percent(a["mean"] / b["mean"] - 1 if b["mean"] else None, signed=True),
                "verdict": "intervals do not overlap" if apart else "within both intervals",
            }
        )
    return pd.DataFrame(out)


def changed_because(s: Snapshot) -> list[str]:
    """Why two runs may differ: specification or code, and the releases that were read."""
    rows = s.effects_history.sort_values("as_of", ascending=False).drop_duplicates("run_id")
    if len(rows) < 2:
        return []
    now, then = rows.iloc[0], rows.iloc[1]
    out = []
    if now["model_version"] != then["model_version"]:
        out.append(f"Specification or code changed: {then['model_version']} became {now['model_version']}.")
    ids = [set(str(r["release_id"] or "").split(";")) - {""} for r in (now, then)]
    if ids[0] - ids[1]:
        out.append(f"{len(ids[0] - ids[1])} releases are new.")
    if ids[1] - ids[0]:
        out.append(f"{len(ids[1] - ids[0])} releases are no longer read.")
    tests = [{i for i in str(r["evidence_ids"] or "").split(";") if i.startswith("experiment:")} for r in (now, then)]
    if tests[0] ^ tests[1]:
        out.append(f"Tests that calibrate the model changed: {', '.join(sorted(tests[0] ^ tests[1]))}.")
    return out or ["The same specification, code, releases and tests: only the sampler's own error differs."]


def _group(check: str) -> str:
    for name, starts in GROUPS.items():
        if check.startswith(starts):
            return name
    return OTHER
