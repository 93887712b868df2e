"""View models of the Overview: every figure that a screen or the report shows, as plain values. No Streamlit here.

Estimates come from `v_effects` (calibrated model), credit from `v_credit`, factors from `v_incrementality`, planned
changes from `v_scenarios`; figures that depend on current spend come from the posterior draws of the response.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from app.rows import each
from app.store import Snapshot
from app.wording import Units, figure
from contracts.response import SteadyResponse
from contracts.tables import BY_NAME
from planning import summary

Z90 = 1.6448536269514722  # half-width of a normal 90 % interval in standard deviations
HEADLINE_MODEL = "last_touch"
CURRENT, RECOMMENDED = "current", "recommended"
BASELINE = "baseline"
PERIODS = {1: "day", 7: "week"}
MAX_POINTS = 200  # more periods than this are shown in groups of four
PUBLISHED = "published"
_BAND = ("value", "p05", "p95")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 90 % interval."""

    mean: float
    p05: float
    p95: float

    def excludes(self, value: float) -> bool:
        """True when the interval does not hold `value`."""
        return not self.p05 <= value <= self.p95


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the footer of a figure says."""

    as_of: str
    model_version: str
    evidence: tuple[str, ...]
    releases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What "Explain this number" says: (label, text) lines, and the same rows by SQL and REST ('' for several)."""

    lines: tuple[tuple[str, str], ...]
    sql: str
    address: str


@dataclass(frozen=True, slots=True)
class Health:
    """The line at the top left. `level`: 'ok', 'warn', 'fail' or 'none' (nothing was checked)."""

    level: str
    headline: str
    reasons: tuple[str, ...]
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Total:
    """Incremental outcome of all channels together; `share` of the KPI. `basis` says where the interval is from."""

    amount: Estimate
    share: Estimate | None
    basis: str


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """One row of the Overview's table. None where the warehouse does not hold what the figure needs."""

    channel: str
    spend: float | None  # currency per period, current
    incremental: Estimate  # KPI units, whole period
    roi: Estimate | None  # currency per currency
    mroi: Estimate | None
    cost: Estimate | None  # currency per incremental KPI unit, at current spend
    marginal_cost: Estimate | None  # currency per further KPI unit, at current spend
    credit: Estimate | None  # KPI units, last touch, sum over the released periods
    factor: Estimate | None  # caused ÷ credited, latest period
    change: float | None  # share of current spend, from the recommended scenario


def units(s: Snapshot) -> Units:
    """Names of KPI, currency and period of the workspace."""
    return Units(s.meta.kpi or "KPI", s.meta.currency, PERIODS.get(period_days(s), "period"))


def period_days(s: Snapshot) -> int:
    """Days of one period: the smallest step between two of the KPI; 7 where there are not two."""
    weeks = np.sort(s.kpi["week"].unique()) if len(s.kpi) else np.array([], dtype="datetime64[s]")
    return int(np.min(np.diff(weeks)) / np.timedelta64(1, "D")) if len(weeks) > 1 else 7


def channels(s: Snapshot) -> tuple[str, ...]:
    """All channels of the workspace, sorted: the domain of colours and shapes on every page."""
    named: set[str] = set(s.response.channels) if s.response else set()
    for frame in (s.effects, s.curves, s.incrementality, s.scenarios, s.lift):
        named |= set(frame["channel"])
    return tuple(sorted(named))


def failed_gate(s: Snapshot) -> bool:
    """True when no run has passed its gate: the rows that exist are not published."""
    return len(s.effects) > 0 and bool((s.effects["status"] != PUBLISHED).all())


def provenance(*frames: pd.DataFrame) -> Provenance:
    """Newest `as_of`, model versions, releases and evidence ids of the rows behind a figure."""
    held = [f for f in frames if len(f)]
    if not held:
        return Provenance("", "", (), ())
    stamps = pd.concat([f[["as_of", "model_version", "evidence_ids", "release_id"]] for f in held])
    models = [m for m in _ids(stamps["model_version"]) if m]
    return Provenance(
        f"{stamps['as_of'].max():%Y-%m-%d %H:%M} UTC",
        ", ".join(models),
        _ids(stamps["evidence_ids"]),
        _ids(stamps["release_id"]),
    )


