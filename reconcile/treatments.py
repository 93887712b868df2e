"""Four ways to treat a lift that the model has already used; anything else is refused by its evidence ids.

| treatment | model | lifts | for |
|---|---|---|---|
| pooled | uncalibrated | in the likelihood | the default: every piece once |
| check | calibrated | prediction only | where only a calibrated model exists |
| cavity | calibrated, the lifts' information taken out | in the likelihood | the same, with the lifts' own error |
| leave_one_out | calibrated, each test predicted without itself | prediction only | honest validation |

Cavity: with log totals and log secants x ~ N(m, S) and lift k linearised as y ≈ f + h'(x − m), h = f (1, 1), the
information of the lifts is H' R⁻¹ H; what is left, S⁻¹ − H' R⁻¹ H, must be positive definite, else it is refused.
Leave one out: Pareto-smoothed importance weights 1 / p(y_k | draw) (Vehtari, Simpson, Gelman, Yao, Gabry 2024), refused
above a tail shape of 0.7.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from arviz_stats.base.array import array_stats
from scipy import stats

from contracts.errors import ContractError
from contracts.evidence import LiftLibrary
from reconcile.inputs import MmmEvidence

Treatment = Literal["pooled", "check", "cavity", "leave_one_out"]
MAX_PARETO_K = 0.7
CAVITY_DRAWS = 2000
WIDEST = 10.0  # a cavity variance above this multiple of the calibrated one says that the lifts held the channel alone


def treat(mmm: MmmEvidence, lifts: LiftLibrary, treatment: Treatment, seed: int) -> tuple[MmmEvidence, bool]:
    """The model's evidence to pool, and whether the lifts go into the likelihood.

    Raises ContractError where the treatment does not fit the model: 'pooled' with a model that has seen a lift,
    'cavity' or 'leave_one_out' where the arithmetic cannot take the lifts out again.
    """
    ids = {i for e in lifts.estimates for i in e.evidence_ids}
    if treatment == "pooled":
        if used := sorted(ids & set(mmm.evidence_ids)):
            raise ContractError(
                f"evidence {used[0]!r} is already in the model, so it cannot be pooled again; pool the uncalibrated "
                "model, or set lifts = 'check', 'cavity' or 'leave_one_out' under [reconcile] in plumb.toml."
            )
        return mmm, True
    if treatment == "check":
        return mmm, False
    if treatment == "cavity":
        return _cavity(mmm, lifts, seed), True
    unseen = np.stack([_left_out(mmm, lifts, k, seed) for k in range(len(lifts.estimates))], axis=1)
    return replace(mmm, unseen_draws=unseen), False


def _predicted(mmm: MmmEvidence, lifts: LiftLibrary) -> list[int]:
    """Positions of lifts that the model predicts."""
    finite = np.isfinite(mmm.lift_draws).all(axis=0)
    return [k for k, e in enumerate(lifts.estimates) if finite[k] and e.channel in mmm.channels]


def _cavity(mmm: MmmEvidence, lifts: LiftLibrary, seed: int) -> MmmEvidence:
    used = _predicted(mmm, lifts)
    c, at = len(mmm.channels), [mmm.channels.index(lifts.estimates[k].channel) for k in used]
    sign = np.sign(np.median(mmm.lift_draws[:, used], axis=0))
    logs = np.hstack([np.log(mmm.totals), np.log(np.abs(mmm.lift_draws[:, used]) / mmm.totals[:, at])])
    mean, covariance = logs.mean(axis=0), np.cov(logs.T) + 1e-8 * np.eye(logs.shape[1])
    effect = sign * np.exp(mean[at] + mean[c:])
    h = np.zeros((len(used), logs.shape[1]))
    h[np.arange(len(used)), at] = effect
    h[np.arange(len(used)), c + np.arange(len(used))] = effect
    noise = np.linalg.inv(lifts.covariance[np.ix_(used, used)]) if used else np.zeros((0, 0))
    observed = np.array([lifts.estimates[k].mean for k in used])
    precision = np.linalg.inv(covariance)
    left = precision - h.T @ noise @ h
    if np.linalg.eigvalsh(left).min() <= 0 or (np.diag(np.linalg.inv(left)) > WIDEST * np.diag(covariance)).any():
        raise ContractError(
            "the lifts cannot be taken out of the calibrated model again: what is left is no distribution. The tests "
            "decide its channels alone; pool the uncalibrated model (lifts = 'pooled')."
        )
    centre = np.linalg.solve(left, precision @ mean - h.T @ noise @ (observed - effect + h @ mean))
    draws = np.random.default_rng([seed, 5]).multivariate_normal(centre, np.linalg.inv(left), CAVITY_DRAWS)
    totals = np.exp(draws[:, :c])
    predicted = np.full((CAVITY_DRAWS, len(lifts.estimates)), np.nan)
    predicted[:, used] = sign * totals[:, at] * np.exp(draws[:, c:])
    ids = {i for e in lifts.estimates for i in e.evidence_ids}
    return replace(
        mmm, totals=totals, lift_draws=predicted, evidence_ids=tuple(i for i in mmm.evidence_ids if i not in ids)
    )


def _left_out(mmm: MmmEvidence, lifts: LiftLibrary, k: int, seed: int) -> np.ndarray:
    """Draws (S,) of lift k from the calibrated posterior without test k; NaN where the model does not predict it."""
    draws, e = mmm.lift_draws[:, k], lifts.estimates[k]
    if not np.isfinite(draws).all():
        return draws
    likelihood = stats.t.logpdf(e.mean, e.dof, draws, e.std_error)
    smoothed, shape = array_stats.psislw(likelihood)
    if shape > MAX_PARETO_K:
        raise ContractError(
            f"test {e.experiment!r} decides the calibrated model too much to be left out by weighting (Pareto k "
            f"{float(shape):.2f}, limit {MAX_PARETO_K}); fit the model without it, or use lifts = 'pooled'."
        )
    weight = np.exp(smoothed - np.max(smoothed))
    rng = np.random.default_rng([seed, 6, k])
    return np.asarray(rng.choice(draws, size=len(draws), p=weight / weight.sum()))
