"""Credit per channel and model from released journeys, reconciled to one total per period, with the released noise.

| on paper | here | unit |
|---|---|---|
| r[c] | raw credit of a rule, linear in the position cells | conversions or currency |
| M | reconciled conversions with a touch | same |
| u | reconciled conversions without a touch ('unattributed') | same |

A rule's raw credits sum to R, which differs from M by noise and by bounding. credit = r + a (M − R) with
a = (S 1 + k² r R) / (1'S 1 + k² R²), S the noise covariance of r: least squares under noise plus one common factor of
relative sd k. Large totals are scaled in proportion, totals near their noise are shifted. Markov credit is share × M.
Credit is descriptive: it says who was there, not what would have been lost. Decision 0023.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from attribution.markov import markov_shares
from attribution.rules import RULES, rule_matrix
from attribution.tables import Journeys, read_journeys
from attribution.totals import Sums, all_sums, flow_sums, total_weights
from contracts.errors import ContractError
from contracts.evidence import Credit
from contracts.intervals import normal_interval, summarise
from contracts.panel import UNATTRIBUTED
from contracts.release import Release

MODELS = (*RULES, "markov")
BOUNDING_SD = 0.2  # k: how far bounding may have shrunk one table against another, relative
CLEAR_SD = 5.0  # released conversions with a touch must exceed this many sd of their noise
_STEP = 1e-20  # complex step: derivatives exact to rounding

Metric = Literal["conversions", "revenue"]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Independent-by-block Gaussian summaries of one release: all that a credit depends on.

    `value` (Z,) and `covariance` (Z, Z): raw credits or flow cells first, then (touched, untouched) of each table.
    """

    value: np.ndarray
    covariance: np.ndarray
    credit: Callable[[np.ndarray], np.ndarray]  # (..., Z) -> (..., K + 1), last entry unattributed


