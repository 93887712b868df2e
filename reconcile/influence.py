"""Who decides: weight of each source, and how far a source lies from what the others predict.

Every source is least squares at the posterior mean: residuals r, Jacobian J, weights W, so that its information is
H_s = J' W J and H = sum H_s. Student-t terms enter with their iterated weight (dof + 1) / (dof + r²), so an outlier
weighs little. With a the gradient of log I[c, t] and v = H⁻¹ a,

    weight of source s = v' H_s v / v' H v,

which sums to 1. What the model says of a test's secant ties the test to its channel and tells nothing without it, so it
counts with the lifts. A source is left out by switching its residuals off; for the model of a channel and for the
credit of a channel that is the same as setting their bias free, and the conflict is how far the free bias had to go.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from scipy.special import log_ndtr, ndtri_exp

from reconcile.model import layout, terms
from reconcile.prepare import Arrays
from reconcile.priors import PoolPriors
from reconcile.sampler import DIFFERENCE, SCALE_SD, linearised, meaning, scale_places

SOURCES = ("lift", "mmm", "credit", "family", "prior")
PREDICTIVE_DRAWS = 4000
Z_CAP = 8.0
LEAVE_STEPS = 3
STRIDE = 1.0


@dataclass(frozen=True, slots=True)
class Linear:
    """All sources at one point."""

    theta: np.ndarray  # (D,)
    residual: np.ndarray  # (n,)
    weight: np.ndarray  # (n,)
    jacobian: np.ndarray  # (n, D)
    places: dict[str, slice]  # rows of each term
    scales: np.ndarray  # positions of the spreads, held fixed

    def information(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """J' W J over some rows."""
        jacobian = self.jacobian[rows]
        return np.asarray((jacobian * self.weight[rows][:, None]).T @ jacobian)

    @property
    def ground(self) -> np.ndarray:
        """What keeps the spreads where they are, and a hair that keeps the sum invertible."""
        out = np.full(len(self.theta), 1e-9)
        out[self.scales] = SCALE_SD**-2
        return np.diag(out)


def linear_at(theta: np.ndarray, data: Arrays, priors: PoolPriors) -> Linear:
    """Linearises every source at `theta`."""
    with jax.enable_x64(True):
        names: list[str] = []  # of the terms in their own order: a traced dict comes back sorted

        def sizes(x: jax.Array) -> tuple[jax.Array, ...]:
            found = terms(x, data, priors)
            names[:] = found
            return tuple(t.residual for t in found.values())

        shapes = jax.eval_shape(sizes, theta)
        residual, weight, jacobian = linearised(theta, data, priors)
    places, at = {}, 0
    for name, shape in zip(names, shapes, strict=True):
        places[name] = slice(at, at + shape.shape[0])
        at += shape.shape[0]
    return Linear(theta, residual, weight, jacobian, places, scale_places(data))


def gradients(theta: np.ndarray, data: Arrays, priors: PoolPriors) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of log I over all periods (C, D), of log I per period (C, T, D), of the log size of lifts (K, D)."""
    d = len(theta)
    s = meaning(np.concatenate([theta + DIFFERENCE * np.eye(d), theta - DIFFERENCE * np.eye(d)]), data, priors)
    cells = s.level[:, :, None] + s.share
    lifts = np.log(np.abs(s.effect) + 1e-300)
    return tuple(np.moveaxis((v[:d] - v[d:]) / (2 * DIFFERENCE), 0, -1) for v in (s.level, cells, lifts))


def weights(linear: Linear, gradient: np.ndarray) -> dict[str, np.ndarray]:
    """Share of every source in the precision of what has these gradients (..., D); the shares sum to 1."""
    flat = gradient.reshape(-1, gradient.shape[-1])
    v = np.linalg.solve(linear.information() + linear.ground, flat.T)
    parts = {n: np.einsum("ik,ij,jk->k", v, linear.information(rows), v) for n, rows in linear.places.items()}
    whole = np.sum(list(parts.values()), axis=0)
    share = {n: (p / whole).reshape(gradient.shape[:-1]) for n, p in parts.items()}
    none = np.zeros(gradient.shape[:-1])
    share["lift"] = share.get("lift", none) + share.pop("secant", none)
    return {n: share.get(n, none) for n in SOURCES}


def without(
    linear: Linear, rows: np.ndarray, data: Arrays, priors: PoolPriors, steps: int = LEAVE_STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance (D, D) of the parameters from all evidence but the residuals at `rows`."""
    theta, at = linear.theta, linear
    keep = np.ones(len(linear.residual))
    keep[rows] = 0.0
    information = np.eye(len(theta))
    for n in range(steps):
        at = linear if n == 0 else linear_at(theta, data, priors)
        weight = at.weight * keep
        information = (at.jacobian * weight[:, None]).T @ at.jacobian + at.ground
        move = -np.linalg.solve(information, at.jacobian.T @ (weight * at.residual))
        theta = theta + np.clip(move, -STRIDE, STRIDE)
        if np.abs(move).max() < 1e-2:
            break
    return theta, np.linalg.inv(information)


