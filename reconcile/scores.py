"""A standing score: what the model, every credit model and the pool said of each test that they had not seen.

A prediction is a set of draws of the test's effect; the observation adds the test's own error. The score is the log of
the predictive density at what was observed, in the test's own units (comparable between sources of one test), and
whether the 90 % interval held it. Credit at face value takes the credit of the test's periods for incremental outcome.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from reconcile.influence import Linear, lift_rows, predicted_lift, without
from reconcile.inputs import PoolInputs
from reconcile.prepare import Prepared
from reconcile.priors import PoolPriors

SCORE_COLUMNS = (
    "source", "experiment", "channel", "quarter", "predicted", "p05", "p95", "observed", "std_error", "covered",
    "log_score",
)  # fmt: skip
FACE_DRAWS = 1000


def score_rows(inputs: PoolInputs, data: Prepared, linear: Linear, priors: PoolPriors, seed: int) -> pd.DataFrame:
    """One row per source and test. The model scores only on tests that it has not seen."""
    rows: list[dict[str, Any]] = []
    rng = np.random.default_rng([seed, 3])
    for k in range(len(inputs.lifts.estimates)):
        told = _unseen(inputs, k)
        if told is not None:
            bias = np.exp(priors.mmm_bias_sd * rng.standard_t(priors.dof, len(told)))
            rows.append(_row(inputs, k, "mmm", told * bias, rng))
        if inputs.lifts_pooled:
            mean, covariance = without(linear, lift_rows(linear, np.array([k])), data.arrays, priors)
            rows.append(_row(inputs, k, "pool", predicted_lift(mean, covariance, k, data.arrays, priors, seed)[0], rng))
        for j, model in enumerate(data.models):
            face = _face_value(inputs, data, k, j, rng)
            if face is not None:
                rows.append(_row(inputs, k, model, face, rng))
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def _unseen(inputs: PoolInputs, k: int) -> np.ndarray | None:
    """The model's draws of test k where it has not seen the test; None where it has, or cannot predict it."""
    if inputs.mmm is None:
        return None
    seen = set(inputs.lifts.estimates[k].evidence_ids) & set(inputs.mmm.evidence_ids)
    if inputs.mmm.unseen_draws is not None:
        draws = inputs.mmm.unseen_draws[:, k]
    elif seen:
        return None
    else:
        draws = inputs.mmm.lift_draws[:, k]
    return draws if np.isfinite(draws).all() else None


def _face_value(inputs: PoolInputs, data: Prepared, k: int, j: int, rng: np.random.Generator) -> np.ndarray | None:
    """Effect of test k if credit of model j were incremental and proportional to spend; None where it cannot say."""
    a = data.arrays
    c, e = int(a.lift_channel[k].argmax()), inputs.lifts.estimates[k]
    when = np.flatnonzero(a.lift_when[k])
    if inputs.spend is None or not np.isfinite(e.spend_delta) or not data.recorded[j, c, when].all():
        return None
    if not (inputs.spend[c, when] > 0).all():
        return None
    part = a.lift_when[k, when] * e.spend_delta / inputs.spend[c, when]
    draws = a.credit[j, c, when] + a.credit_sd[j, c, when] * rng.standard_normal((FACE_DRAWS, len(when)))
    return np.asarray(draws @ part)


def _row(inputs: PoolInputs, k: int, source: str, effect: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    e = inputs.lifts.estimates[k]
    z = (e.mean - effect) / e.std_error
    density = logsumexp(-0.5 * z**2) - np.log(len(z)) - np.log(e.std_error) - 0.5 * np.log(2 * np.pi)
    low, high = np.quantile(effect + e.std_error * rng.standard_normal(len(effect)), [0.05, 0.95])
    return {
        "source": source, "experiment": e.experiment, "channel": e.channel,
        "quarter": f"{e.end.year}-Q{(e.end.month + 2) // 3}", "predicted": float(np.median(effect)), "p05": float(low),
        "p95": float(high), "observed": e.mean, "std_error": e.std_error, "covered": bool(low <= e.mean <= high),
        "log_score": float(density),
    }  # fmt: skip
