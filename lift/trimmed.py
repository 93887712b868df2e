"""Trimmed match for pairs (Chen and Au 2022): the return that makes the trimmed mean of the pairs' residuals zero.

| on paper | here | unit |
|---|---|---|
| X[i], S[i] | response, spend: treated minus control of pair i | KPI units, currency |
| theta | iroas | KPI units per currency |
| r[i] = X[i] − theta S[i] | residual | KPI units |

T(theta) = trimmed mean of r / its standard error (winsorised, Tukey and McLaughlin 1963), t with as many
degrees of freedom as pairs are kept, less one. The estimate solves trimmed mean = 0; the interval is where |T| stays
under the t quantile; the
p-value is T(0). One statistic for all three.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from contracts.errors import ContractError
from lift.protocol import GeoResult, GeoTest, check_history, check_window

MIN_PAIRS = 4
MAX_TRIM = 0.25


@dataclass(frozen=True, slots=True)
class TrimmedReturn:
    """`trim` is the share of pairs left out at each end; `kept` (n,) says which stayed at the estimate."""

    iroas: float
    std_error: float
    dof: float
    level: float
    lower: float
    upper: float
    p_value: float
    trim: float
    kept: np.ndarray


def _moments(residual: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Trimmed mean and its standard error along the last axis, `k` values off at each end."""
    n = residual.shape[-1]
    ordered = np.sort(residual, axis=-1)
    inner = ordered[..., k : n - k]
    winsor = np.clip(ordered, inner[..., :1], inner[..., -1:])
    h = n - 2 * k
    se = winsor.std(axis=-1, ddof=1) * np.sqrt((n - 1) / (h * (h - 1)))
    return inner.mean(axis=-1), se


