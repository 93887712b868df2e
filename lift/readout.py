"""From a finished estimate to the numbers of its page (contracts/readout.py). Pure; nothing is estimated anew."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Literal

import numpy as np

from contracts.errors import ContractError
from contracts.evidence import Experiment, LiftEstimate
from contracts.readout import ArmLine, CheckLine, LiftReadout, PathPoint, PlanLine
from contracts.release import Release
from lift.controls import MIN_PRE
from lift.geo import DEFAULT, GeoFit, t_columns
from lift.iroas import iroas
from lift.looks import LooksReading
from lift.pool import Pooled
from lift.protocol import GeoEstimator, GeoResult, GeoTest
from lift.several import SRM_LIMIT, RatioCheck, sample_ratio
from lift.totals import Totals, added
from lift.trials import TrialReading, read_arms

MAX_NOISE_SHARE = 0.5
MAX_MISS = 0.25  # typical miss of the fit before the test, share of the level, above which the page warns
NAN = float("nan")


def geo_readout(
    test: GeoTest,
    fit: GeoFit,
    days: Sequence[date],
    currency: str,
    plan: Sequence[PlanLine] = (),
    *,
    estimator: GeoEstimator = DEFAULT,
) -> LiftReadout:
    """Page of a geo test. `test`: the rows that `fit` read; `days`: first day of each of its periods (T,).

    `placebos` are the estimator's own reference where it has one, else its readings of windows before the test.
    """
    result, e = fit.result, fit.estimate
    windows = placebos_in_time(test, estimator)
    reference = result.placebos if len(result.placebos) else np.array([w.mean for w in windows])
    observed = test.treated_sum()[0]
    history = _points(days, test.pre, observed, result.counterfactual, None)
    path = _points(days, test.window, observed, result.counterfactual, (result.path, result.path_sd))
    without = float(np.nansum([p.expected for p in path]))
    return LiftReadout(
        name=e.experiment, kind="geo", channel=e.channel, currency=currency, estimates=(e,),
        inference=result.inference, relative=e.mean / without if without > 0 else NAN, iroas=_iroas(e),
        plan=tuple(plan), history=history, path=path, placebos=tuple(float(x) for x in reference),
        statistic=e.mean, arms=(), checks=(*_fit_check(history), *_placebo_check(windows), *_noise_check(e)),
        changes=(*changes(e), *_one_period(e, path)),
    )  # fmt: skip


def placebos_in_time(test: GeoTest, estimator: GeoEstimator = DEFAULT, most: int = 24) -> tuple[GeoResult, ...]:
    """The estimator read on up to `most` windows of the test's length inside its own history, spread evenly.

    Each has only the periods before it as history. Windows that the estimator refuses are left out; the tuple is empty
    where the history is too short for any.
    """
    n = len(test.window)
    last = len(test.pre) - n
    if last < MIN_PRE:
        return ()
    starts = np.unique(np.linspace(max(MIN_PRE, last // 2), last, most).astype(int))
    out = []
    for s in starts:
        moved = replace(test, pre=test.pre[:s], window=test.pre[s : s + n])
        with contextlib.suppress(ContractError):
            out.append(estimator(moved))
    return tuple(out)


def _placebo_check(found: Sequence[GeoResult]) -> tuple[CheckLine, ...]:
    """How many windows without a test look like one. Windows overlap, so only a gross excess is called a fault."""
    if not found:
        return ()
    wrong = sum(r.p_value < 0.1 for r in found)
    verdict: Literal["pass", "warn"] = "warn" if wrong > 0.3 * len(found) else "pass"
    text = f"{wrong} of {len(found)} windows before the test show an effect at 10 %, where none was made"
    return (CheckLine("placebo windows", verdict, text),)


def _points(
    days: Sequence[date], periods: np.ndarray, observed: np.ndarray, expected: np.ndarray,
    effect: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[PathPoint, ...]:  # fmt: skip
    empty = np.full(len(periods), NAN)
    value, sd = effect or (empty, empty)
    return tuple(
        PathPoint(days[t], float(observed[t]), float(expected[t]), float(v), float(s))
        for t, v, s in zip(periods, value, sd, strict=True)
    )


def user_readout(
    experiment: Experiment, release: Release, reading: TrialReading, currency: str, *,
    kpi: str, split: Mapping[str, float] | None = None, plan: Sequence[PlanLine] = (),
    looks: LooksReading | None = None,
) -> LiftReadout:  # fmt: skip
    """Page of a user test; the headline is the first arm's `kpi` where it was released. `split`: planned arm shares."""
    ordered = sorted(reading.estimates, key=lambda e: e.metric != kpi)
    arms = {name: added(cells) for name, cells in read_arms(experiment, release).items()}
    e = ordered[0]
    base = float(_mean(arms[experiment.control_arm], e.metric) * arms[e.arm].of("n")[0])
    checks = (*_split_check(arms, split), *_noise_check(e), *_family_checks(reading), *reading.checks)
    return LiftReadout(
        name=experiment.name, kind="user", channel=experiment.channel, currency=currency,
        estimates=(*ordered, *reading.beside, *(looks.estimates if looks else ())),
        inference="difference of arm means, t reference; sampling variance from released squares, released noise by "
        "the delta method", relative=e.mean / base if base > 0 else NAN, iroas=_iroas(e), plan=tuple(plan),
        history=(), path=(), placebos=(), statistic=e.mean, arms=tuple(_arm_line(a) for a in arms.values()),
        checks=checks, changes=changes(e), looks=looks.lines if looks else (),
    )  # fmt: skip


