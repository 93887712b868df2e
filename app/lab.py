"""View models of the Attribution lab: credit models side by side, what moved beyond noise, claims against the books."""

from __future__ import annotations

import pandas as pd

from app import figures
from app.evidence import Period
from app.rows import each
from app.store import Snapshot
from app.wording import INTERVAL_NAME, figure, percent, ratio, title, with_interval

METRICS = ("conversions", "revenue")
KINDS = {
    "models": "models against each other",
    "change": "change from one period to the next",
    "versions": "change since an earlier version",
    "total": "credit against the books",
    "claims": "platform claims against all sales",
}


def periods(s: Snapshot) -> tuple[Period, ...]:
    """Periods that hold credit, newest first."""
    rows = s.credit[["period_start", "period_end"]].drop_duplicates()
    found = {Period(pd.Timestamp(a), pd.Timestamp(b)) for a, b in rows.itertuples(index=False, name=None)}
    return tuple(sorted(found, reverse=True))


def models(s: Snapshot, period: Period, metric: str) -> tuple[str, ...]:
    """Credit models of a period, in the order of the file."""
    return tuple(dict.fromkeys(str(m) for m in _rows(s, period, metric)["model"]))


def shares(s: Snapshot, period: Period, metric: str) -> pd.DataFrame:
    """Share of each channel in each model's credit to channels: model, channel, share, low, high (90 %), share of 1.

    The interval is that of the credit divided by the expected total: the total's own noise is common to all
    channels and does not change who has more.
    """
    rows = _rows(s, period, metric)
    rows = rows[rows["channel"] != "unattributed"]
    total = rows.groupby("model")["mean"].transform("sum")
    out = rows.assign(share=rows["mean"] / total, low=rows["p05"] / total, high=rows["p95"] / total)
    return out.loc[total > 0, ["model", "channel", "share", "low", "high"]].reset_index(drop=True)


def credit_table(s: Snapshot, period: Period, metric: str) -> pd.DataFrame:
    """Credit with its interval, channel × model; `unattributed` last, each model adding up to one total."""
    rows = _rows(s, period, metric)
    unit = s.meta.currency if metric == "revenue" else metric
    names = [c for c in dict.fromkeys(rows["channel"]) if c != "unattributed"]
    order = [*sorted(names), *(["unattributed"] if "unattributed" in set(rows["channel"]) else [])]
    out = []
    for channel in order:
        held = rows[rows["channel"] == channel].set_index("model")
        cells = {"channel": channel}
        for model in models(s, period, metric):
            r = held.loc[model] if model in held.index else None
            cells[f"{title(model)}, {unit}"] = "–" if r is None else with_interval(r["mean"], r["p05"], r["p95"])
        out.append(cells)
    return pd.DataFrame(out)


def cost_table(s: Snapshot, period: Period) -> pd.DataFrame:
    """Spend, cost per credited conversion and credited return, channel × model; empty where no spend is joined."""
    rows = s.credit[(s.credit["period_start"] == period.start) & s.credit["spend"].notna()]
    per = f"CPA, {s.meta.currency} per credited conversion ({INTERVAL_NAME})"
    back = f"credited revenue per {s.meta.currency} ({INTERVAL_NAME})"
    out: dict[tuple[str, str], dict[str, str]] = {}
    for r in each(rows):
        cells = out.setdefault(
            (r.channel, r.model),
            {"channel": r.channel, "credit model": title(str(r.model)), f"spend, {s.meta.currency}": figure(r.spend)},
        )
        if r.metric == "conversions":
            cells[per] = with_interval(r.cpa, r.cpa_p05, r.cpa_p95)
        else:
            cells[back] = with_interval(r.roas, r.roas_p05, r.roas_p95, ratio)
    return pd.DataFrame([out[key] for key in sorted(out)]).fillna("–")


def definitions(s: Snapshot, period: Period, metric: str) -> list[str]:
    """What each model counts, one line a model."""
    rows = _rows(s, period, metric).drop_duplicates("model")
    return [f"{title(str(r.model))}: {r.definition}" for r in each(rows) if r.definition]


def findings(s: Snapshot, kind: str, *, only_warnings: bool) -> pd.DataFrame:
    """Parity comparisons of one kind as text, the surest first."""
    rows = s.parity[s.parity["kind"] == kind]
    rows = rows[rows["status"] == "warn"] if only_warnings else rows
    rows = rows.sort_values("p_value", na_position="last", kind="stable")
    return pd.DataFrame(
        [{"verdict": "differs" if r.status == "warn" else "agrees", "finding": r.text} for r in each(rows)],
        columns=["verdict", "finding"],
    )


def kinds(s: Snapshot) -> dict[str, tuple[int, int]]:
    """Kinds of comparison in the file: how many differ, and how many there are."""
    out = {}
    for kind in KINDS:
        rows = s.parity[s.parity["kind"] == kind]
        if len(rows):
            out[kind] = (int((rows["status"] == "warn").sum()), len(rows))
    return out


def sentence(s: Snapshot, period: Period, metric: str) -> str:
    """How far the models are apart: the channel whose share depends most on the choice of model."""
    wide = shares(s, period, metric).pivot(index="channel", columns="model", values="share")
    if wide.empty or wide.shape[1] < 2:
        return ""
    at = str((wide.max(axis=1) - wide.min(axis=1)).idxmax())
    held = sorted(zip(wide.loc[at].to_numpy(dtype=float).tolist(), map(str, wide.columns), strict=True))
    (least, low), (most, high) = held[0], held[-1]
    return (
        f"The choice of model matters most for {at}: {percent(least)} of the credit by {title(low)}, "
        f"{percent(most)} by {title(high)}. Neither says what {at} caused: see Reconcile."
    )


def headline_metric(s: Snapshot) -> str:
    """The metric of the KPI."""
    return "revenue" if figures.units(s).kpi_is_money else "conversions"


def _rows(s: Snapshot, period: Period, metric: str) -> pd.DataFrame:
    return s.credit[(s.credit["period_start"] == period.start) & (s.credit["metric"] == metric)]