def _reconcile(sums: tuple[Sums, ...]) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Maps the sums' (..., 2n) values to (M, u)."""
    total, none = total_weights(sums)

    def apply(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        touched, untouched = pairs[..., 0::2], pairs[..., 1::2]
        u = untouched @ none
        return (touched + untouched) @ total - u, u

    return apply


def _sum_cells(journeys: Journeys, sums: tuple[Sums, ...]) -> tuple[np.ndarray, np.ndarray]:
    value = np.array([x for s in sums for x in (s.touched, s.untouched)])
    variance = np.array([x for s in sums for x in (s.touched_variance, s.untouched_variance)])
    return value, variance


def _rule_statistics(journeys: Journeys, rule: str, metric: Metric) -> Statistics:
    table = journeys.position if metric == "conversions" else journeys.position_value
    if table is None:
        raise ContractError("this journeys release has no position_value; revenue credit needs it.")
    k = len(journeys.channels)
    sums = all_sums(journeys, value=metric == "revenue")
    reconcile = _reconcile(sums)
    linear = rule_matrix(rule, table, k)
    last = ((table.channel >= 0) & (table.position == table.length)).astype(float)
    noise = linear * table.cells.variance
    raw, spread = linear @ table.cells.value, noise @ linear.T
    pairs, pair_variance = _sum_cells(journeys, sums)
    z = k + len(pairs)
    covariance = np.zeros((z, z))
    covariance[:k, :k] = spread
    covariance[k:, k:] = np.diag(pair_variance)
    covariance[:k, k] = covariance[k, :k] = noise @ last  # the position table's own sum reads the same cells
    shared = spread.sum(axis=1)

    def credit(v: np.ndarray) -> np.ndarray:
        r, (m, u) = v[..., :k], reconcile(v[..., k:])
        whole = r.sum(axis=-1, keepdims=True)
        scale = shared.sum() + BOUNDING_SD**2 * whole**2
        share = (shared + BOUNDING_SD**2 * r * whole) / np.where(scale != 0, scale, 1.0)
        return np.concatenate([r + share * (m[..., None] - whole), u[..., None]], axis=-1)

    return Statistics(np.r_[raw, pairs], covariance, credit)


def _markov_statistics(journeys: Journeys, metric: Metric) -> Statistics:
    k = len(journeys.channels)
    sums = all_sums(journeys, value=metric == "revenue")
    reconcile = _reconcile(sums)
    flow = journeys.flow
    cells = flow.value.size
    # The flow table's own sums are functions of its cells; the other tables' sums stand beside them.
    others = tuple(s for s in sums if s.table != "flow")
    pairs, pair_variance = _sum_cells(journeys, others)
    order = [s.table for s in sums]

    def credit(v: np.ndarray) -> np.ndarray:
        counts = v[..., :cells].reshape(*v.shape[:-1], k + 1, k + 2)
        rest = v[..., cells:]
        columns, taken = [], 0
        for name in order:
            if name == "flow":
                columns += [counts[..., 1:, k].sum(axis=-1), counts[..., 0, k]]
            else:
                columns += [rest[..., taken], rest[..., taken + 1]]
                taken += 2
        m, u = reconcile(np.stack(columns, axis=-1))
        return np.concatenate([markov_shares(counts, flow.variance) * m[..., None], u[..., None]], axis=-1)

    value = np.r_[flow.value.ravel(), pairs]
    return Statistics(value, np.diag(np.r_[flow.variance.ravel(), pair_variance]), credit)


def statistics_of(journeys: Journeys, model: str, metric: Metric) -> Statistics:
    """Summaries of one release for one model and metric. Raises ContractError for an unknown model."""
    if model not in MODELS:
        raise ContractError(f"unknown credit model {model!r}; the models are {', '.join(MODELS)}.")
    return _markov_statistics(journeys, metric) if model == "markov" else _rule_statistics(journeys, model, metric)


def credit_draws(statistics: Statistics, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Credits (draws, K + 1) with the released noise drawn again around the released values.

    A function that bends has one bias from the released noise and one more from the noise drawn here; the second is
    measured (mean of draws − value) and stands for the first, so all draws are moved by it twice. The sum of credits is
    linear in the cells: each draw sums to its own total, the mean to the released one.
    """
    sd, vectors = np.linalg.eigh(statistics.covariance)
    z = rng.standard_normal((draws, len(sd)))
    z -= z.mean(axis=0)
    credits = statistics.credit(statistics.value + (z * np.sqrt(np.maximum(sd, 0.0))) @ vectors.T)
    return credits + 2 * (statistics.credit(statistics.value) - credits.mean(axis=0))


def credit_moments(statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """Credits (K + 1,) at the released values and their covariance, first order (exact for what is linear)."""
    z = len(statistics.value)
    at = statistics.value[None, :] + 1j * _STEP * np.eye(z)
    jacobian = statistics.credit(at).imag.T / _STEP
    return statistics.credit(statistics.value), jacobian @ statistics.covariance @ jacobian.T


def _intervals(model: str, statistics: Statistics, draws: int, rng: np.random.Generator) -> list[dict[str, float]]:
    if model != "markov":
        mean, covariance = credit_moments(statistics)
        return [
            normal_interval(float(m), float(np.sqrt(max(v, 0.0))))
            for m, v in zip(mean, np.diag(covariance), strict=True)
        ]
    columns = summarise(credit_draws(statistics, draws, rng))
    return [{name: float(column[i]) for name, column in columns.items()} for i in range(len(columns["mean"]))]


def _check_signal(release: Release, journeys: Journeys) -> None:
    if not journeys.channels:
        raise ContractError(f"journeys release {release.release_id!r} tracks no declared channel; check [channels].")
    sums = flow_sums(journeys)
    noise = float(np.sqrt(sums.touched_variance))
    if sums.touched <= CLEAR_SD * noise:
        raise ContractError(
            f"journeys release {release.release_id!r} holds {sums.touched:.0f} conversions after a touch, with noise "
            f"of sd {noise:.0f}: too few to credit. Give journeys more rho, or leave this quarter out."
        )


def _release_credits(
    release: Release, channels: Sequence[str], draws: int, seed: int, models: Sequence[str]
) -> list[Credit]:
    journeys = read_journeys(release, channels)
    _check_signal(release, journeys)
    metrics: tuple[Metric, ...] = ("conversions",) if journeys.position_value is None else ("conversions", "revenue")
    out = []
    for metric in metrics:
        for model in models:
            # One stream per release, metric and model: adding a release changes no other release's credits.
            rng = np.random.default_rng([seed, zlib.crc32(f"{release.release_id}|{metric}|{model}".encode())])
            rows = _intervals(model, statistics_of(journeys, model, metric), draws, rng)
            for channel, row in zip((*journeys.channels, UNATTRIBUTED), rows, strict=True):
                out.append(
                    Credit(
                        model=model,
                        channel=channel,
                        metric=metric,
                        period_start=release.block_start,
                        period_end=release.block_end,
                        evidence_ids=(release.release_id,),
                        **row,
                    )
                )
    return out


def credits(
    releases: Sequence[Release],
    channels: Sequence[str],
    draws: int = 2000,
    seed: int = 0,
    *,
    models: Sequence[str] = MODELS,
) -> tuple[Credit, ...]:
    """Credit per release, metric, model and channel, plus 'unattributed' (no recorded touch).

    A release covers a fiscal quarter or one batch of its weeks. Units: conversions, or currency for 'revenue' (left out
    where position_value was not released). Of each model the means of a period sum to the reconciled total, whatever
    the model. Rules have first-order normal intervals (their only bend is the reconciliation); Markov has draws of the
    released noise. Markov revenue is its conversion shares of the revenue. Channels that a release does not track get
    no row. Raises ContractError when a release is of another measure, covers a period twice, tracks an undeclared
    channel, or holds too few conversions for its noise.
    """
    for before, after in pairwise(sorted(releases, key=lambda r: r.block_start)):
        if after.block_start <= before.block_end:
            raise ContractError(
                f"journeys releases {before.release_id!r} and {after.release_id!r} cover the same days; pass one."
            )
    if draws < 100:
        raise ContractError(f"draws must be at least 100; got {draws}.")
    return tuple(c for r in releases for c in _release_credits(r, channels, draws, seed, models))
