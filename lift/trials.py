"""Lift of a user-randomised test from released arm totals only: n, sums, squares and cross products.

| on paper | here | unit |
|---|---|---|
| n[a] | component 'n' | people of the arm |
| S[a] | component METRIC | metric units |
| Q[a] | component METRIC*METRIC | metric units² |

Difference per person d = S[T]/n[T] − S[C]/n[C]; incremental outcome of the treated arm = d · n[T].
Sampling variance of a mean: (Q − (S² − var S)/n) / (n − 1) / n: a noisy square is too large by its noise variance,
which is taken out. Released noise of S and n enters by the delta method, that of Q through the degrees of freedom.
Expected value: everyone randomised is counted, reached or not (intention to treat). Decision 0021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contracts.errors import ContractError
from contracts.evidence import Experiment, LiftEstimate
from contracts.release import Release
from lift.geo import t_columns
from lift.totals import Totals

ESTIMATOR = "difference_in_means"
METRICS = ("conversions", "revenue", "visits")
MIN_PEOPLE = 50
MIN_DOF = 5.0


@dataclass(frozen=True, slots=True)
class Arm:
    """Totals of one arm: component -> (value, noise variance)."""

    experiment: str
    name: str
    totals: dict[str, tuple[float, float]]

    @property
    def people(self) -> float:
        """Released number of people, noisy."""
        return self.totals["n"][0]


@dataclass(frozen=True, slots=True)
class ArmMean:
    """Mean per person of one metric in one arm, and the two parts of its variance (metric units²)."""

    value: float
    spread: float  # variance between people
    sampling: float  # spread / n
    released: float  # from noise in S and n
    spread_noise: float  # variance of `sampling` caused by noise in Q and S


@dataclass(frozen=True, slots=True)
class Difference:
    """Treated minus control, per person, with a t reference."""

    experiment: str
    arm: str
    metric: str
    value: float
    std_error: float
    dof: float
    noise_variance_share: float
    treated_people: float
    control_people: float


def read_arms(experiment: Experiment, release: Release) -> dict[str, Arm]:
    """Arms of one experiment in a trials release. Raises ContractError when there is none, or no control arm."""
    if release.measure != "trials":
        raise ContractError(f"release {release.release_id!r} holds {release.measure!r}; a user test reads 'trials'.")
    rows = release.table[release.table["experiment"] == experiment.name]
    arms = {
        str(name): Arm(
            experiment.name,
            str(name),
            {
                str(c): (float(v), float(s2))
                for c, v, s2 in zip(part["component"], part["value"], part["variance"], strict=True)
            },
        )
        for name, part in rows.groupby("arm", sort=True)
    }
    if experiment.control_arm not in arms:
        found = ", ".join(map(repr, arms)) or "no arm at all"
        raise ContractError(
            f"experiment {experiment.name!r} has no arm {experiment.control_arm!r} in release {release.release_id!r}, "
            f"which holds {found}; name the reference arm with control_arm in plumb.toml."
        )
    if len(arms) < 2:
        raise ContractError(f"experiment {experiment.name!r} has a control arm only; a lift needs a treated arm too.")
    for arm in arms.values():
        _check_people(arm)
    return arms


def arm_totals(arm: Arm) -> Totals:
    """The arm's totals as arrays, for the estimators of lift/arms.py, lift/several.py and lift/sequential.py."""
    value, variance = (np.array([t[i] for t in arm.totals.values()]) for i in (0, 1))
    return Totals(arm.name, tuple(arm.totals), value, variance)


def _check_people(arm: Arm) -> None:
    if "n" not in arm.totals:
        raise ContractError(f"arm {arm.name!r} of experiment {arm.experiment!r} has no component 'n' in its release.")
    n, noise = arm.totals["n"]
    impossible = [c for c, (v, s2) in arm.totals.items() if v < -8 * math.sqrt(s2)]
    if impossible:
        raise ContractError(
            f"arm {arm.name!r} of experiment {arm.experiment!r} has a total of {arm.totals[impossible[0]][0]:.4g} for "
            f"{impossible[0]!r}, more than 8 sd of its noise below zero; no people give that, so check where the "
            "totals come from."
        )
    least = max(MIN_PEOPLE, 5 * math.sqrt(noise))
    if n < least:
        raise ContractError(
            f"arm {arm.name!r} of experiment {arm.experiment!r} has a released size of {n:.0f}, under the {least:.0f} "
            "that its noise allows to be read; give the trials more rho, or a larger arm."
        )


