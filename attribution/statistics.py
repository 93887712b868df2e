"""From released cells to credits as a function: what a credit depends on, with its noise, and how it is reconciled.

| on paper | here | unit |
|---|---|---|
| r[c] | raw credit of a rule, linear in released cells | conversions or currency |
| M | reconciled conversions with a touch | same |
| u | reconciled conversions without a touch ('unattributed') | same |

A rule's raw credits sum to R, which differs from M by noise and by bounding. credit = r + a (M − R) with
a = (S 1 + k² r R) / (1'S 1 + k² R²), S the noise covariance of r: least squares under noise plus one common factor of
relative sd k. Large totals are scaled in proportion, totals near their noise are shifted. Models that give shares
(Markov; Shapley by rate; Shapley of revenue) have credit = share × M. Decision 0023.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from attribution.markov import markov_shares
from attribution.rules import RULES, PositionWeights, rule_matrix
from attribution.shapley import conversion_matrix, rate_shares
from attribution.tables import Journeys
from attribution.totals import Sums, all_sums, cells_of, sum_weights, total_weights
from contracts.errors import ContractError

BOUNDING_SD = 0.2  # k: how far bounding may have shrunk one table against another, relative
_STEP = 1e-20  # complex step: derivatives exact to rounding

Array = np.ndarray
ToShares = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Gaussian summaries of one release: all that a credit depends on.

    `value` (Z,) and `covariance`, (Z, Z) or its diagonal (Z,): raw credits or cells first, then (touched, untouched) of
    each table.
    """

    value: np.ndarray
    covariance: np.ndarray
    credit: Callable[[np.ndarray], np.ndarray]  # (..., Z) -> (..., K + 1), last entry unattributed
    linear: bool  # bends only in the reconciliation: first-order moments are enough


def spread_gap(raw: Array, shared: Array, gap: Array) -> Array:
    """`raw` (..., n) plus a · gap (..., 1), a as in the module's docstring; `shared` (n,) is S 1."""
    whole = raw.sum(axis=-1, keepdims=True)
    scale = shared.sum() + BOUNDING_SD**2 * whole**2
    moved: Array = raw + (shared + BOUNDING_SD**2 * raw * whole) / np.where(scale != 0, scale, 1.0) * gap
    return moved


def _reconcile(sums: tuple[Sums, ...]) -> Callable[[Array], tuple[Array, Array]]:
    """Maps the sums' (..., 2n) values to (M, u)."""
    total, none = total_weights(sums)

    def apply(pairs: Array) -> tuple[Array, Array]:
        touched, untouched = pairs[..., 0::2], pairs[..., 1::2]
        u = untouched @ none
        return (touched + untouched) @ total - u, u

    return apply


def _pairs(sums: tuple[Sums, ...]) -> tuple[Array, Array]:
    value = np.array([x for s in sums for x in (s.touched, s.untouched)])
    return value, np.array([x for s in sums for x in (s.touched_variance, s.untouched_variance)])


def linear_statistics(journeys: Journeys, table: str, matrix: Array, *, revenue: bool) -> Statistics:
    """Credits linear in the cells of one table: `matrix` (K, R)."""
    k = len(journeys.channels)
    cells, sums = cells_of(journeys, table), all_sums(journeys, value=revenue)
    reconcile = _reconcile(sums)
    noise = matrix * cells.variance
    pairs, pair_variance = _pairs(sums)
    z = k + len(pairs)
    covariance = np.zeros((z, z))
    covariance[:k, :k] = noise @ matrix.T
    covariance[k:, k:] = np.diag(pair_variance)
    own = [s.table for s in sums].index(table)  # that table's sums read the same cells
    at = slice(k + 2 * own, k + 2 * own + 2)
    covariance[:k, at] = noise @ sum_weights(journeys, table)
    covariance[at, :k] = covariance[:k, at].T
    shared = covariance[:k, :k].sum(axis=1)

    def credit(v: Array) -> Array:
        r, (m, u) = v[..., :k], reconcile(v[..., k:])
        gap = m[..., None] - r.sum(axis=-1, keepdims=True)
        return np.concatenate([spread_gap(r, shared, gap), u[..., None]], axis=-1)

    return Statistics(np.r_[matrix @ cells.value, pairs], covariance, credit, True)


