"""Credit per channel and model from released tables, reconciled to one total per period, with the released noise.

Credit is descriptive: it says who was there, not what would have been lost. Definitions, needs and pathologies of every
model: docs/attribution.md. Equations: `attribution.statistics`, `.markov`, `.shapley`, `.rules`, `.rule_release`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
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


def _intervals(statistics: Statistics, draws: int, rng: np.random.Generator) -> list[dict[str, float]]:
    if statistics.linear:
        mean, covariance = credit_moments(statistics)
        return _normal(mean, np.diag(covariance))
    drawn = credit_draws(statistics, draws, rng)
    if len(drawn) < FEW_DRAWS:
        return _normal(drawn.mean(axis=0), drawn.var(axis=0, ddof=1))
    columns = summarise(drawn)
    return [{name: float(column[i]) for name, column in columns.items()} for i in range(len(columns["mean"]))]


def _normal(mean: np.ndarray, variance: np.ndarray) -> list[dict[str, float]]:
    return [
        normal_interval(float(m), float(np.sqrt(max(v, 0.0)))) for m, v in zip(mean, variance, strict=True)
    ]


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


def _rows(
    release: Release, channels: tuple[str, ...], model: str, metric: Metric, intervals: Sequence[dict[str, float]]
) -> list[Credit]:
    return [
        Credit(
            model=model,
            channel=channel,
            metric=metric,
            period_start=release.block_start,
            period_end=release.block_end,
            evidence_ids=(release.release_id,),
            **row,
        )
        for channel, row in zip((*channels, UNATTRIBUTED), intervals, strict=True)
    ]


def _journey_credits(
    release: Release, channels: Sequence[str], draws: int, seed: int, models: Sequence[str], weights: PositionWeights
) -> list[Credit]:
    journeys = read_journeys(release, channels)
    _check_signal(release, journeys)
    metrics: tuple[Metric, ...] = ("conversions",) if journeys.position_value is None else ("conversions", "revenue")
    out = []
    for metric in metrics:
        for model in (m for m in models if available(journeys, m)):
            # One stream per release, metric and model: adding a release changes no other release's credits.
            rng = np.random.default_rng([seed, zlib.crc32(f"{release.release_id}|{metric}|{model}".encode())])
            states = journeys.flow.states.count if model == "markov" else 1
            found = statistics_of(journeys, model, metric, weights)
            out += _rows(release, journeys.channels, model, metric, _intervals(found, draws_for(states, draws), rng))
    return out


def _rule_credits(release: Release, journeys: Sequence[Release], channels: Sequence[str]) -> list[Credit]:
    rules, out = read_rules(release, channels), []
    for table in rules.tables:
        metric: Metric = "revenue" if table.metric == "revenue" else "conversions"
        total = journeys_total(journeys, release, metric, channels)
        mean, covariance = credit_moments(rule_statistics(rules, table.rule, metric, total))
        out += _rows(release, rules.channels, table.rule, metric, _normal(mean, np.diag(covariance)))
    return out


def credits(
    releases: Sequence[Release],
    channels: Sequence[str],
    draws: int = 2000,
    seed: int = 0,
    *,
    models: Sequence[str] = MODELS,
    weights: PositionWeights = PositionWeights(),
) -> tuple[Credit, ...]:
    """Credit per release, metric, model and channel, plus 'unattributed' (no recorded touch).

    `releases` are of the measures journeys (a fiscal quarter or one batch of its weeks; the `models`) and credit (a
    quarter; every rule that it holds). Units: conversions, or currency for 'revenue' (left out where it was not
    released). Of each model the means of a period sum to the reconciled total of the journeys, whatever the model.
    Rules and Shapley of conversions have first-order normal intervals (their only bend is the reconciliation); models
    of shares have draws of the released noise. Markov and Shapley revenue are conversion shares of the revenue.
    Channels that a release does not track get no row; a model that a release cannot serve (Shapley without sets,
    Shapley by rate above 10 channels) is left out of it. Raises ContractError when a release is of another measure,
    covers a period twice, tracks an undeclared channel, or holds too few conversions for its noise.
    """
    for before, after in pairwise(sorted(releases, key=lambda r: (r.measure, r.block_start))):
        if before.measure == after.measure and after.block_start <= before.block_end:
            raise ContractError(
                f"{after.measure} releases {before.release_id!r} and {after.release_id!r} cover the same days; pass one."
            )
    if draws < 100:
        raise ContractError(f"draws must be at least 100; got {draws}.")
    for model in models:
        if model not in EVERY:
            raise ContractError(f"unknown credit model {model!r}; the models are {', '.join(EVERY)}.")
    journeys = [r for r in releases if r.measure == "journeys"]
    out: list[Credit] = []
    for release in releases:
        if release.measure == "credit":
            out += _rule_credits(release, journeys, channels)
        else:
            out += _journey_credits(release, channels, draws, seed, models, weights)
    return tuple(out)
