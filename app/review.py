"""The budget review of the planning period: what the plan costs, what it is expected to cause, how sure that is.

Pure: a snapshot in, finished figures out; the page, the workbook and its tests read the same `Review`. Everything is
over the whole planning period and given as P10, P50 and P90, as finance reads a plan. What the warehouse does not hold
is a sentence in `missing`, never a figure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from app import evidence, figures, report, scenario
from app.rows import each
from app.store import Snapshot
from app.wording import Units, between, listed, percent
from planning.scenarios import DUST
from planning.summary import weighted_quantile
from planning.surface import Surface

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

    @property
    def change(self) -> float | None:
        """Plan against the current split as a share; None without spend now."""
        return self.plan / self.now - 1 if self.now > 0 else None


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
    tests = s.next_tests.sort_values(["net_value", "value"], ascending=False, kind="stable").reset_index(drop=True)
    plans = _plans(s)
    options = tuple(_option(s.surface, chr(65 + i), rows) for i, rows in enumerate(plans)) if s.surface else ()
    chosen = _chosen(s, options)
    lines = () if chosen is None else _lines(s, plans[options.index(chosen)])
    first = plans[0].iloc[0] if plans else None
    return Review(
        period="" if first is None else figures.span(first["period_start"], first["period_end"]),
        plan="" if chosen is None else chosen.letter,
        units=figures.units(s),
        lines=lines,
        options=options,
        decisions=_decisions(lines, figures.units(s)) if not figures.failed_gate(s) else (),
        claims=_claims(s),
        tests=tests,
        missing=tuple(_missing(s, lines, options)),
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


def _plans(s: Snapshot) -> list[pd.DataFrame]:
    """Scenarios of the job's planning period, the current split first, each as its rows."""
    job = figures.job_scenarios(s)
    if job.empty:
        return []
    period = job.iloc[0][["period_start", "period_end"]].tolist()
    rows = s.scenarios[(s.scenarios["period_start"] == period[0]) & (s.scenarios["period_end"] == period[1])]
    keys = rows["scenario_id"].fillna("") + "|" + rows["scenario"]
    named = [rows[keys == k] for k in dict.fromkeys(keys)]
    return sorted(named, key=lambda r: r.iloc[0]["scenario"] != figures.CURRENT or bool(r.iloc[0]["scenario_id"]))


def _spend(surface: Surface, rows: pd.DataFrame) -> np.ndarray:
    """Spend (C,) of a scenario in currency per period; a channel that it does not name has none."""
    whole = rows.set_index("channel")["spend"].astype(float).reindex(surface.response.channels).fillna(0.0)
    return whole.to_numpy() / surface.periods


def _option(surface: Surface, letter: str, rows: pd.DataFrame) -> Option:
    spend = _spend(surface, rows)
    now, plan = (scenario.outcome(surface, x).sum(axis=1) * surface.periods for x in (scenario.current(surface), spend))
    gain = plan - now
    gain[np.abs(gain) <= DUST * np.abs(now)] = 0.0  # dust of the arithmetic is no gain
    first = rows.iloc[0]
    return Option(
        letter=letter,
        name=str(first["scenario"]),
        author=str(first["author"] or ""),
        of_record=bool(first["of_record"]),
        outdated=bool(first["outdated"]),
        spend=float(rows["spend"].sum()),
        caused=_band(plan, surface.weights),
        gain=_band(gain, surface.weights),
        chance=_told(float(surface.weights @ (gain > 0))) if gain.any() else 0.0,
    )


def _claims(s: Snapshot) -> pd.DataFrame:
    rows = s.incrementality[s.incrementality["model"] == CLAIMED]
    length = rows["period_end"] - rows["period_start"]
    return rows[length == length.max()].sort_values("credited", ascending=False).reset_index(drop=True)


def _told(chance: float) -> float:
    """A chance that can be said: exactly 0 or 1 would be a statement about the number of draws, not about the world."""
    return min(max(chance, 0.01), 0.99)


def _chosen(s: Snapshot, options: tuple[Option, ...]) -> Option | None:
    record = next((o for o in options if o.of_record), None)
    return record or next((o for o in options if o.name == figures.recommended(s) and not o.author), None)


def _lines(s: Snapshot, rows: pd.DataFrame) -> tuple[Line, ...]:
    surface = s.surface
    if surface is None:
        return ()
    spend, before, grades = _spend(surface, rows), scenario.current(surface), evidence.grades(s)
    caused_now, caused = (_caused(surface, r, x) for r, x in ((_plans(s)[0], before), (rows, spend)))
    roi, mroi = (_bands(figures.effect(s, m)) for m in ("roi", "mroi"))
    found = [
        Line(
            c, float(before[i]) * surface.periods, float(spend[i]) * surface.periods, caused_now[c], caused[c],
            roi.get(c), mroi.get(c), grades.get(c, "C"),
        )
        for i, c in enumerate(surface.response.channels)
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda line: -line.plan))


def _caused(surface: Surface, rows: pd.DataFrame, spend: np.ndarray) -> dict[str, Band]:
    """Outcome per channel as the scenario's rows hold it; from the draws where they are of an older fit or lack one."""
    draws = scenario.outcome(surface, spend) * surface.periods
    found = {c: _band(draws[:, i], surface.weights) for i, c in enumerate(surface.response.channels)}
    return found if rows["outdated"].any() else found | _bands(rows)


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


def _missing(s: Snapshot, lines: tuple[Line, ...], options: tuple[Option, ...]) -> list[str]:
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
    if lines and any(x.roi for x in lines):
        said.append("Payback is not given: no step publishes how returns arrive over time against a margin.")
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
    if s.next_tests.empty:
        said.append("No next test has been valued: that needs a published model and a plan.")
    return said


def _band(draws: np.ndarray, weights: np.ndarray) -> Band:
    return Band(*(float(v) for v in weighted_quantile(draws, weights, _LEVELS)))


def _bands(rows: pd.DataFrame) -> dict[str, Band]:
    return {str(r.channel): Band(float(r.p10), float(r.p50), float(r.p90)) for r in each(rows)}