def explain(stamp: Provenance, view: str = "") -> Explanation:
    """What stands behind a figure: model, tests and releases by kind, and where the same rows are found."""
    tests = sorted(e.removeprefix("experiment:") for e in stamp.evidence if e.startswith("experiment:"))
    others = sorted(e for e in stamp.evidence if not e.startswith("experiment:") and e not in stamp.releases)
    lines = []
    if view:
        lines.append(("What a row is", BY_NAME[view].grain))
    if stamp.model_version:
        lines.append(("Model", f"{stamp.model_version} (specification and code)"))
    if tests:
        lines.append(("Tests that it uses", ", ".join(tests)))
    if stamp.releases:
        kinds = Counter(r.split("-")[0] for r in stamp.releases)
        named = ", ".join(f"{n} of {kind}" for kind, n in sorted(kinds.items()))
        lines.append(("Private releases that it reads", f"{named}: {', '.join(stamp.releases)}"))
    if others:
        lines.append(("Other evidence", ", ".join(others)))
    lines.append(("Further back", "Lineage & audit follows it to the input files; Glossary says what the words mean."))
    sql = f"SELECT * FROM {view};" if view else ""
    return Explanation(tuple(lines), sql, f"GET /api/v1/views/{view}" if view else "")


def privacy_facts(s: Snapshot) -> tuple[str, ...]:
    """What the reader must know about whose data stand behind the figures."""
    if not s.meta.user_level:
        return ("No user-level data was used: this workspace started from an aggregate panel.",)
    facts = ["Figures are about consenting people, made from differentially private aggregates."]
    if s.meta.consent == "assumed":
        facts.append("Consent was assumed: the events carry no consent column.")
    return tuple(facts)


def health(s: Snapshot) -> Health:
    """Worst of the publishing gate and the checks, with the sentences behind it."""
    stamp = provenance(s.effects, s.kpi)
    facts = [f"As of {stamp.as_of}" if stamp.as_of else "Nothing computed yet"]
    facts += [f"model {stamp.model_version}"] if stamp.model_version else []
    failed = s.checks[s.checks["status"] == "fail"]
    warned = s.checks[s.checks["status"] == "warn"]
    reasons = tuple(str(t) for t in [*failed["text"], *warned["text"]] if t)
    gate = _latest_failed(s.runs)
    reasons = (*reasons, *(r for r in gate if r not in reasons))
    said = (*facts, *privacy_facts(s))
    if failed_gate(s):
        return Health("fail", "Not published: the model did not pass its gate", reasons, said)
    if gate and len(failed):  # a failed artifact of an abandoned setting leaves no failed check behind
        return Health("fail", "The last run failed its gate; figures are those of the last passing run", reasons, said)
    if len(failed):
        return Health("fail", f"{len(failed)} of {len(s.checks)} checks failed", reasons, said)
    if len(warned):
        return Health("warn", f"{len(warned)} of {len(s.checks)} checks warn", reasons, said)
    if s.checks.empty:
        return Health("none", "No check has run yet", (), said)
    return Health("ok", f"All {len(s.checks)} checks passed", (), said)


def kpi_total(s: Snapshot) -> Estimate | None:
    """Sum of the released KPI over geos and periods; the interval is the released noise (independent cells)."""
    cells = _kpi_cells(s)
    if cells.empty:
        return None
    half = Z90 * float(np.sqrt(cells["variance"].sum()))
    total = float(cells["value"].sum())
    return Estimate(total, total - half, total + half)


def effect(s: Snapshot, metric: str) -> pd.DataFrame:
    """Rows of scope 'total' of one metric, by channel."""
    rows = s.effects[(s.effects["scope"] == "total") & (s.effects["metric"] == metric)]
    return rows.sort_values("channel").reset_index(drop=True)


def kpi_noise(s: Snapshot) -> str:
    """What the release did to the KPI total, in words."""
    total = kpi_total(s)
    if total is None or total.p95 == total.mean:
        return "exact: no noise was added"
    return f"released noise: ± {figure(total.p95 - total.mean, 2)} (90 %)"


def incremental_total(s: Snapshot) -> Total | None:
    """All channels together: means add up; the interval joins the channels by their correlation in the draws."""
    amount = effect(s, "incremental_kpi")
    if amount.empty:
        return None
    correlation, basis = _correlation(s.response, amount["channel"].tolist())
    share = effect(s, "share")
    known = list(share["channel"]) == list(amount["channel"])
    return Total(_sum(amount, correlation), _sum(share, correlation) if known else None, basis)


def incremental_basis(s: Snapshot) -> str:
    """How the interval of the total was made, as a sentence."""
    total = incremental_total(s)
    return f"Total of all channels, {total.basis}." if total else "No total over channels has been estimated."


def channel_rows(s: Snapshot) -> list[ChannelRow]:
    """The Overview's table, largest incremental outcome first."""
    amount = effect(s, "incremental_kpi").sort_values("mean", ascending=False)
    roi, mroi = (_by_channel(effect(s, m)) for m in ("roi", "mroi"))
    costs = cost_per_kpi(s.response)
    credit, factor = headline_credit(s), latest_factor(s)
    change = recommended_changes(s)
    spend = current_spend(s.response)
    return [
        ChannelRow(
            channel=row.channel,
            spend=spend.get(row.channel),
            incremental=Estimate(row.mean, row.p05, row.p95),
            roi=roi.get(row.channel),
            mroi=mroi.get(row.channel),
            cost=costs.get(row.channel, (None, None))[0],
            marginal_cost=costs.get(row.channel, (None, None))[1],
            credit=credit.get(row.channel),
            factor=factor.get(row.channel),
            change=change.get(row.channel),
        )
        for row in each(amount)
    ]


