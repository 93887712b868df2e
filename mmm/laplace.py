"""Mode and curvature of the posterior: where the chains start and the mass matrix that they start with.

The unconstrained scale is standard normal under the prior, so that an eigenvalue of the covariance above 1 (or below
zero, at a saddle) only says that the data are silent there, and is brought back to the prior's.
Gelman et al. (2013), "Bayesian Data Analysis", section 13.3.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import numpyro
from scipy.optimize import minimize

from mmm.design import Design
from mmm.model import model
from mmm.spec import ModelSpec

STEP = 1e-4  # of the finite differences of the gradient; the scale of every parameter is about 1
SMALLEST_SD = 1e-3
LARGEST_SD = 1.5


Gradient = Callable[[np.ndarray], tuple[float, np.ndarray]]  # potential energy and its gradient


def template(design: Design, spec: ModelSpec) -> dict[str, np.ndarray]:
    """Zeros of every sampled site's shape; unconstrained and constrained shapes agree for all priors used."""

    def sites(key: Any) -> dict[str, Any]:
        traced = numpyro.handlers.trace(numpyro.handlers.seed(model, key)).get_trace(design, spec)
        return {k: v["value"] for k, v in traced.items() if v["type"] == "sample" and not v["is_observed"]}

    return {k: np.zeros(v.shape) for k, v in jax.eval_shape(sites, jax.random.key(0)).items()}


def laplace(gradient: Gradient, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mode (N,) by L-BFGS and covariance (N, N) by differences of the gradient (2 N gradients, no second compile)."""

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = gradient(x)
        return (value, slope) if np.isfinite(value) and np.isfinite(slope).all() else (1e12, np.zeros_like(x))

    mode = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    size = len(mode)

    def row(i: int) -> np.ndarray:
        step = STEP * (np.arange(size) == i)
        with jax.enable_x64(True):  # the setting is per thread
            return (objective(mode + step)[1] - objective(mode - step)[1]) / (2 * STEP)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        hessian = np.stack(list(pool.map(row, range(size))))
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    variance = np.where(values > LARGEST_SD**-2, 1.0 / np.maximum(values, LARGEST_SD**-2), LARGEST_SD**2)
    variance = np.maximum(variance, SMALLEST_SD**2)
    return mode, (vectors * variance) @ vectors.T
