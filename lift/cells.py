"""Several cells at once: shared controls, staggered starts, and the joint covariance that both need.

Each cell is a test of its own (its treated geos, its window), read by one estimator. Cells share donors, so their
estimates are correlated: estimate k is A_k · KPI, and cov(k, l) = Σ_j Σ_{t,t'} A_k[j,t] Γ_j(t − t') A_l[j,t'] over the
donors j of both, with Γ the donor's own AR(1) movement, plus Σ A_k A_l · released variance, exactly. Decision 0141.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from contracts.errors import ContractError
from lift.protocol import GeoEstimator, GeoResult, GeoTest, t_interval

MAX_CORRELATION = 0.95


@dataclass(frozen=True, slots=True)
class CellResults:
    """Results of K cells and their joint covariance (K, K), KPI units²."""

    names: tuple[str, ...]
    results: tuple[GeoResult, ...]
    covariance: np.ndarray

    def contrast(self, weights: Sequence[float], level: float = 0.95) -> tuple[float, float, float, float, float]:
        """(mean, std_error, lower, upper, p) of a weighted sum of cells: ones for the total, (1, -1) for a difference.

        The reference is t with the least of the cells' degrees of freedom. Raises ContractError where a cell has none.
        """
        w = np.asarray(weights, float)
        if w.shape != (len(self.results),):
            raise ContractError(f"a contrast of {len(self.results)} cells needs as many weights; got {w.shape}.")
        dof = min(r.dof for r in self.results)
        if np.isnan(dof):
            raise ContractError("contrasts need an estimator with a t reference, such as 'gls_control'.")
        mean = float(w @ [r.mean for r in self.results])
        se = float(np.sqrt(w @ self.covariance @ w))
        return (mean, se, *t_interval(mean, se, dof, level))


def cell_covariance(first: GeoResult, second: GeoResult, noise: np.ndarray) -> float:
    """Covariance of two results through the cells both read, KPI units². `noise` (G, T) released variance."""
    released = float((first.cell_weights * second.cell_weights * noise).sum())
    own = np.sqrt(first.own_variance * second.own_variance)
    shared = np.flatnonzero(own > 0)
    periods = np.arange(noise.shape[1])
    phis = [p for p in (first.phi, second.phi) if np.isfinite(p)]
    phi = float(np.mean(phis)) if phis else 0.0
    correlation = np.power(phi, np.abs(periods[:, None] - periods)) if phi > 0 else np.eye(len(periods))
    a, b = first.cell_weights[shared], second.cell_weights[shared]
    moved = float((own[shared] * ((a @ correlation) * b).sum(axis=1)).sum())
    limit = MAX_CORRELATION * first.std_error * second.std_error
    return float(np.clip(released + moved, -limit, limit))


def joint(names: Sequence[str], results: Sequence[GeoResult], noise: np.ndarray) -> CellResults:
    """Results with their joint covariance; correlations shrink by one factor where they would not be a covariance."""
    k = len(results)
    out = np.diag([r.std_error**2 for r in results])
    for i in range(k):
        for j in range(i):
            out[i, j] = out[j, i] = cell_covariance(results[i], results[j], noise)
    sd = np.sqrt(np.diag(out))
    lowest = float(np.linalg.eigvalsh(out / np.outer(sd, sd))[0])
    if lowest < 0:
        keep = 1 - (-lowest / (1 - lowest) + 1e-9)
        out = np.where(np.eye(k, dtype=bool), out, keep * out)
    return CellResults(tuple(names), tuple(results), out)


def fit_cells(estimator: GeoEstimator, base: GeoTest, cells: Mapping[str, np.ndarray]) -> CellResults:
    """Multi-cell test: `cells` names each cell's treated geos (positions). No cell is another's control."""
    touched = np.concatenate(list(cells.values()))
    if len(set(touched.tolist())) != len(touched):
        raise ContractError(f"test {base.name!r}: a geo is in two cells; each geo gets one treatment.")
    donors = np.setdiff1d(base.donors, touched)
    results = [
        estimator(replace(base, name=f"{base.name}/{name}", treated=geos, donors=donors))
        for name, geos in cells.items()
    ]
    return joint(tuple(cells), results, base.noise)


def fit_staggered(estimator: GeoEstimator, base: GeoTest, starts: Mapping[int, int]) -> CellResults:
    """Staggered starts: `starts` gives each treated geo's first treated period; the window ends for all together.

    Geos that start together are one cell. A geo that starts later is nobody's control, so that no treated cell serves
    as history of another (the trap of two-way fixed effects). Raises ContractError for a start outside the window.
    """
    last = int(base.window[-1])
    missing = [g for g in base.treated if int(g) not in starts]
    if missing:
        raise ContractError(f"test {base.name!r}: treated geo {missing[0]} has no start period.")
    cohorts = sorted({int(starts[int(g)]) for g in base.treated})
    if cohorts[0] < 1 or cohorts[-1] > last:
        raise ContractError(f"test {base.name!r}: starts must lie between period 1 and {last}; got {cohorts}.")
    results = [
        estimator(
            replace(
                base, name=f"{base.name}/{start}", pre=np.arange(start), window=np.arange(start, last + 1),
                treated=np.array([g for g in base.treated if starts[int(g)] == start]),
            )
        )
        for start in cohorts
    ]  # fmt: skip
    return joint([str(c) for c in cohorts], results, base.noise)


def multiplicity(results: CellResults) -> np.ndarray:
    """Holm-adjusted two-sided p-values (K,), valid whatever the correlation of the cells."""
    p = np.array([r.p_value for r in results.results])
    order = np.argsort(p)
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    out = np.empty(len(p))
    out[order] = np.minimum(stepped, 1.0)
    return out


def simultaneous(results: CellResults, level: float = 0.95, draws: int = 20_000, seed: int = 0) -> np.ndarray:
    """(K, 2) intervals that hold together with probability `level`, from the joint covariance (max-|t|)."""
    sd = np.sqrt(np.diag(results.covariance))
    dof = min(r.dof for r in results.results)
    if np.isnan(dof):
        raise ContractError("simultaneous intervals need an estimator with a t reference, such as 'gls_control'.")
    rng = np.random.default_rng(seed)
    z = rng.multivariate_normal(np.zeros(len(sd)), results.covariance / np.outer(sd, sd), draws, method="svd")
    if np.isfinite(dof):
        z /= np.sqrt(stats.chi2(dof).rvs(draws, random_state=rng) / dof)[:, None]
    reach = float(np.quantile(np.abs(z).max(axis=1), level))
    mean = np.array([r.mean for r in results.results])
    return np.column_stack([mean - reach * sd, mean + reach * sd])