def current_spend(response: SteadyResponse | None) -> dict[str, float]:
    """Current spend per channel over all geos, currency per period."""
    if response is None:
        return {}
    return dict(zip(response.channels, response.current_spend.sum(axis=0).tolist(), strict=True))


def cost_per_kpi(response: SteadyResponse | None) -> dict[str, tuple[Estimate | None, Estimate | None]]:
    """Average and marginal cost of one incremental KPI unit at current spend, per channel.

    The next unit of currency is spread over the geos as current spend is. The middle figure is the median, because a
    ratio of draws has no stable mean. None for a channel without spend.
    """
    if response is None:
        return {}
    now = response.current_spend
    total = now.sum(axis=0)
    caused = response.evaluate(now).sum(axis=1)
    mix = np.divide(now, total, out=np.zeros_like(now), where=total > 0)
    marginal = (response.marginal(now) * mix[None]).sum(axis=1)
    return {
        c: (
            _ratio_estimate(total[i], caused[:, i], response.weights),
            _ratio_estimate(1.0, marginal[:, i], response.weights),
        )
        if total[i] > 0
        else (None, None)
        for i, c in enumerate(response.channels)
    }


def credit_rows(s: Snapshot, model: str | None = None) -> pd.DataFrame:
    """Credit in the metric of the KPI: revenue when the KPI is revenue, else conversions."""
    metric = "revenue" if s.meta.kpi == "revenue" else "conversions"
    rows = s.credit[s.credit["metric"] == metric]
    return rows if model is None else rows[rows["model"] == model]


def headline_credit(s: Snapshot) -> dict[str, Estimate]:
    """Last-touch credit per channel, summed over periods; noise of different periods is independent."""
    rows = credit_rows(s, HEADLINE_MODEL)
    out = {}
    for channel, group in rows.groupby("channel"):
        mean, half = float(group["mean"].sum()), Z90 * float(np.sqrt((group["sd"] ** 2).sum()))
        out[str(channel)] = Estimate(mean, mean - half, mean + half)
    return out


def latest_factor(s: Snapshot) -> dict[str, Estimate]:
    """Incrementality factor of last touch in the latest period, where it is printable."""
    rows = s.incrementality[s.incrementality["model"] == HEADLINE_MODEL]
    rows = rows[rows["period_start"] == rows["period_start"].max()]
    return _by_channel(rows.dropna(subset=["mean"]))


def latest_factor_period(s: Snapshot) -> str:
    """Name of the period that `latest_factor` speaks of; '' when there is none."""
    rows = s.incrementality[s.incrementality["model"] == HEADLINE_MODEL]
    if rows.empty:
        return ""
    last = rows.sort_values("period_start").iloc[-1]
    return span(last["period_start"], last["period_end"])


def job_scenarios(s: Snapshot) -> pd.DataFrame:
    """Rows of the scenarios that `plumb plan` made; those that people saved have an id."""
    return s.scenarios[s.scenarios["scenario_id"].fillna("") == ""]


def recommended(s: Snapshot) -> str | None:
    """Name of the job's own plan: 'recommended', else the first scenario in the file but the current split."""
    names = [n for n in dict.fromkeys(job_scenarios(s)["scenario"]) if n != CURRENT]
    return RECOMMENDED if RECOMMENDED in names else next(iter(names), None)


def recommended_changes(s: Snapshot) -> dict[str, float]:
    """Change of spend per channel in the recommended scenario, as a share of current spend."""
    plan = job_scenarios(s)
    rows = plan[plan["scenario"] == recommended(s)].dropna(subset=["spend_change"])
    return {str(r.channel): float(r.spend_change) for r in each(rows)}


def next_tests(s: Snapshot) -> pd.DataFrame:
    """Candidate tests, the best first: by worth less cost, and by worth where no cost can be set against it."""
    rows = s.next_tests.sort_values(["net_value", "value"], ascending=False, kind="stable")
    return rows.reset_index(drop=True)


