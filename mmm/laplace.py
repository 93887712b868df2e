"""Mode and curvature of the posterior: where the chains start and the mass matrix that they start with.

The unconstrained scale is standard normal under the prior, so that an eigenvalue of the covariance above 1 (or below
zero, at a saddle) only says that the data are silent there, and is brought back to the prior's.
Gelman et al. (2013), "Bayesian Data Analysis", section 13.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import numpyro
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import potential_energy
from scipy.optimize import minimize

from mmm.design import Design
from mmm.model import model
from mmm.spec import ModelSpec

STEP = 1e-4  # of the finite differences of the gradient; the scale of every parameter is about 1
SMALLEST_SD = 1e-3
LARGEST_SD = 1.5


@dataclass(frozen=True, slots=True)
class Laplace:
    """Normal approximation on the unconstrained scale; `unravel` turns a vector into the sites' dictionary."""

    mode: np.ndarray  # (N,)
    covariance: np.ndarray  # (N, N)
    unravel: Callable[[Any], dict[str, Any]]


def template(design: Design, spec: ModelSpec) -> dict[str, np.ndarray]:
    """Zeros of every sampled site's shape; unconstrained and constrained shapes agree for all priors used."""

    def sites(key: Any) -> dict[str, Any]:
        traced = numpyro.handlers.trace(numpyro.handlers.seed(model, key)).get_trace(design, spec)
        return {k: v["value"] for k, v in traced.items() if v["type"] == "sample" and not v["is_observed"]}

    return {k: np.zeros(v.shape) for k, v in jax.eval_shape(sites, jax.random.key(0)).items()}


def laplace(design: Design, spec: ModelSpec) -> Laplace:
    """Finds the mode by L-BFGS and the curvature by differences of the gradient (2 N gradients, no second compile)."""
    start, unravel = ravel_pytree(template(design, spec))
    value_and_grad = jax.jit(jax.value_and_grad(lambda x: potential_energy(model, (design, spec), {}, unravel(x))))

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = value_and_grad(x)
        if not np.isfinite(value):
            return 1e12, np.zeros_like(x)
        return float(value), np.asarray(gradient)

    found = minimize(objective, np.asarray(start), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    mode = found.x
    size = len(mode)
    hessian = np.empty((size, size))
    for i in range(size):
        step = STEP * np.eye(size)[i]
        hessian[i] = (objective(mode + step)[1] - objective(mode - step)[1]) / (2 * STEP)
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    variance = np.where(values > LARGEST_SD**-2, 1.0 / np.maximum(values, LARGEST_SD**-2), LARGEST_SD**2)
    variance = np.maximum(variance, SMALLEST_SD**2)
    return Laplace(mode, (vectors * variance) @ vectors.T, unravel)
