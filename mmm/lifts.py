"""Lift tests as the model sees them: a windowed counterfactual through adstock and saturation (DESIGN section 4).

lift_k ~ StudentT(sum over scope and window of [m(x) − m(x_counterfactual)], sqrt(se_k² + bias_k²))

The counterfactual exposure is the observed one outside the window, so that carry-over from before the test counts on
both sides and the effect inside the window is what the test measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from contracts.errors import ContractError
from contracts.evidence import Experiment, LiftEstimate, LiftLibrary
from contracts.panel import Panel


@dataclass(frozen=True, slots=True)
class LiftPart:
    """One channel of a test. Both exposures equal the panel's where the test changed nothing."""

    channel: int
    factual: np.ndarray  # (n, T), media units of the panel, as the treated side saw it
    counterfactual: np.ndarray  # (n, T), media units of the panel


@dataclass(frozen=True, slots=True)
class LiftTerm:
    """One lift in the likelihood: `coverage` × sum over parts, geos and window of [m(factual) − m(counterfactual)].

    The window is where the outcome was counted; it may go on after the spend returned to normal, so that carry-over
    counts as the test counted it. A test of several channels at once has one part for each of them.
    """

    name: str
    parts: tuple[LiftPart, ...]
    geos: np.ndarray  # (n,) positions of the geos in scope
    window: np.ndarray  # (m,) positions of the periods in which the outcome was counted
    coverage: float  # share of the people in scope who are on the treated side, (0, 1]
    mean: float  # KPI units
    std_error: float  # KPI units
    dof: float
    correlation: np.ndarray  # (K,) with every term, in order; 1 with itself
    evidence_ids: tuple[str, ...]


def lift_terms(
    panel: Panel,
    library: LiftLibrary,
    experiments: Sequence[Experiment],
    counterfactual_spend: Mapping[str, np.ndarray],
) -> tuple[LiftTerm, ...]:
    """Terms for every estimate of the panel's KPI, in the library's order.

    `counterfactual_spend` gives for each geo test the spend that would have been, currency: (len(treated), window), or
    (channels, len(treated), window) for a test of several channels.
    Raises ContractError for an experiment outside the panel or a user test without a spend change.
    """
    by_name = {e.name: e for e in experiments}
    used = [i for i, e in enumerate(library.estimates) if e.metric == panel.kpi_name]
    covariance = library.covariance[np.ix_(used, used)]
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(sd, sd) if used else covariance
    terms = []
    for row, i in zip(correlation, used, strict=True):
        estimate = library.estimates[i]
        experiment = by_name[estimate.experiment]
        build = _geo_term if experiment.kind == "geo" else _user_term
        terms.append(dataclasses.replace(build(panel, experiment, estimate, counterfactual_spend), correlation=row))
    return tuple(terms)


def _channels(panel: Panel, experiment: Experiment) -> list[int]:
    """Positions of the tested channels. Raises ContractError for one that the panel does not hold."""
    for channel in experiment.channels:
        if channel not in panel.channels:
            raise ContractError(
                f"experiment {experiment.name!r} tests channel {channel!r}, which the panel does not hold."
            )
    return [panel.channels.index(channel) for channel in experiment.channels]


def _window(panel: Panel, name: str, start: date, end: date) -> np.ndarray:
    window = panel.window(start, end)
    if len(window) == 0:
        raise ContractError(
            f"experiment {name!r} ({start} to {end}) lies outside the panel ({panel.weeks[0]} to {panel.weeks[-1]})."
        )
    return window


def _geo_term(
    panel: Panel, experiment: Experiment, estimate: LiftEstimate, spend: Mapping[str, np.ndarray]
) -> LiftTerm:
    """Spend changed in the experiment's window; the outcome was counted in the estimate's, which may end later."""
    channels = _channels(panel, experiment)
    changed = _window(panel, experiment.name, experiment.start, experiment.end)
    geos = np.array([panel.geo_index(g) for g in experiment.treated])
    would_be = np.asarray(spend[experiment.name], dtype=float)
    expected = (len(channels), len(geos), len(changed))
    if would_be.shape not in (expected, expected[1:]) or (would_be.ndim == 2 and len(channels) > 1):
        raise ContractError(
            f"experiment {experiment.name!r} needs the counterfactual spend of {len(channels)} channels, shape "
            f"{expected}; got {would_be.shape}."
        )
    parts = []
    for channel, money in zip(channels, would_be.reshape(expected), strict=True):
        factual = panel.media[geos, :, channel]
        series = factual.copy()
        series[:, changed] = _as_media(panel, channel, geos, money)
        parts.append(LiftPart(channel, factual, series))
    counted = _window(panel, experiment.name, estimate.start, estimate.end)
    return _term(estimate, tuple(parts), geos, counted, 1.0)


