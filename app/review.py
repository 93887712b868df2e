"""The budget review of the planning period: what the plan costs, what it is expected to cause, how sure that is.

Pure: a snapshot in, finished figures out; the page, the workbook and its tests read the same `Review`. Everything is
over the whole planning period and given as P10, P50 and P90, as finance reads a plan. What the warehouse does not hold
is a sentence in `missing`, never a figure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from app import evidence, figures, report
from app.rows import each
from app.store import Snapshot
from app.wording import Units, between, listed, percent
from planning.scenarios import DUST, plan_of_cells
from planning.summary import weighted_quantile
from planning.surface import Surface, evaluate, held
from planning.worth import Worth, worth

_LEVELS = np.array([0.1, 0.5, 0.9])
_UNDATED = datetime(1980, 1, 1)  # the first day that a ZIP file can name
CLAIMED = "platform_claimed"  # the credit model that holds what platforms say of themselves
WORTH_SAYING = 0.005  # smaller changes of spend, as a share, are no decision


@dataclass(frozen=True, slots=True)
class Band:
    """A figure's tenth, fiftieth and ninetieth percentile."""

    p10: float
    p50: float
    p90: float


@dataclass(frozen=True, slots=True)
class Line:
    """One channel. Money is in currency and outcomes in KPI units, both over the planning period."""

    channel: str
    now: float  # spend if the current split goes on
    plan: float
    caused_now: Band
    caused: Band
    roi: Band | None  # currency per currency, over the history that the model saw
    mroi: Band | None
    grade: str
    extrapolated: bool  # the plan goes beyond anything observed; its outcome is widened for that

    @property
    def change(self) -> float | None:
        """Plan against the current split as a share; None without spend now."""
        return self.plan / self.now - 1 if self.now > 0 else None


@dataclass(frozen=True, slots=True)
class Money:
    """What a scenario is worth, currency, carry-over after the period included."""

    revenue: Band
    contribution: Band | None  # margin × revenue − spend; None where plumb.toml states no margin
    pays: float | None  # chance that it brings at least its spend, 0.01 to 0.99
    payback: Band | None  # weeks until the contribution has covered all its spend; inf: later than `weeks`
    weeks: float


@dataclass(frozen=True, slots=True)
class Option:
    """One scenario against the current split, on the same posterior draws."""

    letter: str
    name: str
    author: str
    of_record: bool
    outdated: bool
    spend: float  # currency over the planning period
    caused: Band  # KPI units, carry-over after the period included
    gain: Band  # against the current split
    chance: float  # that it brings more than the current split, 0.01 to 0.99; 0 for the current split itself
    money: Money | None  # None where a unit of the KPI has no value in money


@dataclass(frozen=True, slots=True)
class Review:
    """All that a budget review shows. `lines` and `options` are empty where there is no plan; `missing` says why."""

    period: str
    plan: str  # letter of the option that is reviewed; '' without one
    units: Units
    lines: tuple[Line, ...]
    options: tuple[Option, ...]
    decisions: tuple[str, ...]
    claims: pd.DataFrame  # rows of v_incrementality of what platforms claim, over the longest stretch
    tests: pd.DataFrame  # rows of v_next_tests, by worth less cost, the best first
    missing: tuple[str, ...]
    assumptions: tuple[str, ...]
    published: bool
    cut_off: str  # last day of the data
    model_version: str
    owner: str
    generated_at: str

    @property
    def made(self) -> datetime:
        """When the warehouse was made, UTC without a zone; the first day of 1980 where it does not say."""
        return datetime.fromisoformat(self.generated_at).replace(tzinfo=None) if self.generated_at else _UNDATED

    @property
    def chosen(self) -> Option | None:
        """The option that is reviewed: the plan of record, else the job's recommendation."""
        return next((o for o in self.options if o.letter == self.plan), None)


def review(s: Snapshot) -> Review:
    """The review of a snapshot."""
    tests = figures.next_tests(s)
    priced = _priced(s)
    options = tuple(_option(s.surface, _letter(i), p, priced[0]) for i, p in enumerate(priced)) if s.surface else ()
    at = _chosen(s, priced)
    lines = () if at is None or s.surface is None else _lines(s, s.surface, priced[0], priced[at])
    return Review(
        period=figures.span(*priced[0].period) if priced else "",
        plan="" if at is None else options[at].letter,
        units=figures.units(s),
        lines=lines,
        options=options,
        decisions=_decisions(lines, figures.units(s)) if not figures.failed_gate(s) else (),
        claims=_claims(s),
        tests=tests,
        missing=tuple(_missing(s, lines, options, priced)),
        assumptions=report.assumptions(s),
        published=not figures.failed_gate(s),
        cut_off=s.meta.period_end,
        model_version=s.meta.model_version,
        owner=s.meta.owner,
        generated_at=s.meta.generated_at,
    )


