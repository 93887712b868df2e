"""Who decides: weight of each source, and how far a source lies from what the others predict.

Every source is written as least squares at a point theta = (log I, log q, level, family, channel bias): residual r,
Jacobian J, precision W, so that its part of the information is H_s = J' W J and H = sum H_s. Student-t terms enter
with their iterated weight (dof + 1) / (dof + z²), so an outlier weighs little. Then, with v = H⁻¹ e_c,

    weight of source s for channel c = v' H_s v / v' H v,

which sums to 1 over the sources. What the model says about q given I ties a test to its channel's total and tells
nothing without the test, so it counts with the lifts. The credit biases live in the credit source only, so its weight
is that of its effective precision, after they are integrated out. A source's conflict is the normal score of its
observed value under the prediction from all other sources (DESIGN section 5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import log_ndtr, ndtri_exp

from reconcile.inputs import PoolPriors, Prepared
from reconcile.model import lift_groups

Source = Literal["prior", "mmm", "secant", "lift", "credit"]
STEPS = 30  # Gauss-Newton steps; each moves a log by at most STEP
STEP = 0.5
PREDICTIVE_DRAWS = 4000
Z_CAP = 8.0


@dataclass(frozen=True, slots=True)
class Point:
    """Where the sources are linearised."""

    theta: np.ndarray  # (N + J + F + C,)
    tau: float  # spread of channel biases
    spread: float  # spread between rules


@dataclass(frozen=True, slots=True)
class Left:
    """Which evidence is left out: lifts by position, credit rows by position."""

    lifts: frozenset[int] = frozenset()
    rows: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Quadratic:
    """Information (n, n) and gradient (n,) of one source at a point."""

    information: np.ndarray
    gradient: np.ndarray


def _robust(z2: np.ndarray, dof: float | np.ndarray) -> np.ndarray:
    return (dof + 1.0) / (dof + z2)


def _levels(data: Prepared, priors: PoolPriors, point: Point) -> dict[Source, Quadratic]:
    """Prior (channels that no model holds), MMM, and the secants given the totals: quadratic in (log I, log q)."""
    n, c, size = len(data.mean), len(data.from_mmm), len(point.theta)
    off = point.theta[:n] - data.mean
    cov = data.cov.copy()
    channels = np.flatnonzero(data.from_mmm)
    weight = _robust(off[channels] ** 2 / (np.diag(cov)[channels] + priors.mmm_bias_sd**2), priors.dof)
    cov[channels, channels] += priors.mmm_bias_sd**2 / weight
    totals, joint = np.linalg.inv(cov[:c, :c]), np.linalg.inv(cov)
    joint[:c, :c] -= totals
    # Channels outside the model are independent of it, so the precision of the totals has two blocks.
    outside = ~data.from_mmm
    parts: dict[Source, np.ndarray] = {
        "prior": totals * np.outer(outside, outside),
        "mmm": totals * np.outer(data.from_mmm, data.from_mmm),
        "secant": joint,
    }
    out: dict[Source, Quadratic] = {}
    for source, precision in parts.items():
        information, gradient = np.zeros((size, size)), np.zeros(size)
        m = len(precision)
        information[:m, :m], gradient[:m] = precision, precision @ off[:m]
        out[source] = Quadratic(information, gradient)
    return out


def _lifts(data: Prepared, priors: PoolPriors, point: Point, left: Left) -> Quadratic:
    c, size = len(data.from_mmm), len(point.theta)
    information, gradient = np.zeros((size, size)), np.zeros(size)
    for whole in lift_groups(data.lift_cov):
        group = np.array([k for k in whole if k not in left.lifts], dtype=int)
        if not len(group):
            continue
        effect = data.lift_sign[group] * np.exp(point.theta[data.lift_channel[group]] + point.theta[c + group])
        cov = data.lift_cov[np.ix_(group, group)] + np.diag((priors.lift_bias_sd * effect) ** 2)
        residual = effect - data.lift[group]
        precision = np.linalg.inv(cov)
        dof = data.lift_dof[group].min()
        precision = precision * (dof + len(group)) / (dof + residual @ precision @ residual)
        jacobian = np.zeros((len(group), size))
        rows = np.arange(len(group))
        jacobian[rows, data.lift_channel[group]] = effect
        jacobian[rows, c + group] = effect
        information += jacobian.T @ precision @ jacobian
        gradient += jacobian.T @ precision @ residual
    return Quadratic(information, gradient)


def _credit_columns(data: Prepared) -> np.ndarray:
    """Columns (P, 4) of theta that make up each row's log credit: channel, level, family, channel bias."""
    n, j = len(data.mean), len(data.models)
    f = int(data.family.max()) + 1
    at = data.credit_channel
    return np.column_stack([at, n + data.credit_model, n + j + data.family[at], n + j + f + at])


