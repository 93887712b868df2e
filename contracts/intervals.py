"""How uncertainty is written down everywhere: a mean, a standard deviation and five quantiles.

`p05` to `p95` is the 90 % interval that the product quotes.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

QUANTILES: dict[str, float] = {"p05": 0.05, "p10": 0.10, "p50": 0.50, "p90": 0.90, "p95": 0.95}
INTERVAL: tuple[str, ...] = ("mean", "sd", *QUANTILES)


def summarise(draws: np.ndarray, axis: int = 0) -> dict[str, Any]:
    """Interval columns of draws along `axis`: a dict of arrays (or floats for one-dimensional draws)."""
    q = np.quantile(draws, list(QUANTILES.values()), axis=axis)
    out: dict[str, Any] = {"mean": draws.mean(axis=axis), "sd": draws.std(axis=axis, ddof=1)}
    out.update(dict(zip(QUANTILES, q, strict=True)))
    return {k: float(v) for k, v in out.items()} if draws.ndim == 1 else out


def normal_interval(mean: float, sd: float) -> dict[str, float]:
    """Interval columns of Normal(mean, sd). `sd` may be 0 for an exact figure."""
    unit = NormalDist()
    return {"mean": mean, "sd": sd} | {k: mean + sd * unit.inv_cdf(q) for k, q in QUANTILES.items()}
