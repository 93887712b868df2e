"""Does the fitted model reproduce each lift test, with the test in the likelihood and without it?

| on paper | here | dims | unit |
|---|---|---|---|
| Delta_k | predicted | draw, lift | KPI units, what the model says the test should have measured |
| y_k | mean | lift | KPI units, what it did measure |
| w_d | importance weights 1 / p(y_k given the others, draw d), Pareto-smoothed | draw | |

Leaving a test out is approximated by importance weights: Vehtari, Gelman, Gabry (2017), "Practical Bayesian model
evaluation using leave-one-out cross-validation and WAIC". Above a Pareto k of 0.7 the test moves the posterior too far
for that, and the figure is marked as not reliable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from arviz_stats.base.array import array_stats
from scipy.stats import norm

from contracts.panel import Panel
from mmm.diagnostics import Check
from mmm.effects import lift_draws
from mmm.lifts import LiftTerm
from mmm.posterior import Posterior
from mmm.spec import ModelSpec

RELIABLE_K = 0.7
SURPRISE = 0.01  # two-sided tail probability under which a test is reported as not reproduced


@dataclass(frozen=True, slots=True)
class LiftCheck:
    """One test against the model. Intervals are of the model's prediction, 90 %, KPI units as the test counted them."""

    name: str
    measured: float
    std_error: float
    fitted: tuple[float, float, float]  # p05, mean, p95 with the test in the likelihood
    left_out: tuple[float, float, float]  # p05, mean, p95 without it
    p_fitted: float  # two-sided tail probability of the measurement
    p_left_out: float
    pareto_k: float

    @property
    def reliable(self) -> bool:
        """Whether leaving the test out by importance weights can be trusted."""
        return self.pareto_k <= RELIABLE_K

    def check(self) -> Check:
        """As a row of the run's checks: a warning where the model does not reproduce the test."""
        p = self.p_left_out if self.reliable else self.p_fitted
        how = "without it" if self.reliable else "with it (without it cannot be told from these draws)"
        low, middle, high = self.left_out if self.reliable else self.fitted
        text = (
            f"lift test {self.name} measured {self.measured:.4g} ± {self.std_error:.3g}; the model {how} says "
            f"{middle:.4g} [{low:.4g}, {high:.4g}] (tail probability {p:.2g})"
        )
        return Check("lift_reproduced", self.name, "pass" if p >= SURPRISE else "warn", p, SURPRISE, text)


def check_lifts(
    panel: Panel, spec: ModelSpec, posterior: Posterior, terms: Sequence[LiftTerm]
) -> tuple[LiftCheck, ...]:
    """One check per term, in order; empty without terms. The posterior must have been fitted with these terms."""
    if not terms:
        return ()
    return compare(terms, lift_draws(panel, spec, posterior, terms), posterior.flat("lift_precision"), spec.lift_bias)


def compare(
    terms: Sequence[LiftTerm], predicted: np.ndarray, precision: np.ndarray, lift_bias: float
) -> tuple[LiftCheck, ...]:
    """Checks from predictions (D, K) and mixing precisions (D, K) of the same draws."""
    measured = np.array([t.mean for t in terms])
    centre, variance = _conditionals(terms, predicted, precision, lift_bias)
    log_p = norm.logpdf(measured, centre, np.sqrt(variance))  # (D, K)
    out = []
    for k, term in enumerate(terms):
        log_weights, pareto = array_stats.psislw(log_p[:, k])  # takes log likelihoods, not ratios
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        equal = np.full(len(weights), 1 / len(weights))
        tail = norm.cdf((measured[k] - centre[:, k]) / np.sqrt(variance[:, k]))
        out.append(LiftCheck(
            term.name, term.mean, term.std_error, _summary(predicted[:, k], equal), _summary(predicted[:, k], weights),
            _two_sided(tail @ equal), _two_sided(tail @ weights), float(pareto),
        ))  # fmt: skip
    return tuple(out)


def _conditionals(
    terms: Sequence[LiftTerm], predicted: np.ndarray, precision: np.ndarray, lift_bias: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (D, K) of each measurement given the draw and the other tests' errors."""
    measured = np.array([t.mean for t in terms])
    spread = np.array([t.std_error for t in terms]) / np.sqrt(precision)  # (D, K)
    correlation = np.array([t.correlation for t in terms]).reshape(len(terms), len(terms))
    covariance = correlation * spread[:, :, None] * spread[:, None, :] + np.diag((lift_bias * measured) ** 2)
    inverse = np.linalg.inv(covariance)
    own = np.einsum("dkk->dk", inverse)
    error = measured - predicted
    return measured - np.einsum("dkj,dj->dk", inverse, error) / own, 1.0 / own


def _summary(draws: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    order = np.argsort(draws)
    low, high = np.interp([0.05, 0.95], np.cumsum(weights[order]) - weights[order] / 2, draws[order])
    return float(low), float(draws @ weights), float(high)


def _two_sided(lower: float) -> float:
    return float(min(1.0, 2 * min(lower, 1 - lower)))