def _credits(data: Prepared, priors: PoolPriors, point: Point, left: Left) -> Quadratic:
    n, j, size = len(data.mean), len(data.models), len(point.theta)
    f = int(data.family.max()) + 1
    theta = point.theta
    bias = theta[n + j + f :]
    prior = np.concatenate(
        [
            np.full(j, priors.model_bias_sd**-2),
            np.full(f, priors.family_bias_sd**-2),
            _robust((bias / point.tau) ** 2, priors.dof) / point.tau**2,
        ]
    )
    information = np.diag(np.concatenate([np.zeros(n), prior]))
    gradient = np.concatenate([np.zeros(n), prior * theta[n:]])
    keep = np.array([p for p in range(len(data.credit)) if p not in left.rows], dtype=int)
    if len(keep):
        columns = _credit_columns(data)[keep]
        fitted = np.exp(theta[columns].sum(axis=1))
        residual = fitted - data.credit[keep]
        scale2 = data.credit_sd[keep] ** 2 + (point.spread * fitted) ** 2
        weight = _robust(residual**2 / scale2, priors.dof)
        precision = 1.0 / (data.credit_sd[keep] ** 2 + (point.spread * fitted) ** 2 / weight)
        jacobian = np.zeros((len(keep), size))
        jacobian[np.arange(len(keep))[:, None], columns] = fitted[:, None]
        information += (jacobian * precision[:, None]).T @ jacobian
        gradient += jacobian.T @ (precision * residual)
    return Quadratic(information, gradient)


def quadratics(data: Prepared, priors: PoolPriors, point: Point, left: Left = Left()) -> dict[Source, Quadratic]:
    """Information and gradient of every source at `point`, without what is left out."""
    out = _levels(data, priors, point)
    out["lift"] = _lifts(data, priors, point, left)
    out["credit"] = _credits(data, priors, point, left)
    return out


def weights(data: Prepared, priors: PoolPriors, point: Point) -> dict[str, np.ndarray]:
    """Share (C,) of 'prior', 'mmm', 'lift' and 'credit' in the precision of log I; they sum to 1 (module docstring)."""
    parts = quadratics(data, priors, point)
    total = np.sum([q.information for q in parts.values()], axis=0)
    v = np.linalg.inv(total)[:, : len(data.from_mmm)]
    whole = np.einsum("ic,ij,jc->c", v, total, v)
    share = {s: np.einsum("ic,ij,jc->c", v, q.information, v) / whole for s, q in parts.items()}
    return {s: share[s] for s in ("prior", "mmm", "credit")} | {"lift": share["lift"] + share["secant"]}


def _without(data: Prepared, priors: PoolPriors, point: Point, left: Left) -> tuple[np.ndarray, np.ndarray]:
    """Mean (n,) and covariance (n, n) of theta from all evidence but what is left out, by Gauss-Newton."""
    information = np.eye(len(point.theta))
    for _ in range(STEPS):
        parts = quadratics(data, priors, point, left).values()
        information = np.sum([q.information for q in parts], axis=0)
        step = np.linalg.solve(information, np.sum([q.gradient for q in parts], axis=0))
        point = replace(point, theta=point.theta - np.clip(step, -STEP, STEP))
        if np.abs(step).max() < 1e-6:
            break
    return point.theta, np.linalg.inv(information)


def _score(predicted: np.ndarray, sd: np.ndarray, observed: float) -> float:
    """Normal score of `observed` under the mixture of Normal(predicted, sd) over draws, capped at ±8."""
    z = (observed - predicted) / sd
    low = np.logaddexp.reduce(log_ndtr(z)) - np.log(len(z))
    high = np.logaddexp.reduce(log_ndtr(-z)) - np.log(len(z))
    score = ndtri_exp(low) if low < high else -ndtri_exp(high)
    return float(np.clip(score, -Z_CAP, Z_CAP))


def lift_conflict(data: Prepared, priors: PoolPriors, point: Point, left: frozenset[int], k: int, seed: int) -> float:
    """z of lift k against the prediction from everything but the lifts in `left` (k among them)."""
    mean, cov = _without(data, priors, point, Left(lifts=left))
    pair = [int(data.lift_channel[k]), len(data.from_mmm) + k]
    rng = np.random.default_rng([seed, k])
    logs = rng.normal(mean[pair].sum(), np.sqrt(cov[np.ix_(pair, pair)].sum()), PREDICTIVE_DRAWS)
    effect = data.lift_sign[k] * np.exp(logs)
    return _score(effect, np.sqrt(data.lift_cov[k, k] + (priors.lift_bias_sd * effect) ** 2), float(data.lift[k]))


def credit_conflict(data: Prepared, priors: PoolPriors, point: Point, channel: int, seed: int) -> dict[int, float]:
    """z of every credit row of one channel against the prediction without any credit of that channel."""
    rows = np.flatnonzero(data.credit_channel == channel)
    mean, cov = _without(data, priors, point, Left(rows=frozenset(int(p) for p in rows)))
    rng = np.random.default_rng([seed, 1000 + channel])
    out = {}
    for p in rows:
        at = _credit_columns(data)[p]
        sd = np.sqrt(cov[np.ix_(at, at)].sum() + point.spread**2)
        fitted = np.exp(rng.normal(mean[at].sum(), sd, PREDICTIVE_DRAWS))
        out[int(p)] = _score(fitted, np.full(PREDICTIVE_DRAWS, data.credit_sd[p]), float(data.credit[p]))
    return out