def digest(warehouse: Path) -> str:
    """SHA-256 of the warehouse file: the review was made from these bytes."""
    with warehouse.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class _Priced:
    """A scenario of the planning period: its rows, and what it brings on the draws of the newest fit."""

    rows: pd.DataFrame  # of v_scenarios, by channel
    draws: np.ndarray  # (D, C), KPI units: inside the period and after it
    split: bool  # whether the file holds its split by week and geo
    worth: Worth | None

    @property
    def saved(self) -> bool:
        """True for a scenario that a person saved."""
        return bool(self.first["scenario_id"])

    @property
    def first(self) -> pd.Series:
        """What all its rows share."""
        return self.rows.iloc[0]

    @property
    def period(self) -> tuple[date, date]:
        """First and last day."""
        return self.first["period_start"], self.first["period_end"]


def _priced(s: Snapshot) -> tuple[_Priced, ...]:
    """Scenarios of the job's planning period, the current split first; none without the draws to price them on."""
    job, surface = figures.job_scenarios(s), s.surface
    now = job[job["scenario"] == figures.CURRENT]
    if now.empty or surface is None:
        return ()
    period = ["period_start", "period_end"]
    rows = s.scenarios[(s.scenarios[period] == now.iloc[0][period]).all(axis=1)].fillna(
        {"scenario_id": "", "author": ""}
    )
    found = [
        _price(surface, mine.set_index("channel", drop=False), s.scenario_cells)
        for _, mine in rows.groupby(["scenario_id", "scenario"], sort=False)
    ]
    return tuple(sorted(found, key=lambda p: p.saved or p.first["scenario"] != figures.CURRENT))


def _price(surface: Surface, rows: pd.DataFrame, cells: pd.DataFrame) -> _Priced:
    """What a scenario brings, as its money is split over weeks and geos."""
    name, key = rows.iloc[0][["scenario", "scenario_id"]]
    mine = cells[(cells["scenario"] == name) & (cells["scenario_id"].fillna("") == key)]
    if mine.empty:
        whole = rows["spend"].astype(float).reindex(surface.response.channels).fillna(0.0).to_numpy()
        plan = held(surface, whole / surface.periods)
    else:
        plan = plan_of_cells(surface, mine.assign(period_start=mine["period_start"].dt.date))
    found = evaluate(surface, plan)
    return _Priced(rows, found.within + found.beyond, not mine.empty, worth(surface, found, float(plan.sum())))