def _least_spread(arm: Arm, metric: str, mean: float) -> float:
    """Smallest variance between people that the other totals allow, for use where noise makes the estimate too small.

    Whole-number metrics: p(1 − p) of the fraction p = mean mod 1. Revenue: at most the converting share of people has
    any, so E[y²] >= mean² / share.
    """
    if metric != "revenue":
        part = mean % 1.0
        return part * (1 - part)
    if "conversions" not in arm.totals:
        return 0.0
    buyers = min(max(arm.totals["conversions"][0], 1.0) / arm.people, 1.0)
    return mean**2 / buyers - mean**2


def arm_mean(arm: Arm, metric: str) -> ArmMean:
    """Mean per person of `metric`. Raises ContractError when a total is missing or its variance cannot be bounded."""
    square = f"{metric}*{metric}"
    absent = [c for c in (metric, square) if c not in arm.totals]
    if absent:
        raise ContractError(
            f"arm {arm.name!r} of experiment {arm.experiment!r} has no component {', '.join(map(repr, absent))}; "
            "release the trials again with that metric, or leave it out."
        )
    (n, n_noise), (total, total_noise), (squares, squares_noise) = (arm.totals[c] for c in ("n", metric, square))
    mean = total / n
    spread = (squares - (total**2 - total_noise) / n) / (n - 1)
    spread = max(spread, _least_spread(arm, metric, mean))
    if not spread > 0:
        raise ContractError(
            f"arm {arm.name!r} of experiment {arm.experiment!r}: the released squares of {metric!r} give a variance of "
            f"{spread:.3g}, which is noise or a metric that never varies; give trials more rho or leave {metric!r} out."
        )
    spread_noise = (squares_noise + (2 * mean) ** 2 * total_noise) / n**4
    return ArmMean(mean, spread, spread / n, (total_noise + mean**2 * n_noise) / n**2, spread_noise)


def _dof(variance: float, treated: ArmMean, control: ArmMean) -> float:
    """Satterthwaite: 2 V² / var(V), where only the noise of the released squares makes V uncertain (n is large)."""
    uncertain = treated.spread_noise + control.spread_noise
    return max(2 * variance**2 / uncertain, MIN_DOF) if uncertain > 0 else math.inf


def _difference(treated: Arm, control: Arm, metric: str) -> Difference:
    t, c = arm_mean(treated, metric), arm_mean(control, metric)
    released = t.released + c.released
    variance = t.sampling + c.sampling + released
    return Difference(
        treated.experiment,
        treated.name,
        metric,
        t.value - c.value,
        math.sqrt(variance),
        _dof(variance, t, c),
        released / variance,
        treated.people,
        control.people,
    )


def difference_in_means(experiment: Experiment, release: Release, arm: str, metric: str) -> Difference:
    """Difference per person between `arm` and the control arm, with released noise in its standard error.

    Raises ContractError when the arm, the control arm or a component is missing, or when an arm's released size is too
    small to divide by.
    """
    arms = read_arms(experiment, release)
    if arm not in arms or arm == experiment.control_arm:
        treated = ", ".join(map(repr, sorted(set(arms) - {experiment.control_arm})))
        raise ContractError(f"experiment {experiment.name!r} has no treated arm {arm!r}; it has {treated}.")
    return _difference(arms[arm], arms[experiment.control_arm], metric)