def timeline(s: Snapshot) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Stacked parts and the KPI line over time, in periods that hold both.

    Returns `parts` (week, part, value, y0, y1) and `total` (week, value, p05, p95), KPI units. The baseline is the KPI
    minus the expected increments, so it carries the noise of the KPI and may dip below zero. More than MAX_POINTS
    periods are added up in groups of four.
    """
    cells = _kpi_cells(s).groupby("week")[["value", "variance"]].sum()
    rows = s.effects[(s.effects["scope"] == "week") & (s.effects["metric"] == "incremental_kpi")]
    media = rows.pivot_table(index="week", columns="channel", values="mean", aggfunc="sum")
    both = cells.index.intersection(media.index).sort_values()
    if both.empty:
        return pd.DataFrame(columns=["week", "part", "value", "y0", "y1"]), pd.DataFrame(columns=["week", *_BAND])
    cells, media = cells.loc[both], media.loc[both].fillna(0.0)
    if len(both) > MAX_POINTS:
        group = np.arange(len(both)) // 4
        starts = both[::4]
        cells = cells.groupby(group).sum().set_index(starts)
        media = media.groupby(group).sum().set_index(starts)
    parts = pd.concat([(cells["value"] - media.sum(axis=1)).rename(BASELINE), media], axis=1)
    top = parts.cumsum(axis=1)
    long = {name: frame.melt(ignore_index=False, var_name="part") for name, frame in (("v", parts), ("t", top))}
    stacked = long["v"].assign(y1=long["t"]["value"]).rename_axis("week").reset_index()
    stacked["y0"] = stacked["y1"] - stacked["value"]
    half = Z90 * np.sqrt(cells["variance"])
    total = pd.DataFrame({"value": cells["value"], "p05": cells["value"] - half, "p95": cells["value"] + half})
    return stacked, total.rename_axis("week").reset_index()


def span(start: date | pd.Timestamp, end: date | pd.Timestamp) -> str:
    """'2025-01-06 to 2025-04-06'."""
    return f"{start:%Y-%m-%d} to {end:%Y-%m-%d}"


def weighted_interval(draws: np.ndarray, weights: np.ndarray) -> Estimate:
    """Mean and 90 % interval of weighted draws, shape (D,)."""
    found = summary.weighted_interval(draws, weights)
    return Estimate(found["mean"], found["p05"], found["p95"])


def why_not(s: Snapshot, *steps: str) -> str:
    """Recorded reasons why any of the steps was skipped or failed its gate; '' when none is recorded."""
    rows = s.runs[s.runs["step"].isin(steps) & (s.runs["status"] != "done")]
    return " ".join(dict.fromkeys(str(r) for r in rows["reason"] if r))


def _latest_failed(runs: pd.DataFrame) -> list[str]:
    """Reasons of the steps whose newest attempt failed its gate; older attempts stay in the table and do not count."""
    tried = runs.dropna(subset=["started_at"]).sort_values("started_at", kind="stable")
    newest = tried.drop_duplicates("step", keep="last")
    return [str(r) for r in newest.loc[newest["status"] == "failed_gate", "reason"]]


def _kpi_cells(s: Snapshot) -> pd.DataFrame:
    return s.kpi[s.kpi["metric"] == s.meta.kpi]


def _ids(column: Iterable[object]) -> tuple[str, ...]:
    found = {part for text in set(column) if isinstance(text, str) for part in text.split(";") if part}
    return tuple(sorted(found))


def _by_channel(rows: pd.DataFrame) -> dict[str, Estimate]:
    return {str(r.channel): Estimate(float(r.mean), float(r.p05), float(r.p95)) for r in each(rows)}


def _ratio_estimate(spend: float, outcome: np.ndarray, weights: np.ndarray) -> Estimate | None:
    """Cost interval from draws of the outcome; None where the outcome may be nothing at all."""
    if not (outcome > 0).all():
        return None
    low, mid, high = summary.weighted_quantile(spend / outcome, weights, np.array([0.05, 0.5, 0.95]))
    return Estimate(float(mid), float(low), float(high))


def _correlation(response: SteadyResponse | None, names: Sequence[str]) -> tuple[np.ndarray, str]:
    """Correlation of the channels' outcomes in the posterior draws at current spend, or the widest possible one."""
    widest = np.ones((len(names), len(names)))
    if response is None or not set(names) <= set(response.channels):
        return widest, "interval: channels added as if they erred together, the widest case"
    at = [response.channels.index(n) for n in names]
    caused = response.evaluate(response.current_spend).sum(axis=1)[:, at]
    covariance = np.atleast_2d(np.cov(caused.T, aweights=response.weights))
    sd = np.sqrt(np.diag(covariance))
    if not (sd > 0).all():
        return widest, "interval: channels added as if they erred together, the widest case"
    return covariance / np.outer(sd, sd), "interval: channels joined by their correlation in the posterior draws"


def _sum(rows: pd.DataFrame, correlation: np.ndarray) -> Estimate:
    mean, sd = float(rows["mean"].sum()), rows["sd"].to_numpy(dtype=float)
    half = Z90 * float(np.sqrt(sd @ correlation @ sd))
    return Estimate(mean, mean - half, mean + half)
