"""One incremental outcome per channel and period from model, lifts and credit, and what each credit is worth.

`reconcile` is pure: the same inputs, priors and seed give the same draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from contracts.errors import GateFailed
from reconcile import conflicts as conflict
from reconcile.figures import factor_rows, reconciled_rows
from reconcile.influence import gradients, linear_at, weights
from reconcile.inputs import Covariate, LiftScope, MmmEvidence, PoolInputs
from reconcile.prepare import Prepared, prepare
from reconcile.priors import PoolPriors
from reconcile.sampler import MAX_RHAT, MIN_ESS, Effort, Sampled, sample
from reconcile.scores import score_rows

__all__ = [
    "MAX_RHAT", "MIN_ESS", "Covariate", "Diagnostics", "LiftScope", "MmmEvidence", "PoolInputs", "PoolPriors",
    "Reconciled", "reconcile",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """Health of the sampler."""

    rhat: float  # largest split R-hat of the published outcomes
    ess: float  # smallest effective sample size of the published outcomes
    divergences: int
    draws: int
    widened: tuple[str, ...]  # channels sampled again with more doubt, because of a red conflict


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The answer. Tables have the columns of their views without the stamp."""

    channels: tuple[str, ...]
    incremental: np.ndarray  # (S, C), KPI units over all periods
    by_period: np.ndarray  # (S, C, T)
    factors: pd.DataFrame  # v_incrementality
    outcomes: pd.DataFrame  # v_reconciled
    conflicts: tuple[conflict.Conflict, ...]
    scores: pd.DataFrame  # v_pool_scores
    diagnostics: Diagnostics
    left_out: tuple[str, ...]  # evidence that could not be read


def reconcile(
    inputs: PoolInputs, priors: PoolPriors = PoolPriors(), *, seed: int, effort: Effort = Effort()
) -> Reconciled:
    """Pools all evidence of `inputs` (DESIGN section 5). Raises ContractError where a secant cannot be known and
    GateFailed where the sampler has not converged after the last round of further draws."""
    data = prepare(inputs, priors)
    drawn = _drawn(data, priors, seed, effort)
    linear = linear_at(drawn.theta.mean(axis=0), data.arrays, priors)
    found = conflict.find(inputs, data, linear, priors, seed)
    wider = conflict.widened(inputs, data.arrays, found)
    again: tuple[str, ...] = ()
    if wider is not None:
        again = tuple(
            c for c, a, b in zip(inputs.channels, wider.mmm_bias_sd, data.arrays.mmm_bias_sd, strict=True) if a > b
        )
        data = data._replace(arrays=wider)
        drawn = _drawn(data, priors, seed, effort)
        linear = linear_at(drawn.theta.mean(axis=0), data.arrays, priors)
    totals, cells, _ = gradients(linear.theta, data.arrays, priors)
    share = weights(linear, np.concatenate([totals[:, None, :], cells], axis=1))  # (C, 1 + T): whole, then periods
    return Reconciled(
        channels=inputs.channels,
        incremental=np.exp(drawn.level),
        by_period=np.exp(drawn.log_outcome),
        factors=factor_rows(inputs, data, drawn, share, found, seed),
        outcomes=reconciled_rows(inputs, drawn, share, found),
        conflicts=found,
        scores=score_rows(inputs, data, linear, priors, seed),
        diagnostics=Diagnostics(drawn.rhat, drawn.ess, drawn.divergences, len(drawn.level), again),
        left_out=data.left_out,
    )


def _drawn(data: Prepared, priors: PoolPriors, seed: int, effort: Effort) -> Sampled:
    drawn = sample(data.arrays, priors, seed, effort)
    if not drawn.healthy:
        raise GateFailed(
            f"the reconciliation did not converge: R-hat {drawn.rhat:.3f} (limit {MAX_RHAT}), effective sample size "
            f"{drawn.ess:.0f} (at least {MIN_ESS:.0f}). Look for sources that contradict each other."
        )
    return drawn