def score(predicted: np.ndarray, sd: np.ndarray, observed: float) -> float:
    """Normal score of `observed` under the mixture of Normal(predicted, sd) over draws, capped at ±8.

    The tail probability and not (observed − mean) / sd, because predictions are skewed.
    """
    z = (observed - predicted) / sd
    low = np.logaddexp.reduce(log_ndtr(z)) - np.log(len(z))
    high = np.logaddexp.reduce(log_ndtr(-z)) - np.log(len(z))
    found = ndtri_exp(low) if low < high else -ndtri_exp(high)
    return float(np.clip(found, -Z_CAP, Z_CAP))


def predicted_lift(
    theta: np.ndarray, covariance: np.ndarray, k: int, data: Arrays, priors: PoolPriors, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws of lift k's effect and the sd of its observation, from a mean and a covariance of the parameters."""
    centre = meaning(theta[None], data, priors).effect[0, k]
    slope = gradients(theta, data, priors)[2][k]
    sd = np.sqrt(max(float(slope @ covariance @ slope), 0.0))
    rng = np.random.default_rng([seed, k])
    effect = centre * np.exp(sd * rng.standard_normal(PREDICTIVE_DRAWS))
    return effect, np.sqrt(data.lift_cov[k, k] + (data.lift_extra[k] * effect) ** 2)


def lift_rows(linear: Linear, lifts: np.ndarray) -> np.ndarray:
    """Rows of some lifts."""
    return np.asarray(linear.places["lift"].start + lifts)


def free_bias(linear: Linear, name: str, data: Arrays, priors: PoolPriors) -> np.ndarray:
    """Normal scores of 'mmm_bias' (C,) or 'channel_bias' (G, C): where each bias goes when its own prior is removed.

    Positive: the rest says more than the model of the channel does, or the credit more than on other channels.
    """
    at, shape = layout(data)[name]
    if at.start == at.stop:  # no credit at all
        return np.zeros(shape)
    first = {"mmm_bias": _mmm_bias_row, "channel_bias": _channel_bias_row}[name](linear, data)
    whole = linear.information() + linear.ground
    pull = linear.jacobian.T @ (linear.weight * linear.residual)
    out = np.zeros(at.stop - at.start)
    for n, place in enumerate(range(at.start, at.stop)):
        row = first + n
        jacobian, weight = linear.jacobian[row], linear.weight[row]
        left = whole - weight * np.outer(jacobian, jacobian)
        covariance = np.linalg.inv(left)
        mean = linear.theta[place] - (covariance @ (pull - weight * linear.residual[row] * jacobian))[place]
        unit = 1.0 / abs(jacobian[place]) if jacobian[place] != 0 else np.inf
        out[n] = mean / np.sqrt(covariance[place, place] + unit**2)
    return np.clip(out, -Z_CAP, Z_CAP).reshape(shape)


def _mmm_bias_row(linear: Linear, data: Arrays) -> int:
    return int(linear.places["mmm"].start) + data.held.shape[0]


def _channel_bias_row(linear: Linear, data: Arrays) -> int:
    g, j = data.source.shape
    return int(linear.places["credit"].start) + g + j + g * data.family.shape[1]
