"""What each source alone says of the incremental outcome: what a budget that followed it alone would be made from.

Planning prices a conflict with these: money lost by following one source instead of the pool (DESIGN section 5).
"""

from __future__ import annotations

import numpy as np

from reconcile.influence import Linear, gradients, without
from reconcile.inputs import PoolInputs
from reconcile.prepare import Prepared
from reconcile.priors import PoolPriors
from reconcile.sampler import meaning

DRAWS = 500


def alone(inputs: PoolInputs, data: Prepared, linear: Linear, priors: PoolPriors, seed: int) -> dict[str, np.ndarray]:
    """Source -> draws (500, C) over all periods, KPI units; NaN where the source is silent about a channel.

    'mmm': the model's draws. 'lift': tests, families and priors without model and credit. 'credit MODEL': the credit at
    face value, as if every credited outcome were incremental.
    """
    rng = np.random.default_rng([seed, 4])
    out: dict[str, np.ndarray] = {}
    if inputs.mmm is not None:
        draws = np.full((DRAWS, len(inputs.channels)), np.nan)
        where = [inputs.channels.index(c) for c in inputs.mmm.channels]
        draws[:, where] = inputs.mmm.totals[np.linspace(0, len(inputs.mmm.totals) - 1, DRAWS).astype(int)]
        out["mmm"] = draws
    if inputs.lifts_pooled and inputs.lifts.estimates:
        out["lift"] = _lifts_alone(inputs, data, linear, priors, rng)
    for j, model in enumerate(data.models):
        face = data.arrays.credit[j].sum(axis=1)
        sd = np.sqrt((data.arrays.credit_sd[j] ** 2).sum(axis=1))
        draws = np.maximum(face + sd * rng.standard_normal((DRAWS, len(face))), 0.0)
        out[f"credit {model}"] = np.where(data.recorded[j].all(axis=1), draws, np.nan)
    return out


def _lifts_alone(
    inputs: PoolInputs, data: Prepared, linear: Linear, priors: PoolPriors, rng: np.random.Generator
) -> np.ndarray:
    """Tested channels only: the tests without the model's totals and without credit."""
    place = linear.places.get("credit", slice(0, 0))
    rows = np.arange(place.start, place.stop)
    c = len(inputs.channels)
    model = linear.places["mmm"].start + c + np.arange(c)  # with its biases free, the model says nothing of totals
    keep = np.setdiff1d(rows, _nuisance(linear, data)).astype(int)
    theta, covariance = without(linear, np.concatenate([keep, model]).astype(int), data.arrays, priors)
    slope, _, _ = gradients(theta, data.arrays, priors)
    centre = meaning(theta[None], data.arrays, priors).level[0]
    joint = slope @ covariance @ slope.T + 1e-9 * np.eye(c)
    draws = np.exp(np.clip(rng.multivariate_normal(centre, joint, DRAWS), -50, 50))
    tested = data.arrays.lift_channel.sum(axis=0) > 0
    return np.where(tested, draws, np.nan)


def _nuisance(linear: Linear, data: Prepared) -> np.ndarray:
    """Rows of the credit's own priors: they keep its parameters in place when no credit is read."""
    place = linear.places.get("credit", slice(0, 0))
    return np.arange(place.start, place.stop - 2 * data.arrays.credit.size)
