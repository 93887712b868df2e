"""Carry-over and saturation, written once for NumPy and JAX: every function takes its array module `xp`.

| paper | here | dims | unit |
|---|---|---|---|
| x[g,t,c] | exposure | geo, period, channel | exposure per head |
| alpha_c | retention | channel | share carried to the next period, (0, 1) |
| delta_c | delay | channel | none, >= 0; 0 is geometric |
| k_c | half_saturation | channel | exposure at which half of the effect is reached |
| n_c | slope | channel | none |

Jin, Wang, Sun, Chan, Koehler (2017), "Bayesian methods for media mix modeling with carryover and shape effects".
"""

from __future__ import annotations

from typing import Any

import numpy as np


def adstock_weights(retention: Any, delay: Any, lags: int, xp: Any = np) -> Any:
    """Normalised negative-binomial weights, shape (lags, C) for retention and delay (C,); they sum to 1.

    w_l / w_{l−1} = alpha (l + delta) / l. With delay 0 this is the geometric adstock alpha^l; a larger delay moves the
    peak away from the week of the spend (Koyck, 1954; Solow, 1960, "On a family of lag distributions").
    """
    lag = np.arange(1, lags)[:, None]
    steps = retention[None, :] * (1.0 + delay[None, :] / lag)
    weights = xp.cumprod(xp.concatenate([xp.ones((1, steps.shape[1])), steps], axis=0), axis=0)
    return weights / weights.sum(axis=0, keepdims=True)


def lagged(exposure: np.ndarray, lags: int) -> np.ndarray:
    """Exposure (..., T) beside its own past, shape (..., T, lags): lag l holds period t − l, 0 before the start.

    The exposure is data: lagged once, carry-over is a product with `lags` weights instead of a T × T matrix.
    """
    out = np.zeros((*exposure.shape, lags))
    for lag in range(min(lags, exposure.shape[-1])):
        out[..., lag:, lag] = exposure[..., : exposure.shape[-1] - lag]
    return out


def adstock(exposure: np.ndarray, retention: np.ndarray, delay: np.ndarray, lags: int) -> np.ndarray:
    """Stock (G, T, C) of exposure (G, T, C): a weighted mean of this period and the `lags − 1` before it."""
    past = lagged(np.moveaxis(exposure, 2, 0), lags)  # (C, G, T, lags)
    return np.einsum("cgtl,lc->gtc", past, adstock_weights(retention, delay, lags))


def hill(stock: Any, half_saturation: Any, slope: Any, xp: Any = np) -> Any:
    """Share of the full effect, (stock^n) / (stock^n + k^n); 0 at stock 0. Broadcasts over the last axis.

    A zero stock is masked before the power, so that gradients by slope stay finite.
    """
    positive = stock > 0
    distance = slope * (xp.log(xp.where(positive, stock, 1.0)) - xp.log(half_saturation))
    return xp.where(positive, 0.5 + 0.5 * xp.tanh(0.5 * distance), 0.0)  # the logistic curve, without overflow
