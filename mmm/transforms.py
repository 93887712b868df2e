"""Carry-over and saturation, written once for NumPy and JAX: every function takes its array module `xp`.

| paper | here | dims | unit |
|---|---|---|---|
| x[g,t,c] | exposure | geo, period, channel | exposure per head |
| alpha_c | retention | channel | share carried to the next period, (0, 1) |
| k_c | half_saturation | channel | exposure at which half of the effect is reached |
| n_c | slope | channel | none |

Jin, Wang, Sun, Chan, Koehler (2017), "Bayesian methods for media mix modeling with carryover and shape effects".
"""

from __future__ import annotations

from typing import Any

import numpy as np


def adstock_weights(retention: Any, lags: int, xp: Any = np) -> Any:
    """Normalised geometric weights alpha^l / sum(alpha^l), shape (lags, C) for retention (C,); they sum to 1."""
    weights = retention[None, :] ** xp.arange(lags)[:, None]
    return weights / weights.sum(axis=0, keepdims=True)


def carry_over(retention: Any, periods: int, lags: int, xp: Any = np) -> Any:
    """Carry-over as a matrix per channel, shape (C, T, T): stock = matrix @ exposure.

    Powers of the lag itself, not a gather of `adstock_weights`, because the gradient of a gather is a slow scatter.
    """
    gap = np.arange(periods)[:, None] - np.arange(periods)[None, :]
    inside = (gap >= 0) & (gap < lags)
    power = retention[:, None, None] ** np.where(inside, gap, 0)
    norm = (retention[:, None] ** np.arange(lags)).sum(axis=1)
    return xp.where(inside, power, 0.0) / norm[:, None, None]


def geometric_adstock(exposure: Any, retention: Any, lags: int, xp: Any = np) -> Any:
    """Stock (G, T, C) of exposure (G, T, C): a weighted mean of this period and the `lags − 1` before it."""
    matrix = carry_over(retention, exposure.shape[1], lags, xp)
    return xp.einsum("cts,gsc->gtc", matrix, exposure)


def hill(stock: Any, half_saturation: Any, slope: Any, xp: Any = np) -> Any:
    """Share of the full effect, (stock^n) / (stock^n + k^n); 0 at stock 0. Broadcasts over the last axis.

    A zero stock is masked before the power, so that gradients by slope stay finite.
    """
    positive = stock > 0
    safe = xp.where(positive, stock, 1.0)
    return xp.where(positive, 1.0 / (1.0 + (half_saturation / safe) ** slope), 0.0)