def _breakpoints(x: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Every theta at which two residuals change places, in order."""
    i, j = np.triu_indices(len(x), 1)
    moving = s[i] != s[j]
    return np.unique((x[i] - x[j])[moving] / (s[i] - s[j])[moving])


def _roots(x: np.ndarray, s: np.ndarray, k: int) -> np.ndarray:
    """All theta with a trimmed mean of 0. Between breakpoints the kept pairs are fixed, so it is a line there."""
    edges = _breakpoints(x, s)
    reach = 1 + float(np.ptp(edges)) if len(edges) else 1.0
    edges = np.r_[edges[0] - reach, edges, edges[-1] + reach] if len(edges) else np.array([-1.0, 1.0])
    middle = (edges[:-1] + edges[1:]) / 2
    order = np.argsort(x[None, :] - middle[:, None] * s[None, :], axis=1)[:, k : len(x) - k]
    with np.errstate(divide="ignore", invalid="ignore"):
        theta = x[order].sum(axis=1) / s[order].sum(axis=1)
    low, high = edges[:-1].copy(), edges[1:].copy()
    low[0], high[-1] = -np.inf, np.inf
    slack = 1e-9 * (1 + np.abs(theta))
    return theta[np.isfinite(theta) & (theta >= low - slack) & (theta <= high + slack)]


def _asymmetry(residual: np.ndarray, k: int) -> float:
    """How far the kept residuals lie from being their own mirror image."""
    kept = np.sort(residual)[k : len(residual) - k]
    return float(np.abs(kept + kept[::-1]).mean())


def _estimate(x: np.ndarray, s: np.ndarray, k: int) -> float:
    roots = _roots(x, s, k)
    if not len(roots):
        raise ContractError(
            "no return makes the trimmed residuals balance; check that treated pairs spent differently."
        )
    return float(min(roots, key=lambda r: _asymmetry(x - r * s, k)))


def _std_error(x: np.ndarray, s: np.ndarray, theta: float, k: int) -> float:
    residual = x - theta * s
    order = np.argsort(residual)[k : len(x) - k]
    return float(_moments(residual, k)[1] / max(abs(float(s[order].mean())), 1e-300))


def _bound(x: np.ndarray, s: np.ndarray, k: int, theta: float, step: float, limit: float) -> float:
    """Where |T| passes `limit` for good, going from theta in the direction of `step`."""

    def excess(value: float) -> float:
        mean, se = _moments(x - value * s, k)
        return abs(float(mean)) / max(float(se), 1e-300) - limit

    far = [theta + step * 1.3**i for i in range(60)]
    outside = [excess(v) > 0 for v in far]
    if not outside[-1]:
        raise ContractError(
            "the pairs' spend differences are not clear of zero, so the return has no bounded interval; read the "
            "incremental outcome instead, or run the test with a larger spend change."
        )
    last = max((i for i, out in enumerate(outside) if not out), default=-1)
    return float(optimize.brentq(excess, far[last] if last >= 0 else theta, far[last + 1]))


def trimmed_match(
    response: np.ndarray, spend: np.ndarray, *, trim: float | None = None, level: float = 0.9
) -> TrimmedReturn:
    """Return of a paired test. `response`, `spend` (n,) differences of each pair over the window.

    `trim` None: the smallest share whose standard error is within (1 + 0.25/√n) of the least over all shares up to a
    quarter. Raises ContractError for fewer than 4 pairs, no spend difference, or an unbounded interval.
    """
    n = len(response)
    if n < MIN_PAIRS:
        raise ContractError(f"trimmed match needs at least {MIN_PAIRS} pairs; got {n}. Use more geos.")
    if not spend.any():
        raise ContractError("no pair has a spend difference, so a return cannot be read; check the spend table.")
    if trim is None:
        counts = range(int(MAX_TRIM * n) + 1)
        errors = np.array([_std_error(response, spend, _estimate(response, spend, k), k) for k in counts])
        k = int(np.flatnonzero(errors <= (1 + 0.25 / np.sqrt(n)) * errors.min())[0])
    else:
        k = int(np.floor(trim * n))
    if n - 2 * k < 2:
        raise ContractError(f"trim {trim} leaves {n - 2 * k} of {n} pairs; it must leave two or more.")
    theta = _estimate(response, spend, k)
    dof = float(n - 2 * k - 1)
    se = _std_error(response, spend, theta, k)
    limit = float(stats.t(dof).ppf(0.5 + level / 2))
    mean, spread = _moments(response, k)
    step = 0.02 * max(se, 1e-9 * (1 + abs(theta)))
    lower = _bound(response, spend, k, theta, -step, limit)
    upper = _bound(response, spend, k, theta, step, limit)
    kept = np.zeros(n, bool)
    kept[np.argsort(response - theta * spend)[k : n - k]] = True
    p_value = float(2 * stats.t(dof).sf(abs(float(mean)) / float(spread)))
    return TrimmedReturn(theta, se, dof, level, lower, upper, p_value, k / n, kept)


@dataclass(frozen=True, slots=True)
class TrimmedPairs:
    """Configuration of the outcome's estimator for pairs; `pairs` gives (treated, control) positions of the design.

    Without `pairs`, each treated geo is matched to a donor of its own by the history (least total squared distance).
    """

    pairs: tuple[tuple[int, int], ...] | None = None
    trim: float | None = None
    level: float = 0.95

    @property
    def name(self) -> str:
        """'trimmed_pairs'."""
        return "trimmed_pairs"

    def __call__(self, test: GeoTest, /) -> GeoResult:
        """Effect of one test. Raises ContractError for fewer than 4 pairs, or too short a history."""
        pre = check_history(test, MIN_PAIRS)
        win = check_window(test, np.isfinite(test.treated_sum()[0]))
        pairs = np.array(self.pairs if self.pairs is not None else _match(test, pre, win))
        if len(pairs) < MIN_PAIRS:
            raise ContractError(
                f"test {test.name!r} has {len(pairs)} pairs and trimmed match needs at least {MIN_PAIRS}; use an "
                "estimator that reads donors, such as 'gls_control'."
            )
        treated, control = test.kpi[pairs[:, 0]], test.kpi[pairs[:, 1]]
        gaps = treated - control
        x = (gaps[:, win].mean(axis=1) - gaps[:, pre].mean(axis=1)) * len(test.window)
        found = trimmed_match(x, np.ones(len(x)), trim=self.trim, level=self.level)
        return _paired_result(self, test, pairs, pre, win, gaps, found)


def _match(test: GeoTest, pre: np.ndarray, win: np.ndarray) -> list[tuple[int, int]]:
    whole = np.isfinite(test.kpi[np.ix_(test.donors, np.r_[pre, win])]).all(axis=1)
    donors = test.donors[whole]
    a, b = test.kpi[np.ix_(test.treated, pre)], test.kpi[np.ix_(donors, pre)]
    rows, columns = optimize.linear_sum_assignment(((a[:, None] - b[None]) ** 2).sum(axis=2))
    return [(int(test.treated[i]), int(donors[j])) for i, j in zip(rows, columns, strict=True)]


def _paired_result(
    config: TrimmedPairs, test: GeoTest, pairs: np.ndarray, pre: np.ndarray, win: np.ndarray, gaps: np.ndarray,
    found: TrimmedReturn,
) -> GeoResult:  # fmt: skip
    k = len(pairs)
    share = k / int(found.kept.sum())
    sign = np.zeros(test.kpi.shape[1])
    sign[win], sign[pre] = len(test.window) / len(win), -len(test.window) / len(pre)
    weights = np.zeros(test.kpi.shape)
    for (a, b), kept in zip(pairs, found.kept, strict=True):
        if kept:
            weights[a] += share * sign
            weights[b] -= share * sign
    released = float((weights**2 * np.where(weights != 0, test.noise, 0.0)).sum())
    se = k * found.std_error
    left = gaps[found.kept]
    path = share * (left.sum(axis=0) - left[:, pre].mean(axis=1).sum())
    return GeoResult(
        estimator=config.name, inference="trimmed t", mean=k * found.iroas, path=path[test.window],
        path_sd=np.full(len(test.window), float(path[pre].std(ddof=1))), std_error=se, dof=found.dof,
        level=config.level, lower=k * found.lower, upper=k * found.upper, p_value=found.p_value,
        noise_variance_share=min(released / se**2, 1.0), cell_weights=weights,
        counterfactual=test.treated_sum()[0] - path, donor_weights=np.isin(test.donors, pairs[:, 1]).astype(float),
        own_variance=np.zeros(len(test.kpi)), phi=float("nan"), diagnostics={"trim": found.trim, "pairs": float(k)},
    )  # fmt: skip