def share_statistics(journeys: Journeys, table: str, shares: ToShares, *, revenue: bool) -> Statistics:
    """Credits as shares (..., K), a function of the flat cells (..., R) of one table, of what had a touch."""
    cells, sums = cells_of(journeys, table), all_sums(journeys, value=revenue)
    reconcile, weights = _reconcile(sums), sum_weights(journeys, table)
    size = len(cells.value)
    others = tuple(s for s in sums if s.table != table)  # the table's own sums are functions of its cells
    pairs, pair_variance = _pairs(others)

    def credit(v: Array) -> Array:
        own, rest = v[..., :size], v[..., size:]
        columns, taken = [], 0
        for s in sums:
            if s.table == table:
                columns.append(own @ weights)
            else:
                columns.append(rest[..., taken : taken + 2])
                taken += 2
        m, u = reconcile(np.concatenate(columns, axis=-1))
        return np.concatenate([shares(own) * m[..., None], u[..., None]], axis=-1)

    return Statistics(np.r_[cells.value, pairs], np.r_[cells.variance, pair_variance], credit, False)


def _markov(journeys: Journeys) -> ToShares:
    flow = journeys.flow
    shape = flow.cells.value.shape

    def shares(cells: Array) -> Array:
        return markov_shares(cells.reshape(*cells.shape[:-1], *shape), flow.cells.variance, flow.states)

    return shares


def _conversion_shares(matrix: Array) -> ToShares:
    def shares(cells: Array) -> Array:
        raw = cells @ matrix.T
        out: Array = raw / raw.sum(axis=-1, keepdims=True)
        return out

    return shares


def available(journeys: Journeys, model: str) -> bool:
    """Whether this release holds what a model needs."""
    if model.startswith("shapley") and journeys.sets is None:
        return False
    return model != "shapley_rate" or (journeys.sets is not None and journeys.sets.full)


def statistics_of(
    journeys: Journeys, model: str, metric: str, weights: PositionWeights = PositionWeights()
) -> Statistics:
    """Summaries of one release for one model and metric ('conversions', 'revenue').

    Raises ContractError for an unknown model or a table that was not released.
    """
    revenue, k = metric == "revenue", len(journeys.channels)
    if revenue:
        cells_of(journeys, "position_value")
    if model in RULES:
        table = "position_value" if revenue else "position"
        found = journeys.position_value if revenue else journeys.position
        assert found is not None
        return linear_statistics(journeys, table, rule_matrix(model, found, k, weights), revenue=revenue)
    if model == "markov":
        return share_statistics(journeys, "flow", _markov(journeys), revenue=revenue)
    if model not in ("shapley", "shapley_rate"):
        known = (*RULES, "markov", "shapley", "shapley_rate")
        raise ContractError(f"unknown credit model {model!r}; the models are {', '.join(known)}.")
    cells_of(journeys, "sets")
    sets = journeys.sets
    assert sets is not None
    if model == "shapley_rate":
        return share_statistics(journeys, "sets", lambda cells: rate_shares(sets, k, cells), revenue=revenue)
    matrix = conversion_matrix(sets)
    if revenue:
        return share_statistics(journeys, "sets", _conversion_shares(matrix), revenue=True)
    return linear_statistics(journeys, "sets", matrix, revenue=False)


def credit_draws(statistics: Statistics, draws: int, rng: np.random.Generator, batch: int = 100) -> np.ndarray:
    """Credits (draws, K + 1) with the released noise drawn again around the released values.

    A function that bends has one bias from the released noise and one more from the noise drawn here; the second is
    measured (mean of draws − value) and stands for the first, so all draws are moved by it twice. Draws come in pairs
    ±z, so what is linear in the cells has the released value as its exact mean. The sum of credits is: each draw sums
    to its own total, the mean to the released one.
    """
    half = (draws + 1) // 2
    blocks = []
    if statistics.covariance.ndim == 2:
        sd2, vectors = np.linalg.eigh(statistics.covariance)
        root = (vectors * np.sqrt(np.maximum(sd2, 0.0))).T
    else:
        sd = np.sqrt(statistics.covariance)
    for begin in range(0, half, batch):
        z = rng.standard_normal((min(batch, half - begin), len(statistics.value)))
        noise = z @ root if statistics.covariance.ndim == 2 else z * sd
        blocks += [statistics.credit(statistics.value + noise), statistics.credit(statistics.value - noise)]
    credits = np.concatenate(blocks)
    return credits + 2 * (statistics.credit(statistics.value) - credits.mean(axis=0))


def credit_moments(statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """Credits (K + 1,) at the released values and their covariance, first order (exact for what is linear)."""
    z = len(statistics.value)
    at = statistics.value[None, :] + 1j * _STEP * np.eye(z)
    jacobian = statistics.credit(at).imag.T / _STEP
    spread = statistics.covariance
    half = jacobian * spread if spread.ndim == 1 else jacobian @ spread
    return statistics.credit(statistics.value), half @ jacobian.T
