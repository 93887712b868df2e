"""Why sources of one channel may disagree although none is wrong: each reason is a fact about the evidence.

| reason | fires when |
|---|---|
| window | a test ran under 14 days, or less than half of its days lie inside the pool's periods |
| estimand | a test moved spend by less than half: it saw the next unit, totals and credit speak of the average one |
| range | the channel now spends outside 0.8 to 1.25 times what its tests spanned |
| incident | touches were not recorded as usual in part of a period |
| consent | the consent rate fell by more than 5 % from one period to the next |
| stale | the newest test ended more than a year before the last period does |
| collinear | the model cannot tell the channel from another: correlation of their totals beyond 0.6 either way |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from contracts.evidence import LiftEstimate
from reconcile.inputs import LiftScope, PoolInputs

Kind = Literal["window", "estimand", "range", "incident", "consent", "stale", "collinear"]
SHORT_DAYS = 14
INSIDE = 0.5
SMALL_MOVE = 0.5
RANGE = (0.8, 1.25)
CONSENT_DROP = 0.05
STALE_DAYS = 365
COLLINEAR = 0.6
CONSENT, INCIDENT = "consent", "incident"  # names of covariates begin so


@dataclass(frozen=True, slots=True)
class Reason:
    """One fact that can explain a disagreement."""

    channel: str
    kind: Kind
    text: str


def reasons(inputs: PoolInputs) -> tuple[Reason, ...]:
    """Every reason of every channel, conflicts or not."""
    out: list[Reason] = []
    scopes = inputs.scopes or (LiftScope(),) * len(inputs.lifts.estimates)
    for c, channel in enumerate(inputs.channels):
        tests = [(e, s) for e, s in zip(inputs.lifts.estimates, scopes, strict=True) if e.channel == channel]
        found: list[tuple[Kind, str]] = [
            *_windows(inputs, tests), *_estimands(tests), *_range(inputs, c, tests), *_covariates(inputs, c),
            *_stale(inputs, tests), *_collinear(inputs, channel),
        ]  # fmt: skip
        out += [Reason(channel, kind, text) for kind, text in found]
    return tuple(out)


Tests = list[tuple[LiftEstimate, LiftScope]]


def _windows(inputs: PoolInputs, tests: Tests) -> list[tuple[Kind, str]]:
    out: list[tuple[Kind, str]] = []
    for e, _ in tests:
        days = (e.end - e.start).days + 1
        inside = sum(max(0, (min(b, e.end) - max(a, e.start)).days + 1) for a, b in inputs.periods)
        if days < SHORT_DAYS:
            out.append(("window", f"test {e.experiment} ran {days} days: later effects were not counted"))
        elif inside < INSIDE * days:
            out.append(("window", f"test {e.experiment} lies mostly outside the reconciled periods"))
    return out


def _estimands(tests: Tests) -> list[tuple[Kind, str]]:
    return [
        ("estimand", f"test {e.experiment} moved spend by {abs(s.ratio - 1):.0%}: it saw the return of the next unit, "
                     "totals and credit speak of the average one")
        for e, s in tests if 0 < abs(s.ratio - 1) < SMALL_MOVE
    ]  # fmt: skip


def _range(inputs: PoolInputs, c: int, tests: Tests) -> list[tuple[Kind, str]]:
    if inputs.spend is None or not tests:
        return []
    days = np.array([(b - a).days + 1 for a, b in inputs.periods])
    daily = inputs.spend[c] / days
    low, high = np.inf, 0.0
    for e, s in tests:
        overlap = [max(0, (min(b, e.end) - max(a, e.start)).days + 1) for a, b in inputs.periods]
        usual = daily[int(np.argmax(overlap))]
        low, high = min(low, usual * min(s.ratio, 1.0)), max(high, usual * max(s.ratio, 1.0))
    now = daily[-1]
    if RANGE[0] * low <= now <= RANGE[1] * high:
        return []
    return [("range", f"the last period spends {now:,.0f} a day, its tests spanned {low:,.0f} to {high:,.0f}")]


def _covariates(inputs: PoolInputs, c: int) -> list[tuple[Kind, str]]:
    out: list[tuple[Kind, str]] = []
    for covariate in inputs.covariates:
        values = covariate.values[c]
        if covariate.name.startswith(INCIDENT) and (values > 0).any():
            days = float(values.max())
            out.append(("incident", f"{covariate.name} covers up to {days:.0%} of a period"))
        if covariate.name.startswith(CONSENT) and len(values) > 1 and float(np.diff(values).min()) < -CONSENT_DROP:
            out.append(("consent", f"the consent rate fell by {-float(np.diff(values).min()):.0%} between two periods"))
    return out


def _stale(inputs: PoolInputs, tests: Tests) -> list[tuple[Kind, str]]:
    if not tests:
        return []
    newest = max((e for e, _ in tests), key=lambda e: e.end)
    age = (inputs.periods[-1][1] - newest.end).days
    return [("stale", f"its newest test {newest.experiment} ended {age} days ago")] if age > STALE_DAYS else []


def _collinear(inputs: PoolInputs, channel: str) -> list[tuple[Kind, str]]:
    if inputs.mmm is None or channel not in inputs.mmm.channels or len(inputs.mmm.channels) < 2:
        return []
    corr = np.corrcoef(np.log(inputs.mmm.totals).T)[inputs.mmm.channels.index(channel)]
    order = sorted(range(len(corr)), key=lambda i: -abs(corr[i]))
    other = next(i for i in order if inputs.mmm.channels[i] != channel)
    if abs(corr[other]) <= COLLINEAR:
        return []
    return [
        ("collinear", f"the model hardly tells it from {inputs.mmm.channels[other]} (correlation {corr[other]:+.2f})")
    ]
