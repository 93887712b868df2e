"""View models of the page Reconcile: what every source says of one channel in one period, on one scale."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from app import figures
from app.charts.forest import FAMILIES
from app.rows import each
from app.store import Snapshot
from app.wording import figure, percent, title, with_interval

Z90 = 1.6448536269514722

CREDIT_SENTENCE = (
    "Credit is descriptive: it says which touches came before a conversion, not which spend caused it. "
    "Tests, the model and the pooled estimate measure cause."
)


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """First and last day, both included."""

    start: pd.Timestamp
    end: pd.Timestamp

    @property
    def label(self) -> str:
        """'2025-01-06 to 2025-04-06'."""
        return figures.span(self.start, self.end)


def periods(s: Snapshot) -> tuple[Period, ...]:
    """Periods that hold factors, then those that hold credit alone, each newest first.

    A page opens on the first, so one with factors leads. The whole workspace's period where there is neither.
    """
    factors, credit = (_spans(f) for f in (s.incrementality, s.credit))
    if factors or credit:
        return (*sorted(factors, reverse=True), *sorted(credit - factors, reverse=True))
    if s.meta.period_start and s.meta.period_end:
        return (Period(pd.Timestamp(s.meta.period_start), pd.Timestamp(s.meta.period_end)),)
    return ()


def _spans(frame: pd.DataFrame) -> set[Period]:
    rows = frame[["period_start", "period_end"]].drop_duplicates().itertuples(index=False, name=None)
    return {Period(pd.Timestamp(a), pd.Timestamp(b)) for a, b in rows}


def sources(s: Snapshot, channel: str, period: Period) -> pd.DataFrame:
    """Rows of the forest plot: source, family, mean, p05, p95 (KPI units in the period), note.

    A test speaks of its own geos and weeks. It is brought to the period by its outcome per unit of spend times the
    channel's spend of the period; a test without a known spend change stays in the table of tests only.
    """
    rows = [*_pooled(s, channel, period), *_model(s, channel, period), *_lift(s, channel, period)]
    rows += _credit(s, channel, period)
    frame = pd.DataFrame(rows, columns=["source", "family", "mean", "p05", "p95", "note"])
    order = {f: i for i, f in enumerate(FAMILIES)}
    return frame.sort_values("family", key=lambda f: f.map(order), kind="stable").reset_index(drop=True)


def factors(s: Snapshot, period: Period) -> pd.DataFrame:
    """Rows of `v_incrementality` in the period, sorted; mean is NaN where the factor must not be printed."""
    held = s.incrementality
    rows = held[(held["period_start"] == period.start) & (held["period_end"] == period.end)]
    return rows.sort_values(["channel", "model"]).reset_index(drop=True)


def flags(s: Snapshot, period: Period) -> list[str]:
    """Why sources disagree: one sentence for each channel and reason, naming the credit models it holds for."""
    rows = factors(s, period)
    rows = rows[rows["flag"].fillna("") != ""]
    return [
        f"{channel} ({', '.join(title(str(m)) for m in group['model'])}): {flag}"
        for (channel, flag), group in rows.groupby(["channel", "flag"], sort=False)
    ]


def period_spend(s: Snapshot, channel: str, period: Period) -> tuple[float | None, str]:
    """Spend of a channel in a period, and where it is from. The warehouse has no table of spend itself."""
    plan = figures.job_scenarios(s)
    same = (plan["period_start"] == period.start) & (plan["period_end"] == period.end)
    held = plan[same & (plan["scenario"] == figures.CURRENT) & (plan["channel"] == channel)]
    if len(held):
        return float(held["spend"].iloc[0]), "spend of the period"
    whole = str(period.start.date()) <= s.meta.period_start and str(period.end.date()) >= s.meta.period_end
    total = {m: figures.effect(s, m).set_index("channel")["mean"] for m in ("incremental_revenue", "roi")}
    if whole and all(channel in t.index for t in total.values()) and total["roi"][channel] != 0:
        return float(total["incremental_revenue"][channel] / total["roi"][channel]), "spend of the period"
    now = figures.current_spend(s.response).get(channel)
    weeks = _weeks(s, period)
    if now is None or not weeks:
        return None, ""
    return now * weeks, f"current spend per {figures.units(s).period} × {weeks}"


def _weeks(s: Snapshot, period: Period) -> int:
    weeks = pd.Series(s.kpi["week"].unique())
    return int(((weeks >= period.start) & (weeks <= period.end)).sum())


def _pooled(s: Snapshot, channel: str, period: Period) -> list[dict[str, object]]:
    rows = factors(s, period)
    rows = rows[rows["channel"] == channel].dropna(subset=["incremental_kpi"])
    if rows.empty:
        return []
    first = rows.iloc[0]  # the pooled outcome is one per channel and period, whatever the credit model
    weights = f"weights: tests {first.weight_lift:.0%}, model {first.weight_mmm:.0%}, credit {first.weight_credit:.0%}"
    return [_row("pooled", "pooled", first.incremental_kpi, first.incremental_p05, first.incremental_p95, weights)]


def _model(s: Snapshot, channel: str, period: Period) -> list[dict[str, object]]:
    rows = s.effects[(s.effects["metric"] == "incremental_kpi") & (s.effects["channel"] == channel)]
    weeks = rows[(rows["scope"] == "week") & (rows["week"] >= period.start) & (rows["week"] <= period.end)]
    total = rows[rows["scope"] == "total"]
    every = rows[rows["scope"] == "week"]
    if len(total) and (len(weeks) == len(every) or every.empty):
        r = total.iloc[0]
        return [_row("MMM, calibrated", "model", r["mean"], r["p05"], r["p95"], "total of the model")]
    if weeks.empty:
        return []
    # The weeks of one channel share its effect size and curve, so their errors move together and quantiles add up.
    note = f"sum of {len(weeks)} {figures.units(s).period}s, which err together"
    return [_row("MMM, calibrated", "model", weeks["mean"].sum(), weeks["p05"].sum(), weeks["p95"].sum(), note)]


def _lift(s: Snapshot, channel: str, period: Period) -> list[dict[str, object]]:
    read = s.lift["published"] & (s.lift["channel"] == channel) & (s.lift["metric"] == s.meta.kpi)
    rows = s.lift[read].dropna(subset=["iroas"])
    spend, basis = period_spend(s, channel, period)
    if spend is None:
        return []
    many = rows["experiment"].duplicated(keep=False)
    out = []
    for r, double in zip(each(rows), many, strict=True):
        name = f"test {r.experiment}" + (f", {title(str(r.estimator))}" if double else "")
        name += f", arm {r.arm}" if r.arm and double else ""
        note = f"tested {figures.span(r.start, r.end)}; outcome per unit of spend × {basis}"
        out.append(_row(name, "lift", r.iroas * spend, r.iroas_p05 * spend, r.iroas_p95 * spend, note))
    return out


def _credit(s: Snapshot, channel: str, period: Period) -> list[dict[str, object]]:
    """Credit of every quarter inside the period, added up; the quarters' released noise is independent."""
    rows = figures.credit_rows(s)
    inside = (rows["period_start"] >= period.start) & (rows["period_end"] <= period.end)
    rows = rows[(rows["channel"] == channel) & inside]
    out = []
    for model, group in rows.groupby("model", sort=False):
        mean, half = group["mean"].sum(), Z90 * (group["sd"] ** 2).sum() ** 0.5
        out.append(_row(f"credit, {title(str(model))}", "credit", mean, mean - half, mean + half, "descriptive"))
    return out