def _user_term(panel: Panel, experiment: Experiment, estimate: LiftEstimate, _: Mapping[str, np.ndarray]) -> LiftTerm:
    """Without the channel, the treated arm would have seen none of it in the window.

    The spend of the window reaches only people outside the control arm. With pi and kappa the shares of people in the
    treated and the control arm, spend_delta / spend = pi / (1 − kappa) and arm_ratio = pi / kappa give both; a person
    who is not held out saw 1 / (1 − kappa) times the spend per head that the panel shows.
    """
    channels = _channels(panel, experiment)
    if len(channels) > 1:
        raise ContractError(f"user test {experiment.name!r} names several channels; a user test takes away one.")
    channel, window = channels[0], _window(panel, experiment.name, experiment.start, experiment.end)
    total = panel.spend[:, window, channel].sum()
    if not (np.isfinite(estimate.spend_delta) and estimate.spend_delta > 0 and total > 0):
        raise ContractError(
            f"user test {experiment.name!r} needs a positive spend_delta and spend of {experiment.channel!r} in its "
            f"window; got {estimate.spend_delta} of {total}."
        )
    if not estimate.arm_ratio > 0:
        raise ContractError(
            f"user test {experiment.name!r} needs the ratio of its arms' sizes; got {estimate.arm_ratio}."
        )
    reached = min(estimate.spend_delta / total, 1.0)
    treated_share = reached / (1.0 + reached / estimate.arm_ratio)
    control_share = treated_share / estimate.arm_ratio
    geos = np.arange(len(panel.geos))
    factual = panel.media[:, :, channel].copy()
    factual[:, window] /= 1.0 - control_share
    series = panel.media[:, :, channel].copy()
    series[:, window] = 0.0
    counted = _window(panel, experiment.name, estimate.start, estimate.end)
    return _term(estimate, (LiftPart(channel, factual, series),), geos, counted, treated_share)


def _term(
    estimate: LiftEstimate, parts: tuple[LiftPart, ...], geos: np.ndarray, window: np.ndarray, coverage: float
) -> LiftTerm:
    return LiftTerm(
        name=estimate.experiment if not estimate.arm else f"{estimate.experiment}/{estimate.arm}",
        parts=parts,
        geos=geos,
        window=window,
        coverage=coverage,
        mean=estimate.mean,
        std_error=estimate.std_error,
        dof=estimate.dof,
        correlation=np.ones(1),  # set by `lift_terms`, which sees all of them
        evidence_ids=estimate.evidence_ids,
    )


def _as_media(panel: Panel, channel: int, geos: np.ndarray, spend: np.ndarray) -> np.ndarray:
    """Currency to media units by each geo's own mean price (the channel's price where the geo has no spend)."""
    media, cost = panel.media[:, :, channel], panel.spend[:, :, channel]
    if cost.sum() <= 0:
        raise ContractError(f"channel {panel.channels[channel]!r} has no spend, so its test cannot be read.")
    national = media.sum() / cost.sum()
    own = np.where(cost.sum(1) > 0, media.sum(1) / np.maximum(cost.sum(1), 1e-300), national)
    return spend * own[geos][:, None]


def mask_tests(panel: Panel, experiments: Sequence[Experiment]) -> Panel:
    """Panel without the treated geos × windows of geo tests: those rows speak through their lift, not twice."""
    kpi = panel.kpi.copy()
    for experiment in experiments:
        if experiment.kind == "geo":
            geos = [panel.geo_index(g) for g in experiment.treated]
            kpi[np.ix_(geos, panel.window(experiment.start, experiment.end))] = np.nan
    return dataclasses.replace(panel, kpi=kpi)
