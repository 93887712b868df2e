"""The control series: one common factor of the geos that were left alone, estimated without looking at the treated.

| on paper | here | dims | unit |
|---|---|---|---|
| x[j,t] | donors.kpi | donor, period | KPI units |
| m[j] | loadings | donor | KPI units |
| f[t] | factor | period | none, mean 1 before the test |
| v[j] | variances | donor | KPI units², released noise and own movement |

x[j,t] = m[j] f[t] + error of variance v[j]; f is its weighted least-squares estimate, with weights m[j] / v[j] that
come from the period before the test. Because the treated geos take no part, the gap before the test is not over-fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contracts.errors import ContractError

MIN_PRE = 8  # fewest periods before the test, for a donor and for the treated geos
_ROUNDS = 6  # alternating least squares settles to 1e-6 within five rounds on every panel tried


@dataclass(frozen=True, slots=True)
class ControlFactor:
    """The factor and how it is made: `factor[t] = sum_j weights[j,t] kpi[j,t]`."""

    donors: np.ndarray  # (J,) positions of the donor geos in the panel
    weights: np.ndarray  # (J, T) per KPI unit; 0 where a donor is missing
    factor: np.ndarray  # (T,) NaN where no donor is present
    released_variance: np.ndarray  # (T,) variance of the factor from released noise
    own_variance: np.ndarray  # (J,) variance of a donor's own movement, KPI units²


def _loadings(kpi: np.ndarray, factor: np.ndarray, pre: np.ndarray) -> np.ndarray:
    seen = np.isfinite(kpi[:, pre]) & np.isfinite(factor[pre])
    f = np.where(seen, factor[pre], 0.0)
    return (np.nan_to_num(kpi[:, pre]) * f).sum(axis=1) / (f**2).sum(axis=1)


def _weights(kpi: np.ndarray, loadings: np.ndarray, variances: np.ndarray) -> np.ndarray:
    seen = np.isfinite(kpi)
    raw = np.where(seen, (loadings / variances)[:, None], 0.0)
    total = (raw * loadings[:, None]).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, raw / total, np.nan)


def _own_variance(
    kpi: np.ndarray, noise: np.ndarray, loadings: np.ndarray, factor: np.ndarray, weights: np.ndarray, pre: np.ndarray
) -> np.ndarray:
    """Variance of each donor beyond released noise, half its own estimate and half proportional to its size."""
    fit = loadings[:, None] * factor[None, pre]
    residual = kpi[:, pre] - fit
    seen = np.isfinite(residual)
    count = seen.sum(axis=1)
    # A donor pulls the factor towards itself by its own weight, which shrinks its residual.
    pull = 1 - np.clip(np.nanmean(weights[:, pre], axis=1) * loadings, 0.0, 0.8)
    spread = np.where(seen, residual, 0.0) ** 2
    known = np.where(seen, noise[:, pre], 0.0).sum(axis=1) / count
    excess = spread.sum(axis=1) / np.maximum(count - 1, 1) / pull - known
    rate = max(excess.sum() / loadings.sum(), 1e-6 * loadings.mean())
    return 0.5 * np.maximum(excess, 0.0) + 0.5 * rate * loadings


def usable_donors(kpi: np.ndarray, noise: np.ndarray, candidates: np.ndarray, pre: np.ndarray) -> np.ndarray:
    """Candidates (positions) with at least `MIN_PRE` values and a mean that stands clear of its released noise."""
    seen = np.isfinite(kpi[candidates][:, pre])
    count = seen.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(seen, kpi[candidates][:, pre], 0.0).sum(axis=1) / count
        sd = np.sqrt(np.where(seen, noise[candidates][:, pre], 0.0).sum(axis=1)) / count
    return candidates[(count >= MIN_PRE) & (mean > 0) & (mean > 3 * sd)]


def control_factor(kpi: np.ndarray, noise: np.ndarray, donors: np.ndarray, pre: np.ndarray) -> ControlFactor:
    """Common factor of the donors over all periods; loadings and weights from the periods `pre` only.

    `kpi`, `noise` (G, T) in KPI units and KPI units², NaN where missing; `donors` (J,), `pre` (P,) positions.
    Raises ContractError when there is no donor.
    """
    if not len(donors):
        raise ContractError("no control geo is left: a geo test needs at least one geo without a test in its periods.")
    x, tau2 = kpi[donors], noise[donors]
    loadings = np.array([row[np.isfinite(row)].mean() for row in x[:, pre]])
    variances = loadings.copy()  # to begin with: larger geos are noisier in proportion
    own = variances
    for _ in range(_ROUNDS):
        weights = _weights(x, loadings, variances)
        factor = np.nansum(weights * np.nan_to_num(x), axis=0)
        factor[np.isnan(weights).all(axis=0)] = np.nan
        scale = np.nanmean(factor[pre])
        factor, weights = factor / scale, weights / scale
        loadings = np.maximum(_loadings(x, factor, pre), 1e-9)
        own = _own_variance(x, tau2, loadings, factor, weights, pre)
        variances = own + np.nanmean(np.where(np.isfinite(x), tau2, np.nan)[:, pre], axis=1)
    released = (np.nan_to_num(weights) ** 2 * np.where(np.isfinite(x), tau2, 0.0)).sum(axis=0)
    return ControlFactor(donors, np.nan_to_num(weights), factor, released, own)