def running_readout(
    experiment: Experiment, looks: LooksReading, currency: str, *, kpi: str, split: Mapping[str, float] | None = None
) -> LiftReadout:
    """Page of a test that is still running: intervals per person that hold at all looks together."""
    ordered = sorted(looks.estimates, key=lambda e: e.metric != f"{kpi} per person")
    e = ordered[0]
    arms = {a.arm: a for a in looks.arms}
    base = float(_mean(arms[experiment.control_arm], e.metric.removesuffix(" per person")))
    return LiftReadout(
        name=experiment.name, kind="user", channel=experiment.channel, currency=currency, estimates=tuple(ordered),
        inference="always-valid interval per person, released noise of every look counted; the test is running",
        relative=e.mean / base if base > 0 else NAN, iroas=_iroas(e), plan=(), history=(), path=(), placebos=(),
        statistic=e.mean, arms=tuple(_arm_line(a) for a in looks.arms),
        checks=(*_split_check(arms, split), *_noise_check(e)), changes=(_without_noise(e),), looks=looks.lines,
    )  # fmt: skip


def library_lines(e: LiftEstimate, pooled: Pooled, families: Mapping[str, str]) -> tuple[str, ...]:
    """What all tests together say about this one's channel, and what to expect of its next test."""
    family = families.get(e.channel, e.channel)
    today = pooled.effect(e.channel, family)
    out = [
        f"{len(pooled.tests)} tests pooled as of {pooled.as_of}: {e.channel} returns {_figure(today['mean'])} "
        f"{e.metric} per unit of spend today ({_figure(today['p05'])} to {_figure(today['p95'])})."
    ]
    if math.isfinite(e.spend_delta) and e.spend_delta != 0:
        season = next((t.season for t in pooled.tests if t.channel == e.channel), "")
        error = e.std_error / abs(e.spend_delta)
        p = pooled.next_test(e.channel, family, season, error)
        out.append(
            f"A test like this one again should show {_figure(p.estimate['p05'])} to {_figure(p.estimate['p95'])}, "
            f"and would come out significant at 5 % with a chance of {p.chance_significant:.0%}."
        )
    if pooled.stale():
        out.append(f"Older than a year and counted less for it: {', '.join(pooled.stale())}.")
    return tuple(out)


def _iroas(e: LiftEstimate) -> tuple[float, float, float]:
    found = iroas(e)
    return found["iroas"], found["iroas_p05"], found["iroas_p95"]


def _mean(arm: Totals, component: str) -> float:
    return float(arm.of(component)[0] / arm.of("n")[0])


def _arm_line(arm: Totals) -> ArmLine:
    n, noise = arm.of("n")
    shown = [c for c in arm.components if c != "n" and "*" not in c]
    return ArmLine(arm.arm, float(n), math.sqrt(float(noise)), tuple((c, _mean(arm, c)) for c in shown))


def _family_checks(reading: TrialReading) -> tuple[CheckLine, ...]:
    """What is left of each arm's effect when all arms of the test are allowed for."""
    out = []
    for metric, family in reading.families.items():
        low, high = family.simultaneous(0.9)
        arms = [
            f"{a} p {p:.2g}, {_figure(float(lo))} to {_figure(float(hi))}"
            for a, p, lo, hi in zip(family.arms, family.dunnett, low, high, strict=True)
        ]
        what = f"{metric} with all {len(family.arms)} arms allowed for (Dunnett, joint 90 % intervals)"
        text = f"{what}: {'; '.join(arms)}"
        out.append(CheckLine(f"several arms {metric}", "pass", text, float(family.dunnett.min())))
    return tuple(out)


