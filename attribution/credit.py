"""Credit per channel and model from released tables, reconciled to one total per period, with the released noise.

Credit is descriptive: it says who was there, not what would have been lost. Definitions, needs and pathologies of every
model: docs/attribution.md. Equations: `attribution.statistics`, `.markov`, `.shapley`, `.rules`, `.rule_release`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from attribution.rule_release import journeys_total, read_rules, rule_statistics
from attribution.rules import RULES, PositionWeights
from attribution.statistics import Statistics, available, credit_draws, credit_moments, statistics_of
from attribution.tables import Journeys, read_journeys
from attribution.totals import touched_total
from contracts.errors import ContractError
from contracts.evidence import Credit
from contracts.intervals import normal_interval, summarise
from contracts.panel import UNATTRIBUTED
from contracts.release import Release

MODELS = (*RULES, "markov", "shapley")  # from journey counts, by default
EVERY = (*RULES, "markov", "shapley", "shapley_rate")
CLEAR_SD = 5.0  # released conversions with a touch must exceed this many sd of their noise
EFFORT = 5e9  # draws x (states of the Markov chain)³: a chain with many states gets fewer draws
MIN_DRAWS, FEW_DRAWS = 200, 1000  # below FEW_DRAWS quantiles are those of a normal of the same mean and sd

Metric = Literal["conversions", "revenue"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Credit of one model and metric in one period."""

    release: Release
    model: str
    metric: Metric
    channels: tuple[str, ...]  # without 'unattributed'
    mean: np.ndarray  # (K + 1,), 'unattributed' last
    covariance: np.ndarray  # (K + 1, K + 1), from the released noise
    intervals: list[dict[str, float]]  # columns of contracts.intervals, K + 1 of them

    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Shares (K,) of the credit of all channels and their covariance (K, K), first order."""
        k = len(self.channels)
        credit, whole = self.mean[:k], self.mean[:k].sum()
        share = credit / whole
        jacobian = (np.eye(k) - share[:, None]) / whole
        return share, jacobian @ self.covariance[:k, :k] @ jacobian.T


def _worked_out(
    statistics: Statistics, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[dict[str, float]]]:
    """Mean, covariance and interval columns."""
    if statistics.linear:
        mean, covariance = credit_moments(statistics)
        return mean, covariance, _normal(mean, np.diag(covariance))
    drawn = credit_draws(statistics, draws, rng)
    mean, covariance = drawn.mean(axis=0), np.cov(drawn, rowvar=False)
    if len(drawn) < FEW_DRAWS:
        return mean, covariance, _normal(mean, np.diag(covariance))
    columns = summarise(drawn)
    return mean, covariance, [{n: float(c[i]) for n, c in columns.items()} for i in range(len(mean))]


def _normal(mean: np.ndarray, variance: np.ndarray) -> list[dict[str, float]]:
    return [normal_interval(float(m), float(np.sqrt(max(v, 0.0)))) for m, v in zip(mean, variance, strict=True)]


def draws_for(states: int, draws: int) -> int:
    """Draws of the released noise that a chain of so many states gets."""
    return max(MIN_DRAWS, min(draws, int(EFFORT / max(states, 1) ** 3)))


def _check_signal(release: Release, journeys: Journeys) -> None:
    if not journeys.channels:
        raise ContractError(f"journeys release {release.release_id!r} tracks no declared channel; check [channels].")
    mean, variance = touched_total(journeys)
    noise = float(np.sqrt(variance))
    if mean <= CLEAR_SD * noise:
        raise ContractError(
            f"journeys release {release.release_id!r} holds {mean:.0f} conversions after a touch, with noise "
            f"of sd {noise:.0f}: too few to credit. Give journeys more rho, or leave this quarter out."
        )


def _journey_estimates(
    release: Release, channels: Sequence[str], draws: int, seed: int, models: Sequence[str], weights: PositionWeights
) -> list[Estimate]:
    journeys = read_journeys(release, channels)
    _check_signal(release, journeys)
    metrics: tuple[Metric, ...] = ("conversions",) if journeys.position_value is None else ("conversions", "revenue")
    out = []
    for metric in metrics:
        for model in (m for m in models if available(journeys, m)):
            # One stream per release, metric and model: adding a release changes no other release's credits.
            rng = np.random.default_rng([seed, zlib.crc32(f"{release.release_id}|{metric}|{model}".encode())])
            states = journeys.flow.states.count if model == "markov" else 1
            found = _worked_out(statistics_of(journeys, model, metric, weights), draws_for(states, draws), rng)
            out.append(Estimate(release, model, metric, journeys.channels, *found))
    return out


def _rule_estimates(release: Release, journeys: Sequence[Release], channels: Sequence[str]) -> list[Estimate]:
    rules, out = read_rules(release, channels), []
    for table in rules.tables:
        metric: Metric = "revenue" if table.metric == "revenue" else "conversions"
        total = journeys_total(journeys, release, metric, channels)
        mean, covariance = credit_moments(rule_statistics(rules, table.rule, metric, total))
        found = (mean, covariance, _normal(mean, np.diag(covariance)))
        out.append(Estimate(release, table.rule, metric, rules.channels, *found))
    return out


def estimates(
    releases: Sequence[Release],
    channels: Sequence[str],
    draws: int = 2000,
    seed: int = 0,
    *,
    models: Sequence[str] = MODELS,
    weights: PositionWeights = PositionWeights(),
    beside: Sequence[Release] = (),
) -> tuple[Estimate, ...]:
    """Credit per release, metric and model, with its covariance over channels.

    `releases` are of the measures journeys (a fiscal quarter or one batch of its weeks; the `models`) and credit (a
    quarter; every rule that it holds, brought to the total of the journeys among `releases` and `beside`). Units:
    conversions, or currency for 'revenue' (left out where it was not released). Of each model the means of a period sum
    to the reconciled total of the journeys, whatever the model. Rules and Shapley of conversions have first-order
    normal intervals (their only bend is the reconciliation); models of shares have draws of the released noise. Markov
    and Shapley revenue are conversion shares of the revenue. Channels that a release does not track get no row; a model
    that a release cannot serve (Shapley without sets, Shapley by rate above 10 channels) is left out of it. Raises
    ContractError when a release is of another measure, covers a period twice, tracks an undeclared channel, or holds
    too few conversions for its noise.
    """
    for before, after in pairwise(sorted(releases, key=lambda r: (r.measure, r.block_start))):
        if before.measure == after.measure and after.block_start <= before.block_end:
            raise ContractError(
                f"{after.measure} releases {before.release_id!r} and {after.release_id!r} cover the same days; pass "
                "one."
            )
    if draws < 100:
        raise ContractError(f"draws must be at least 100; got {draws}.")
    for model in models:
        if model not in EVERY:
            raise ContractError(f"unknown credit model {model!r}; the models are {', '.join(EVERY)}.")
    journeys = [r for r in (*releases, *beside) if r.measure == "journeys"]
    out: list[Estimate] = []
    for release in releases:
        if release.measure == "credit":
            out += _rule_estimates(release, journeys, channels)
        else:
            out += _journey_estimates(release, channels, draws, seed, models, weights)
    return tuple(out)


def credits(
    releases: Sequence[Release],
    channels: Sequence[str],
    draws: int = 2000,
    seed: int = 0,
    *,
    models: Sequence[str] = MODELS,
    weights: PositionWeights = PositionWeights(),
) -> tuple[Credit, ...]:
    """Rows of `estimates`: credit per release, metric, model and channel, plus 'unattributed' (no recorded touch)."""
    return credit_rows(estimates(releases, channels, draws, seed, models=models, weights=weights))


def credit_rows(found: Sequence[Estimate]) -> tuple[Credit, ...]:
    """One row per channel of each estimate, 'unattributed' last."""
    return tuple(
        Credit(
            model=e.model,
            channel=channel,
            metric=e.metric,
            period_start=e.release.block_start,
            period_end=e.release.block_end,
            evidence_ids=(e.release.release_id,),
            **row,
        )
        for e in found
        for channel, row in zip((*e.channels, UNATTRIBUTED), e.intervals, strict=True)
    )
