"""Reconciliation: one incremental outcome per channel from model, lifts and credit, and what each credit is worth.

`reconcile` is pure: the same inputs, priors and seed give the same draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from contracts.errors import GateFailed
from contracts.intervals import INTERVAL, summarise
from reconcile.influence import Point, credit_conflict, lift_conflict, weights
from reconcile.inputs import MmmEvidence, PoolInputs, PoolPriors, Prepared, prepare
from reconcile.model import MIN_ESS, Sampled, sample

__all__ = ["Diagnostics", "MmmEvidence", "PoolInputs", "PoolPriors", "Reconciled", "reconcile"]

CONFLICT_Z = 2.0
MAX_RHAT = 1.05
NO_MODEL = ""  # name of the credit model in rows of a pool without any credit
FACTOR_COLUMNS = (
    "channel", "model", "period_start", "period_end", *INTERVAL, "incremental_kpi", "incremental_p05",
    "incremental_p95", "credited", "weight_lift", "weight_mmm", "weight_credit", "flag",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """Health of the sampler."""

    rhat: float  # largest split R-hat of the published figures and the credit biases
    ess: float  # smallest effective sample size of the published figures
    divergences: int
    draws: int


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The answer. `factors` has the columns of v_incrementality without its stamp."""

    channels: tuple[str, ...]
    incremental: np.ndarray  # (S, C), KPI units over the period
    factors: pd.DataFrame
    diagnostics: Diagnostics


def reconcile(inputs: PoolInputs, priors: PoolPriors = PoolPriors(), *, seed: int) -> Reconciled:
    """Pools all evidence of `inputs` (DESIGN section 5). Raises ContractError where a secant cannot be known and
    GateFailed where the sampler has not converged after one run with four times the draws."""
    data = prepare(inputs, priors)
    drawn = sample(data, priors, seed)
    if not (drawn.rhat < MAX_RHAT and drawn.ess >= MIN_ESS):
        raise GateFailed(
            f"the reconciliation did not converge: R-hat {drawn.rhat:.3f} (limit {MAX_RHAT}), effective sample size "
            f"{drawn.ess:.0f} (at least {MIN_ESS:.0f}). Look for sources that contradict each other."
        )
    point = _point(data, drawn)
    share = weights(data, priors, point)
    by_channel, by_row = _conflicts(inputs, data, priors, point, seed)
    return Reconciled(
        channels=inputs.channels,
        incremental=np.exp(drawn.log_i),
        factors=_factors(inputs, data, drawn, share, by_channel, by_row),
        diagnostics=Diagnostics(drawn.rhat, drawn.ess, drawn.divergences, drawn.draws),
    )


def _point(data: Prepared, drawn: Sampled) -> Point:
    """Posterior mean, where the sources are linearised."""
    c, f = len(data.family), int(data.family.max()) + 1
    means = {k: v.mean(axis=0) for k, v in drawn.biases.items()}
    return Point(
        theta=np.concatenate(
            [
                drawn.log_i.mean(axis=0),
                drawn.log_q.mean(axis=0),
                means.get("model", np.empty(0)),
                means.get("family", np.zeros(f)),
                means.get("channel", np.zeros(c)),
            ]
        ),
        tau=float(means.get("tau", 1.0)),
        spread=float(means.get("rule_spread", 1.0)),
    )


def _conflicts(
    inputs: PoolInputs, data: Prepared, priors: PoolPriors, point: Point, seed: int
) -> tuple[dict[int, list[str]], dict[int, str]]:
    """Sentences per channel (lifts) and per credit row, for every |z| > 2."""
    by_channel: dict[int, list[str]] = {}
    every = frozenset(range(len(data.lift)))
    for k, estimate in enumerate(inputs.lifts.estimates):
        channel = int(data.lift_channel[k])
        found = by_channel.setdefault(channel, [])
        rest = "model" if data.from_mmm[channel] else "other evidence"
        up = data.lift_sign[k]  # z > 0: the test shows a larger effect than the rest, whichever way spend was moved
        z = up * lift_conflict(data, priors, point, every, k, seed)
        if abs(z) > CONFLICT_Z:
            found.append(f"lift {estimate.experiment} and {rest} disagree: z = {z:.1f}")
        elif int((data.lift_channel == channel).sum()) > 1:
            z = up * lift_conflict(data, priors, point, frozenset({k}), k, seed)
            if abs(z) > CONFLICT_Z:
                found.append(f"lift {estimate.experiment} and the other lifts disagree: z = {z:.1f}")
    by_row: dict[int, str] = {}
    for channel in sorted(set(data.credit_channel.tolist())):
        for row, z in credit_conflict(data, priors, point, channel, seed).items():
            if abs(z) > CONFLICT_Z:
                model = data.models[data.credit_model[row]]
                by_row[row] = f"{model} credit and causal evidence differ more than on other channels: z = {z:.1f}"
    return by_channel, by_row


def _factors(
    inputs: PoolInputs,
    data: Prepared,
    drawn: Sampled,
    share: dict[str, np.ndarray],
    by_channel: dict[int, list[str]],
    by_row: dict[int, str],
) -> pd.DataFrame:
    incremental = np.exp(drawn.log_i)
    where = {(int(c), int(j)): p for p, (c, j) in enumerate(zip(data.credit_channel, data.credit_model, strict=True))}
    rows = []
    for c, channel in enumerate(inputs.channels):
        low, high = np.quantile(incremental[:, c], [0.05, 0.95])
        about = {
            "channel": channel, "period_start": inputs.period_start, "period_end": inputs.period_end,
            "incremental_kpi": incremental[:, c].mean(), "incremental_p05": low, "incremental_p95": high,
            "weight_lift": share["lift"][c], "weight_mmm": share["mmm"][c], "weight_credit": share["credit"][c],
        }  # fmt: skip
        for j, model in enumerate(data.models or (NO_MODEL,)):
            row = where.get((c, j))
            factor, credited, notes = _factor(data, drawn, c, row)
            notes = [*by_channel.get(c, []), *([by_row[row]] if row in by_row else []), *notes]
            rows.append(about | factor | {"model": model, "credited": credited, "flag": "; ".join(notes)})
    return pd.DataFrame(rows, columns=list(FACTOR_COLUMNS))


def _factor(data: Prepared, drawn: Sampled, c: int, row: int | None) -> tuple[dict[str, float], float, list[str]]:
    """Interval of true ÷ credited, the credit, and why the factor is not printed."""
    empty = dict.fromkeys(INTERVAL, np.nan)
    if row is None:
        return empty, np.nan, ["no credit is recorded for this channel, so there is no factor"]
    credit = float(data.credit[row])
    if not data.printed[row]:
        return empty, credit, ["the credit's 90 % interval holds 0 or less, so no factor is printed"]
    return summarise(np.exp(drawn.log_i[:, c] - drawn.log_credit[:, row])), credit, []