def _row(source: str, family: str, mean: float, p05: float, p95: float, note: str) -> dict[str, object]:
    return {"source": source, "family": family, "mean": mean, "p05": p05, "p95": p95, "note": note}


def unscaled_tests(s: Snapshot, channel: str) -> str:
    """Names of the channel's tests that cannot be put on the period's scale, joined by ', '."""
    of = s.lift["published"] & (s.lift["channel"] == channel) & (s.lift["metric"] == s.meta.kpi)
    rows = s.lift[of & s.lift["iroas"].isna()]
    return ", ".join(dict.fromkeys(rows["experiment"]))


GRADES = {
    "A": "an own test carries most of the estimate",
    "B": "an own test carries part of it",
    "C": "model and credit only",
    "D": "sources conflict, or the model did not pass its gate",
}
MOST, PART = 0.5, 0.1  # share of the precision that comes from tests


def grades(s: Snapshot) -> dict[str, str]:
    """Evidence grade of each channel's incremental outcome (GRADES), from the newest reconciled period.

    Without a reconciliation a channel with an own test is B and the others are C.
    """
    tested = set(s.lift["channel"])
    out = {c: "B" if c in tested else "C" for c in figures.channels(s)}
    rows = s.incrementality[s.incrementality["period_start"] == s.incrementality["period_start"].max()]
    for channel, group in rows.groupby("channel"):
        weight = float(group["weight_lift"].max()) if group["weight_lift"].notna().any() else 0.0
        out[str(channel)] = "A" if weight >= MOST else "B" if weight >= PART else "C"
    for channel in s.conflicts.loc[s.conflicts["severity"].fillna("") != "", "channel"]:
        out[str(channel)] = "D"
    return dict.fromkeys(out, "D") if figures.failed_gate(s) else out


def conflicts(s: Snapshot) -> pd.DataFrame:
    """Sources that cannot both be right, red first: channel, what, why it may be, what it may cost, as text."""
    rows = s.conflicts[s.conflicts["severity"].fillna("") != ""]
    rows = rows.assign(order=rows["z"].abs()).sort_values("order", ascending=False, kind="stable")
    columns = ["severity", "channel", "what", "what can explain it", "the answer was widened"]
    return pd.DataFrame(
        [
            {
                "severity": r.severity, "channel": r.channel, "what": r.text,
                "what can explain it": r.reasons or "nothing that is on record",
                "the answer was widened": "yes" if r.widened else "no",
            }
            for r in each(rows)
        ],
        columns=columns,
    )  # fmt: skip


def at_stake(s: Snapshot) -> pd.DataFrame:
    """What following one source alone would lose over the planning period, dearest first, as text."""
    rows = s.decision_loss[s.decision_loss["channel"].fillna("") == ""].sort_values("mean", ascending=False)
    units = figures.units(s)
    return pd.DataFrame(
        [
            {
                "following only": title(str(r.source)),
                f"loses, {_unit(str(r.unit), units.currency)} (90 % interval)": with_interval(r.mean, r.p05, r.p95),
                f"in money, {units.currency}": figure(r.money),
                "loses with probability": percent(r.probability),
            }
            for r in each(rows)
        ]
    )


def _unit(unit: str, currency: str) -> str:
    return currency if unit in ("revenue", "margin") else unit