def _estimate(
    experiment: Experiment, release: Release, treated: Arm, control: Arm, metric: str, spend_delta: float | None
) -> LiftEstimate:
    """Incremental outcome of the treated arm: the difference per person times the arm's released size.

    It equals S[T] − n[T] · mean[C], so the noise of n[T] enters with mean[C], not with mean[T].
    """
    t, c = arm_mean(treated, metric), arm_mean(control, metric)
    people = treated.people
    released = treated.totals[metric][1] + c.value**2 * treated.totals["n"][1] + people**2 * c.released
    variance = people**2 * (t.sampling + c.sampling) + released
    dof = _dof(variance / people**2, t, c)
    mean, scale = (t.value - c.value) * people, math.sqrt(variance)
    return LiftEstimate(
        experiment=experiment.name, estimator=ESTIMATOR, kind="user", channel=experiment.channel, arm=treated.name,
        metric=metric, start=experiment.start, end=experiment.end, treated=(),
        mean=mean, std_error=scale, dof=dof, **t_columns(mean, scale, dof),
        noise_variance_share=released / variance,
        spend_delta=float("nan") if spend_delta is None else spend_delta, spend_delta_se=0.0,
        evidence_ids=(f"experiment:{experiment.name}", release.release_id),
        arm_ratio=people / control.people,
    )  # fmt: skip


def _cross_spread(arm: Arm, metrics: tuple[str, str]) -> float:
    """Covariance between people of two metrics, 0 where their product was not released; |correlation| < 1."""
    first, second = sorted(metrics)
    if f"{first}*{second}" not in arm.totals:
        return 0.0
    n = arm.people
    a, b = arm.totals[first][0], arm.totals[second][0]
    raw = (arm.totals[f"{first}*{second}"][0] - a * b / n) / (n - 1)
    limit = 0.999 * math.sqrt(arm_mean(arm, first).spread * arm_mean(arm, second).spread)
    return min(max(raw, -limit), limit)


def _mean_covariance(arm: Arm, metrics: tuple[str, str], control: Arm) -> float:
    """Covariance of two arm means: sampling, noise of the sums, and the noise of n that both divide by.

    The noise of n enters with the control arm's means (see `_estimate`).
    """
    n, n_noise = arm.totals["n"]
    levels = control.totals[metrics[0]][0] * control.totals[metrics[1]][0] / control.people**2
    shared = levels * n_noise / n**2
    if metrics[0] == metrics[1]:
        return arm_mean(arm, metrics[0]).sampling + arm.totals[metrics[0]][1] / n**2 + shared
    return _cross_spread(arm, metrics) / n + shared


def trial_covariance(experiment: Experiment, release: Release, estimates: Sequence[LiftEstimate]) -> np.ndarray:
    """Joint covariance (K, K) of one experiment's estimates: arms share the control arm, metrics share people."""
    arms = read_arms(experiment, release)
    control = arms[experiment.control_arm]
    out = np.empty((len(estimates), len(estimates)))
    for i, a in enumerate(estimates):
        for j, b in enumerate(estimates):
            pair = (a.metric, b.metric)
            own = _mean_covariance(arms[a.arm], pair, control) if a.arm == b.arm else 0.0
            out[i, j] = arms[a.arm].people * arms[b.arm].people * (own + _mean_covariance(control, pair, control))
    return out


def trial_lifts(
    experiment: Experiment,
    release: Release,
    *,
    spend_delta: float | None,
    metrics: Sequence[str] = METRICS,
) -> tuple[LiftEstimate, ...]:
    """One estimate per treated arm and metric: incremental outcome of that arm's people over the window, metric units.

    `spend_delta` is the spend change of the whole test, currency; with several treated arms it is shared out by the
    arms' released sizes. Raises ContractError as `difference_in_means`.
    """
    if experiment.kind != "user":
        raise ContractError(
            f"experiment {experiment.name!r} is a {experiment.kind} test; trial_lifts reads user tests."
        )
    arms = read_arms(experiment, release)
    control = arms[experiment.control_arm]
    treated = [arm for name, arm in arms.items() if name != experiment.control_arm]
    people = sum(arm.people for arm in treated)
    return tuple(
        _estimate(
            experiment,
            release,
            arm,
            control,
            metric,
            None if spend_delta is None else spend_delta * arm.people / people,
        )
        for arm in treated
        for metric in metrics
    )