def _split_check(arms: Mapping[str, Totals], split: Mapping[str, float] | None) -> tuple[CheckLine, ...]:
    if split is None:
        text = "no planned split was declared, so whether people went missing from an arm was not tested"
        return (CheckLine("sample ratio", "warn", text),)
    if set(split) != set(arms):
        raise ContractError(
            f"the planned split names {', '.join(sorted(split))}; the release holds {', '.join(sorted(arms))}. Give "
            "every arm its share."
        )
    found: RatioCheck = sample_ratio(list(arms.values()), [split[a] for a in arms])
    worst = int(np.argmax(np.abs(found.observed - found.expected)))
    text = (
        f"chi-square {found.chi_square:.3g} on {found.dof}, p {found.p_value:.2g}; {found.blind_share:.0%} of its "
        f"variance is released noise"
    )
    if found.verdict == "fail":
        text += (
            f". Arm {found.arms[worst]!r} has {found.observed[worst]:,.0f} people where the plan gives "
            f"{found.expected[worst]:,.0f} (limit p {SRM_LIMIT:g}): find out why before any figure here is used"
        )
    return (CheckLine("sample ratio", found.verdict, text, found.p_value, SRM_LIMIT),)


def _noise_check(e: LiftEstimate) -> tuple[CheckLine, ...]:
    share = e.noise_variance_share
    verdict: Literal["pass", "warn"] = "warn" if share > MAX_NOISE_SHARE else "pass"
    text = f"{share:.0%} of the variance is noise added for privacy"
    return (CheckLine("released noise", verdict, text, share, MAX_NOISE_SHARE),)


def _fit_check(history: Sequence[PathPoint]) -> tuple[CheckLine, ...]:
    seen = np.array([(p.observed, p.expected) for p in history])
    seen = seen[np.isfinite(seen).all(axis=1)]
    if not len(seen):
        return ()
    level = float(np.abs(seen[:, 0]).mean())
    miss = float(np.sqrt(((seen[:, 0] - seen[:, 1]) ** 2).mean()))
    share = miss / level if level > 0 else math.inf
    text = f"before the test the controls miss the treated side by {share:.1%} of its level (root mean square)"
    return (CheckLine("fit before the test", "warn" if share > MAX_MISS else "pass", text),)


def _figure(value: float) -> str:
    """Three significant digits with thousands separators."""
    return f"{float(f'{value:.3g}'):,.10g}"


def _holds_zero(low: float, high: float) -> bool:
    return low <= 0 <= high


def changes(e: LiftEstimate) -> tuple[str, ...]:
    """What would change the conclusion drawn from the 90 % interval, in sentences with finished numbers."""
    reach = (e.p95 - e.p05) / 2
    if _holds_zero(e.p05, e.p95):
        out = [_what_it_takes(e, reach)]
    else:
        edge = min(abs(e.p05), abs(e.p95))
        out = [
            f"The interval stays clear of zero by {_figure(edge)} {e.metric}. A bias of that size, "
            f"{edge / abs(e.mean):.0%} of the estimate, towards zero would bring zero back in: a shock that hit the "
            "treated side alone would do."
        ]
    return (*out, _without_noise(e))


def _what_it_takes(e: LiftEstimate, reach: float) -> str:
    if e.mean == 0:
        return "The estimate is zero: only other data would change the conclusion."
    times = (reach / abs(e.mean)) ** 2
    return (
        f"The interval holds zero. With this error an estimate of {_figure(reach)} {e.metric} or more would leave it "
        f"out; with this estimate the variance would have to be {_figure(times)} times smaller: about that many times "
        "the people, or independent periods, and noise that grows no further."
    )


def _without_noise(e: LiftEstimate) -> str:
    """The same statistic with the released part of its variance taken away."""
    share = min(e.noise_variance_share, 1.0)
    if share <= 0:
        return "No released noise is in the figure, so more privacy budget would change nothing."
    if share >= 1:
        return "All of the variance is released noise: with more privacy budget for this table the figure gets sharper."
    sharp = t_columns(e.mean, e.std_error * math.sqrt(1 - share), e.dof)
    low, high = sharp["p05"], sharp["p95"]
    verb = "would" if _holds_zero(low, high) != _holds_zero(e.p05, e.p95) else "would not"
    return (
        f"Without the noise added for privacy the interval would be about {_figure(low)} to {_figure(high)} "
        f"around the same estimate; that {verb} change the conclusion."
    )


def _one_period(e: LiftEstimate, path: Sequence[PathPoint]) -> tuple[str, ...]:
    """Whether the conclusion hangs on one period: its effect taken out, the error as it is."""
    known = [p for p in path if math.isfinite(p.effect)]
    if len(known) < 3:
        return ()
    most = max(known, key=lambda p: p.effect * math.copysign(1.0, e.mean))
    rest = e.mean - most.effect
    shorter = e.std_error * math.sqrt((len(known) - 1) / len(known))
    left = t_columns(rest, shorter, e.dof)
    low, high = left["p05"], left["p95"]
    verb = "would change" if _holds_zero(low, high) != _holds_zero(e.p05, e.p95) else "does not change"
    return (
        f"The period from {most.day} carries the largest part, {_figure(most.effect)}. Without it the effect is "
        f"{_figure(rest)} ({_figure(low)} to {_figure(high)}, periods taken as equally uncertain): that {verb} the "
        "conclusion.",
    )
