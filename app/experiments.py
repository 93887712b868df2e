"""View models of Experiments: each test with what it says, what it could have found, and what more of it would find."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from app import figures
from app.rows import each
from app.store import Snapshot
from app.wording import Units, figure, percent, title, with_interval

LEVEL, POWER = 0.05, 0.8
READOUTS = "readouts"
LENGTHS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)  # of the test as it was run


@dataclass(frozen=True, slots=True)
class Trial:
    """One test, by its row for the KPI (the first row where the KPI was not measured)."""

    name: str
    arm: str
    channel: str
    kind: str
    metric: str
    estimator: str
    days: int
    mean: float  # metric units, over scope and window
    sd: float
    p05: float
    p95: float
    p_value: float
    noise_share: float
    spend_delta: float | None  # currency

    @property
    def label(self) -> str:
        """Name, with the arm where there are several."""
        return f"{self.name}, arm {self.arm}" if self.arm else self.name

    @property
    def smallest(self) -> float:
        """Effect that a test of this precision finds with power 0.8 at level 5 %, metric units."""
        return float((norm.ppf(1 - LEVEL / 2) + norm.ppf(POWER)) * self.sd)


def tests(s: Snapshot) -> tuple[Trial, ...]:
    """Every test and arm, newest first."""
    out = []
    for (name, arm), rows in s.lift.groupby(["experiment", "arm"], sort=False):
        own = rows[rows["metric"] == s.meta.kpi]
        r = next(each(own if len(own) else rows))
        out.append(
            (
                r.end,
                Trial(
                    str(name), str(arm), r.channel, r.kind, r.metric, r.estimator, (r.end - r.start).days + 1,
                    r.mean, r.sd, r.p05, r.p95, r.p_value, r.noise_variance_share,
                    None if pd.isna(r.spend_delta) else float(r.spend_delta),
                ),
            )
        )  # fmt: skip
    return tuple(t for _, t in sorted(out, key=lambda pair: pair[0], reverse=True))


def rows_of(s: Snapshot, test: Trial) -> pd.DataFrame:
    """All rows of a test: one per metric and estimator."""
    return s.lift[(s.lift["experiment"] == test.name) & (s.lift["arm"] == test.arm)]


def sentence(test: Trial, units: Units) -> str:
    """What the test says, what it could have found, and how much of its uncertainty is released noise."""
    unit = units.kpi_title if test.metric == units.kpi else title(test.metric)
    effect = f"{with_interval(test.mean, test.p05, test.p95)} {unit}"
    if test.p05 > 0 or test.p95 < 0:
        told = f"Over its window and scope the test moved {effect}: the 90 % interval leaves out 0."
    else:
        told = f"Over its window and scope the test moved {effect}: it does not tell the effect from none."
    could = f" A test of this precision finds {units_of(test, units, test.smallest)} with power 0.8 at level 5 %."
    noise = f" Released noise is {percent(test.noise_share)} of its variance"
    more = (
        ", so a larger privacy budget would narrow it."
        if test.noise_share > 0.3
        else ": a longer or larger test narrows it, a larger privacy budget hardly does."
    )
    return told + could + noise + more


def units_of(test: Trial, units: Units, value: float) -> str:
    """An amount of the test's metric."""
    return units.kpi_figure(value) if test.metric == units.kpi else f"{figure(value)} {title(test.metric)}"


def power(test: Trial, effect: float) -> pd.DataFrame:
    """Power at level 5 % to find `effect` (metric units in a window as long as the test's) by length of the test.

    Columns length (1 = as run), days, power. Effect and variance of the window grow in step with its length, so power
    grows with its square root; this takes weeks as independent and leaves released noise per week as it was.
    """
    length = np.array(LENGTHS)
    z, edge = abs(effect) * np.sqrt(length) / test.sd, norm.ppf(1 - LEVEL / 2)
    found = norm.sf(edge - z) + norm.sf(edge + z)
    return pd.DataFrame({"length": length, "days": np.rint(length * test.days).astype(int), "power": found})


def days_needed(test: Trial, effect: float) -> int | None:
    """Days for power 0.8, under the assumptions of `power`; None where the effect is 0."""
    if effect == 0:
        return None
    ratio = (norm.ppf(1 - LEVEL / 2) + norm.ppf(POWER)) * test.sd / abs(effect)
    return int(np.ceil(min(ratio**2, 1e6) * test.days))


def expected_effect(s: Snapshot, test: Trial) -> float | None:
    """What the model expects such a test to move (KPI units): the channel's incremental outcome per unit of spend now,
    times the tested change of spend; None where either is not known. A yardstick for the power explorer."""
    spend = figures.current_spend(s.response).get(test.channel)
    weeks = s.kpi["week"].nunique()
    total = figures.effect(s, "incremental_kpi")
    total = total[total["channel"] == test.channel]
    if test.metric != s.meta.kpi or test.spend_delta is None or not spend or total.empty or not weeks:
        return None
    return float(total["mean"].iloc[0] / (spend * weeks) * test.spend_delta)


def readouts(warehouse: Path) -> dict[str, Path]:
    """One-page readouts beside the warehouse, by file name."""
    folder = warehouse.parent / READOUTS
    return {p.stem: p for p in sorted(folder.glob("*.html"))} if folder.is_dir() else {}


def queue(s: Snapshot) -> pd.DataFrame:
    """Candidate tests, the best first, as text."""
    rows, units = figures.next_tests(s), figures.units(s)
    out = []
    for r in each(rows):
        unit = units.currency if r.unit in ("revenue", "margin") else r.unit
        out.append(
            {
                "test": r.test,
                f"worth, {unit} in the planning period": figure(r.value),
                "of at most (knowing everything)": figure(r.perfect_information),
                f"cost, {units.currency}": figure(r.cost),
                f"worth less cost, {units.currency}": figure(r.net_value),
                "weeks": figure(r.weeks),
                f"finds an effect of, {units.kpi_title}": figure(r.mde),
                "changes the plan with probability": percent(r.share_changed),
                "what would change the plan": r.decision,
            }
        )
    return pd.DataFrame(out)
