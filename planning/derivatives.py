"""First and second derivatives of a plan's worth, averaged over draws with any weights.

    F(s) = sum_d q_d sum_{t,g,c} worth[t] demand[t,g] A[d,g,c] H(S[d,t,g,c])

The stock S is linear in spend, so dF/ds[t] = sum_l gE[l, t + l] · per_spend with gE = sum_d w[d,l] q_d A H'(S), and the
second derivative is block-diagonal: one T × T block per channel and geo. Both are products of matrices over the draws,
a channel at a time, so memory does not grow with their number. Closed forms because they were measured faster than
automatic differentiation and need no compilation; JAX is the oracle in the tests (decision 0161).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planning.surface import TINY, Surface, hill_share, lagged_exposure


@dataclass(frozen=True, slots=True)
class Derivatives:
    """Of F by spend, plan currency."""

    gradient: np.ndarray  # (T, G, C)
    blocks: np.ndarray | None  # (C, G, T, T)


def derivatives(
    surface: Surface, spend: np.ndarray, q: np.ndarray, worth: np.ndarray, *, second: bool = False
) -> Derivatives:
    """Derivatives of F at `spend` (T, G, C) for draw weights q (D,) and worth (T + L − 1,) per KPI unit."""
    past = lagged_exposure(surface, surface.per_spend * spend)
    c, lags, periods, geos = past.shape
    t = surface.periods
    gradient = np.empty((t, geos, c))
    blocks = np.empty((c, geos, t, t)) if second else None
    used = np.flatnonzero(q)
    for i in range(c):
        weights = surface.lag_weights[i][used]
        stock = (weights @ past[i].reshape(lags, -1)).reshape(len(used), periods, geos)
        first, curve = _curve(surface, i, used, stock, q[used], worth, second)
        by_lag = (weights.T @ first.reshape(len(used), -1)).reshape(lags, periods, geos)
        gradient[:, :, i] = sum(by_lag[lag, lag : lag + t] for lag in range(lags)) * surface.per_spend[:, :, i]
        if blocks is not None:
            blocks[i] = _block(weights, curve, t) * np.einsum(
                "tg,sg->gts", surface.per_spend[:, :, i], surface.per_spend[:, :, i]
            )
    return Derivatives(gradient, blocks)


def _curve(
    surface: Surface, i: int, used: np.ndarray, stock: np.ndarray, q: np.ndarray, worth: np.ndarray, second: bool
) -> tuple[np.ndarray, np.ndarray]:
    """q A worth demand H'(S) and the same with H'' (D, T + L − 1, G) of channel i."""
    slope = surface.slope[i][used][:, None, None]
    safe = np.maximum(stock, TINY)
    share = hill_share(safe.copy(), surface.log_half[i][used][:, None, None], slope)
    height = (q[:, None] * surface.amplitude[i][used])[:, None, :] * (worth[:, None] * surface.demand)
    if (stock > surface.seen[i]).any():
        height = np.where(stock > surface.seen[i], height * surface.widen[i][used][:, None, None], height)
    first = height * slope * share * (1.0 - share) / safe
    if not second:
        return first, first
    return first, first * (slope * (1.0 - 2.0 * share) - 1.0) / safe


def _block(weights: np.ndarray, curve: np.ndarray, t: int) -> np.ndarray:
    """(G, T, T): sum over draws and periods of curve[d, p, g] w[d, p − s] w[d, p − u]."""
    draws, periods, geos = curve.shape
    lags = weights.shape[1]
    one, two = np.triu_indices(lags)
    pairs = ((weights[:, one] * weights[:, two]).T @ curve.reshape(draws, -1)).reshape(len(one), periods, geos)
    out = np.zeros((geos, t, t))
    for k, (a, b) in enumerate(
        zip(one.tolist(), two.tolist(), strict=True)
    ):  # period p, spend in s = p − b and u = p − a, b >= a
        s = np.arange(max(0, a - b), t - (b - a))
        if len(s) == 0:
            continue
        value = pairs[k, s + b].T
        out[:, s, s + (b - a)] += value
        if a != b:
            out[:, s + (b - a), s] += value
    return out
