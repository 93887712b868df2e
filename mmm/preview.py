"""A fast look before the fit: normal approximation at the mode, importance-weighted, with a quality figure.

Never a result. Vehtari, Simpson, Gelman, Yao, Gabry (2024), "Pareto smoothed importance sampling": with k above 0.7 the
weights cannot be trusted; then the plain normal approximation is shown, and said to be no more than that.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import numpy as np
from arviz_stats.base.array import array_stats
from threadpoolctl import threadpool_limits

from contracts.panel import Panel
from mmm.design import build_design
from mmm.fit import target_of
from mmm.laplace import laplace
from mmm.lifts import LiftTerm
from mmm.model import SITE
from mmm.spec import ModelSpec

DRAWS = 1000
RELIABLE = 0.7


@dataclass(frozen=True, slots=True)
class Preview:
    """Approximate draws of the channels' totals; `pareto_k` says how approximate."""

    channels: tuple[str, ...]
    totals: np.ndarray  # (D, C) KPI units, not scaled back
    pareto_k: float
    weighted: bool

    @property
    def quality(self) -> str:
        """One sentence for the reader; always with the word approximate."""
        if self.weighted:
            return f"approximate: normal at the mode, importance-weighted (Pareto k {self.pareto_k:.2f} of {RELIABLE})"
        return (
            f"approximate, and roughly so: normal at the mode, not corrected (Pareto k {self.pareto_k:.2f}, over "
            f"{RELIABLE}, so that weights would mislead)"
        )


def preview(panel: Panel, spec: ModelSpec, terms: Sequence[LiftTerm] = (), *, seed: int, draws: int = DRAWS) -> Preview:
    """Approximate totals of every channel in a fraction of a fit's time. Raises ContractError as `mmm.fit.fit` does."""
    with jax.enable_x64(True), threadpool_limits(1, user_api="blas"):
        target = target_of(build_design(panel, spec, terms), spec)
        mode, covariance = laplace(target.gradient, np.zeros(target.size))
        root, rng = np.linalg.cholesky(covariance), np.random.default_rng(seed)
        w = rng.standard_normal((draws, len(mode)))
        x = mode + w @ root.T

        def energy(row: np.ndarray) -> float:
            with jax.enable_x64(True):  # the setting is per thread
                return target.gradient(row)[0]

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            energies = np.array(list(pool.map(energy, x)))
        log_ratio = np.where(np.isfinite(energies), -energies, -np.inf) + 0.5 * (w**2).sum(axis=1)
        log_weight, k = array_stats.psislw(log_ratio - log_ratio.max())
        theta = target.constrain(x)[f"{SITE}theta"]
    weighted = bool(np.isfinite(k) and float(k) <= RELIABLE)
    if weighted:
        weight = np.exp(log_weight - np.max(log_weight))
        theta = theta[rng.choice(draws, draws, p=weight / weight.sum())]
    return Preview(target.design.channels, theta, float(k), weighted)