def _letter(number: int) -> str:
    """A to Z, then AA, AB, … as columns of a sheet are named."""
    return ("" if number < 26 else _letter(number // 26 - 1)) + chr(ord("A") + number % 26)


def _option(surface: Surface, letter: str, p: _Priced, current: _Priced) -> Option:
    now, plan = current.draws.sum(axis=1), p.draws.sum(axis=1)
    gain = plan - now
    gain[np.abs(gain) <= DUST * np.abs(now)] = 0.0  # dust of the arithmetic is no gain
    return Option(
        letter=letter,
        name=str(p.first["scenario"]),
        author=str(p.first["author"]),
        of_record=bool(p.first["of_record"]),
        outdated=bool(p.first["outdated"]),
        spend=float(p.rows["spend"].sum()),
        caused=_band(plan, surface.weights),
        gain=_band(gain, surface.weights),
        chance=_told(float(surface.weights @ (gain > 0))) if gain.any() else 0.0,
        money=None if p.worth is None else _money(p.worth, surface.weights),
    )


def _claims(s: Snapshot) -> pd.DataFrame:
    rows = s.incrementality[s.incrementality["model"] == CLAIMED]
    length = rows["period_end"] - rows["period_start"]
    return rows[length == length.max()].sort_values("credited", ascending=False).reset_index(drop=True)


def _money(w: Worth, weights: np.ndarray) -> Money:
    return Money(
        revenue=_band(w.revenue, weights),
        contribution=None if w.contribution is None else _band(w.contribution, weights),
        pays=None if w.contribution is None else _told(float(weights @ (w.contribution >= 0))),
        payback=None if w.payback is None else _steps(w.payback, weights),
        weeks=w.weeks,
    )


def _steps(draws: np.ndarray, weights: np.ndarray) -> Band:
    """Quantiles that are draws themselves: between a week and never there is nothing to interpolate."""
    order = np.argsort(draws, kind="stable")
    at = np.searchsorted(np.cumsum(weights[order]), _LEVELS - 1e-12).clip(0, len(draws) - 1)
    return Band(*(float(v) for v in draws[order][at]))


def _told(chance: float) -> float:
    """A chance that can be said: exactly 0 or 1 would be a statement about the number of draws, not about the world."""
    return min(max(chance, 0.01), 0.99)


def _chosen(s: Snapshot, priced: tuple[_Priced, ...]) -> int | None:
    """Place of the plan of record, else of the job's recommendation."""
    record = [i for i, p in enumerate(priced) if p.first["of_record"]]
    own = [i for i, p in enumerate(priced) if not p.saved and p.first["scenario"] == figures.recommended(s)]
    return next(iter((*record, *own)), None)


def _lines(s: Snapshot, surface: Surface, current: _Priced, plan: _Priced) -> tuple[Line, ...]:
    grades = evidence.grades(s)
    caused_now, caused = (_caused(surface, p) for p in (current, plan))
    roi, mroi = (_bands(figures.effect(s, m)) for m in ("roi", "mroi"))

    def spend(p: _Priced, channel: str) -> float:
        return float(p.rows["spend"].get(channel, 0.0))

    found = [
        Line(
            c, spend(current, c), spend(plan, c), caused_now[c], caused[c], roi.get(c), mroi.get(c), grades.get(c, "C"),
            bool(plan.rows["extrapolated"].get(c, False)),
        )
        for c in surface.response.channels
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda line: -line.plan))


def _caused(surface: Surface, p: _Priced) -> dict[str, Band]:
    """Outcome per channel as the scenario's rows hold it; from the draws where they are of an older fit or lack one."""
    found = {c: _band(p.draws[:, i], surface.weights) for i, c in enumerate(surface.response.channels)}
    return found if p.rows["outdated"].any() else found | _bands(p.rows)


def _decisions(lines: tuple[Line, ...], units: Units) -> tuple[str, ...]:
    """The three largest moves of money, in words."""
    moved = [x for x in lines if x.change is None or abs(x.change) >= WORTH_SAYING]
    said = []
    for line in sorted(moved, key=lambda x: -abs(x.plan - x.now))[:3]:
        by = line.plan - line.now
        share = "" if line.change is None else f" ({percent(line.change, signed=True)})"
        said.append(
            f"{'Raise' if by > 0 else 'Lower'} {line.channel} by {units.money(abs(by))}{share}: it is then expected to "
            f"cause {units.kpi_figure(line.caused.p50)} (P10 to P90: {between(line.caused.p10, line.caused.p90)}); "
            f"evidence grade {line.grade}."
        )
    return tuple(said)


def _missing(
    s: Snapshot, lines: tuple[Line, ...], options: tuple[Option, ...], priced: tuple[_Priced, ...]
) -> list[str]:
    said = []
    if figures.failed_gate(s):
        said.append("The model did not pass its gate: nothing here is a recommendation.")
    if not options:
        why = figures.why_not(s, "plan", "fit_calibrated", "reconcile")
        said.append(f"There is no plan to review. {why or 'Run `plumb run`.'}".strip())
    if lines and not any(x.roi for x in lines):
        said.append(
            f"Returns and payback are not given: the value of one of the {s.meta.kpi} is unknown. Give conversions a "
            "value in the events, or make revenue the KPI."
        )
    if any(o.money is not None and o.money.contribution is None for o in options):
        said.append(
            "Contribution and payback are not given: the share of revenue that is contribution is unknown. Set "
            "`margin` under [planning] in plumb.toml and run again."
        )
    if options:
        said.append(
            "The bridge from the last plan to what happened, and a score of past recommendations, are not given: they "
            "need a plan of record whose period is over, and no step publishes them yet. The hurdle rate of plumb.toml "
            "is not in the warehouse."
        )
    if _claims(s).empty:
        said.append(
            "What platforms claim is not compared: no claims were reconciled. Name their exports in plumb.toml "
            "(inputs.platform_claims) and run again."
        )
    if options and not any(o.of_record for o in options):
        said.append(
            "No plan of record is set, so the job's recommendation is reviewed. Approve a saved scenario as plan of "
            "record on the page Scenarios, or by `plumb scenario`."
        )
    if stale := [o.name for o in options if o.outdated]:
        said.append(f"{listed(stale)}: saved with an older fit, and valued here with the newest one.")
    if even := [o.name for o, p in zip(options, priced, strict=True) if not p.split]:
        said.append(f"{listed(even)}: the file holds no split by week and geo, so it is valued as spent evenly.")
    if far := [x.channel for x in lines if x.extrapolated]:
        said.append(
            f"{listed(far)}: the plan goes beyond any spend that was observed, so its outcome is an extrapolation; the "
            "interval is widened for that."
        )
    if s.next_tests.empty:
        said.append("No next test has been valued: that needs a published model and a plan.")
    return said


def _band(draws: np.ndarray, weights: np.ndarray) -> Band:
    return Band(*(float(v) for v in weighted_quantile(draws, weights, _LEVELS)))


def _bands(rows: pd.DataFrame) -> dict[str, Band]:
    return {str(r.channel): Band(float(r.p10), float(r.p50), float(r.p90)) for r in each(rows)}
