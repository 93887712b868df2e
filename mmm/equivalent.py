"""Every family as the Hill curve and the negative-binomial carry-over that planning reads (`contracts.response`).

| family | Hill curve gain · a^n / (a^n + k^n) | error, share of the largest response in range |
|---|---|---|
| hill, michaelis_menten | itself | 0 |
| none, root | half-saturation far above the range | under 0.001 |
| logistic, tanh, exponential, log | least squares over stocks up to the range's end | under 0.06 |
| reach and frequency | as none, in reach, at the frequencies seen | under 0.001 |

Carry-over keeps its mean lag and variance: a negative binomial has both in closed form. Planning of a channel that is
saturated before it carries over uses the same steady curve; only the order within a changing plan differs.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.optimize import least_squares

from mmm.adstock import ADSTOCKS, Adstock, NegativeBinomial
from mmm.design import Design
from mmm.media import Params
from mmm.saturation import SATURATIONS, Hill, MichaelisMenten, NoSaturation, Root

REACH = 2.0  # the range ends at this multiple of the largest stock that the model has seen
FAR = 1e12  # half-saturation of a curve without a ceiling, in ranges
RATIOS = np.geomspace(0.02, 50.0, 25)  # range ÷ half-saturation at which the fits are made


def hill_equivalent(design: Design, params: Params) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(gain, half-saturation, slope), each (D, C), of draws whose parameters have shape (D, C)."""
    half, slope = np.array(params.half_saturation, dtype=float), np.array(params.slope, dtype=float)
    gain = np.ones_like(half)
    top = REACH * design.exposure.max(axis=(0, 1))
    for c, (family, order) in enumerate(zip(design.curves.saturation, design.curves.order, strict=True)):
        k, n = half[:, c].copy(), slope[:, c].copy()
        if order == "reach_frequency":
            reach, seen = design.exposure[:, :, c].ravel(), design.frequency[:, :, c].ravel()
            on = reach > 0
            felt = type(family).share(seen[on], k[:, None], n[:, None])  # (D, cells)
            gain[:, c], half[:, c], slope[:, c] = _straight(top[c], np.ones_like(n))
            gain[:, c] *= felt @ reach[on] / reach[on].sum()
        elif isinstance(family, NoSaturation):
            gain[:, c], half[:, c], slope[:, c] = _straight(top[c], np.ones_like(n))
        elif isinstance(family, Root):
            gain[:, c], half[:, c], slope[:, c] = _straight(top[c], n)
        elif isinstance(family, MichaelisMenten):
            slope[:, c] = 1.0
        elif not isinstance(family, Hill):
            at = np.log(np.clip(top[c] / k, RATIOS[0], RATIOS[-1]))
            table = np.log(np.array([_fitted(family.kind, float(r)) for r in RATIOS]))  # (25, 3)
            fit = np.exp(np.stack([np.interp(at, np.log(RATIOS), column) for column in table.T], axis=1))
            gain[:, c], half[:, c], slope[:, c] = fit[:, 0], fit[:, 1] * k, fit[:, 2]
    return gain, half, slope


def _straight(top: float, n: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a^n as the start of a Hill curve whose half-saturation lies far out."""
    far = np.full_like(n, FAR * top)
    return far**n, far, n


@lru_cache(maxsize=256)
def _fitted(kind: str, ratio: float) -> tuple[float, float, float]:
    """(gain, half, slope) of the Hill curve nearest to a family with half-saturation 1 on (0, ratio]."""
    stock = ratio * np.linspace(0.0, 1.0, 60)[1:]
    target = SATURATIONS[kind].share(stock, 1.0, 1.0)

    def gap(z: np.ndarray) -> np.ndarray:
        gain, half, slope = np.exp(z)
        return (gain * Hill.share(stock, half, slope) - target) / target[-1]

    gain, half, slope = np.exp(least_squares(gap, np.zeros(3), max_nfev=400).x)
    return float(gain), float(half), float(slope)


def carry_over_equivalent(design: Design, params: Params) -> tuple[np.ndarray, np.ndarray]:
    """(retention, delay), each (D, C), of the negative-binomial carry-over with the same mean lag and variance."""
    retention, delay = np.array(params.retention, dtype=float), np.array(params.delay, dtype=float)
    for c, family in enumerate(design.curves.adstock):
        if not isinstance(family, NegativeBinomial):
            retention[:, c], delay[:, c] = _matched(family, retention[:, c], delay[:, c], design.lags)
    return retention, delay


def _matched(family: Adstock, retention: np.ndarray, delay: np.ndarray, lags: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean lag m = (1 + delta) alpha / (1 − alpha), variance m / (1 − alpha); the mean wins where both cannot hold."""
    if family.kind == "geometric":
        return retention, np.zeros_like(delay)
    weights = ADSTOCKS[family.kind].weights(retention, delay, lags)  # (lags, D)
    lag = np.arange(lags)[:, None]
    mean = np.maximum((weights * lag).sum(axis=0), 1e-9)
    variance = (weights * (lag - mean) ** 2).sum(axis=0)
    alpha = np.clip(1.0 - mean / np.maximum(variance, 1e-12), 0.02, mean / (1.0 + mean))
    alpha = np.minimum(alpha, mean / (1.0 + mean))
    return alpha, np.maximum(mean * (1.0 - alpha) / alpha - 1.0, 0.0)
