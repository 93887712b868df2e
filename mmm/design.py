"""Panel and specification to the arrays that the model multiplies. Everything is per geo level and per head.

| on paper | here | dims | unit |
|---|---|---|---|
| L_g | level | geo | mean observed KPI per period |
| y*/L | outcome | geo, period | relative to the level; 0 where missing |
| tau²/L² | noise | geo, period | relative to the level |
| x | exposure | geo, period, channel | per head, channel mean of positive values = 1 |
| Phi | common | period, basis | trend and season, shared by all geos |
| B_g | local | period, basis | intercept and slow trend of one geo |
| z | controls | geo, period, control | standardised |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contracts.errors import ContractError
from contracts.panel import Panel
from mmm.lifts import LiftTerm
from mmm.media import Curves, Order, curves_of
from mmm.seasons import seasons
from mmm.spec import ChannelSpec, EffectPrior, ModelSpec
from mmm.transforms import lagged

MIN_PERIODS = 26
COUNT_WINDOW = 9  # periods over which a count's expectation is taken for its variance
MIN_GEOS_FOR_SHOCK = 3  # a common weekly shock and one geo's own residual cannot be told apart with fewer


@dataclass(frozen=True, slots=True)
class LiftRows:
    """The lift tests on the channels' exposure scale, stacked to one array each."""

    channel: np.ndarray  # (P,) int, the channel of each part of a test
    membership: np.ndarray  # (K, P) 1 where the part belongs to the test
    exposure: np.ndarray  # (P, G, T) factual exposure per head
    counterfactual: np.ndarray  # (P, G, T)
    past: np.ndarray  # (2, P, G·T, lags) both of them beside their own past
    weight: np.ndarray  # (P, G, T) coverage inside scope and window, 0 elsewhere
    mean: np.ndarray  # (K,) KPI units
    std_error: np.ndarray  # (K,)
    bias_sd: np.ndarray  # (K,)
    dof: np.ndarray  # (K,), inf for normal
    correlation: np.ndarray  # (K, K) of the tests' errors


@dataclass(frozen=True, slots=True)
class Design:
    """All constants of the model. Channels are the paid ones with any exposure, then the organic ones."""

    channels: tuple[str, ...]
    paid: np.ndarray  # (C,) bool
    level: np.ndarray  # (G,)
    size: np.ndarray  # (G,) people, mean 1
    outcome: np.ndarray  # (G, T)
    observed: np.ndarray  # (G, T) bool
    noise: np.ndarray  # (G, T) known variance of a cell: the release's, and a count's own where the likelihood has one
    scatter: np.ndarray  # (G, T) factor of the residual variance sigma²; 1 but for a negative-binomial likelihood
    exposure: np.ndarray  # (G, T, C)
    past: np.ndarray  # (C, G·T, lags) exposure beside its own past
    exposure_scale: np.ndarray  # (C,) media units per head that make exposure 1
    frequency: np.ndarray  # (G, T, C) per channel with a frequency, mean of positive values = 1; 0 elsewhere
    curves: Curves  # families of carry-over and saturation, and their priors
    common: np.ndarray  # (T, P)
    common_mean: np.ndarray  # (P,)
    common_kind: np.ndarray  # (P,) 0 fixed scale, 1 trend step (scaled by trend_sd)
    common_sd: np.ndarray  # (P,) prior sd, before the trend scale where kind is 1
    local: np.ndarray  # (T, Q)
    local_kind: np.ndarray  # (Q,) as common_kind, with geo_trend_sd
    local_sd: np.ndarray  # (Q,)
    controls: np.ndarray  # (G, T, K)
    control_sd: np.ndarray  # (K,) prior sd of a control's coefficient
    own_controls: bool  # whether a control's coefficient may differ from geo to geo
    shrink_controls: bool  # whether the controls' prior sds share a learned factor
    shock: bool
    lags: int
    effect_location: np.ndarray  # (C,) prior of the log of the quantity that `effect_basis` names, KPI units
    effect_scale: np.ndarray  # (C,)
    effect_basis: np.ndarray  # (C,) 0 total contribution, 1 its derivative by log spend, 2 KPI at a response of 1
    lifts: LiftRows

    @property
    def shape(self) -> tuple[int, int, int]:
        """(G, T, C)."""
        return self.exposure.shape


def build_design(panel: Panel, spec: ModelSpec, terms: Sequence[LiftTerm] = ()) -> Design:
    """Arrays of the model. Raises ContractError when the panel cannot carry it (too short, no media, no KPI level)."""
    g, t = panel.kpi.shape
    if t < MIN_PERIODS:
        raise ContractError(f"the model needs at least {MIN_PERIODS} periods of history; the panel holds {t}.")
    observed = np.isfinite(panel.kpi)
    level = _level(panel, observed)
    size = panel.population / panel.population.mean()
    media = np.concatenate([panel.media, panel.organic], axis=2)
    active = media.sum(axis=(0, 1)) > 0
    if not active[: len(panel.channels)].any():
        raise ContractError("no paid channel of the panel has any exposure or spend.")
    names = np.array([*panel.channels, *panel.organic_names])
    paid = np.arange(len(names)) < len(panel.channels)
    per_head = media[:, :, active] / size[:, None, None]
    scale = np.array([x[x > 0].mean() for x in np.moveaxis(per_head, 2, 0)])
    common, common_kind, common_sd, common_mean = _common_basis(panel, spec)
    local, local_kind, local_sd = _local_basis(panel, spec)
    location, spread, basis = _effect_prior(panel, spec, active)
    controls = _standardise(panel.controls)
    scatter, poisson = _count_variance(panel, spec, level)
    frequency = _frequency(panel, media.shape)[:, :, active]
    lags = max(1, min(t, spec.max_lag_days // panel.period_days))
    return Design(
        channels=tuple(names[active].tolist()),
        paid=paid[active],
        level=level,
        size=size,
        outcome=np.where(observed, panel.kpi / level[:, None], 0.0),
        observed=observed,
        noise=panel.kpi_variance / level[:, None] ** 2 + poisson,
        scatter=scatter,
        exposure=per_head / scale,
        past=past_of(np.moveaxis(per_head / scale, 2, 0), lags),
        exposure_scale=scale,
        frequency=frequency,
        curves=_curves(names[active].tolist(), spec, (frequency > 0).any(axis=(0, 1))),
        common=common,
        common_mean=common_mean,
        common_kind=common_kind,
        common_sd=common_sd,
        local=local,
        local_kind=local_kind,
        local_sd=local_sd,
        controls=controls,
        control_sd=np.full(controls.shape[2], spec.control_sd),
        own_controls=g > 1 and controls.shape[2] > 0,
        shrink_controls=controls.shape[2] >= spec.shrink_controls_from,
        shock=g >= MIN_GEOS_FOR_SHOCK,
        lags=lags,
        effect_location=location,
        effect_scale=spread,
        effect_basis=basis,
        lifts=_lift_rows(panel, spec, terms, active, size, scale, lags),
    )


def past_of(exposure: np.ndarray, lags: int) -> np.ndarray:
    """Exposure (N, G, T) beside its own past with geos and periods joined, (N, G·T, lags)."""
    n, g, t = exposure.shape
    return lagged(exposure, lags).reshape(n, g * t, lags)


def _level(panel: Panel, observed: np.ndarray) -> np.ndarray:
    """Mean KPI of each geo, floored at a tenth of what its population would suggest, so that noise cannot flip it."""
    counts = observed.sum(axis=1)
    own = np.where(counts > 0, np.nansum(panel.kpi, axis=1) / np.maximum(counts, 1), 0.0)
    rate = np.nansum(panel.kpi) / (observed * panel.population[:, None]).sum()
    if rate <= 0:
        raise ContractError("the KPI sums to zero or less; the model needs a positive KPI level.")
    return np.maximum(own, 0.1 * rate * panel.population)


def _count_variance(panel: Panel, spec: ModelSpec, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(factor of sigma², known variance), each (G, T): mu² and mu / L for counts, 1 and 0 otherwise."""
    if spec.likelihood != "negative_binomial":
        return np.ones_like(panel.kpi), np.zeros_like(panel.kpi)
    mu = running_mean(panel.kpi, level) / level[:, None]
    return mu**2, mu / level[:, None]


def running_mean(kpi: np.ndarray, level: np.ndarray, periods: int = COUNT_WINDOW) -> np.ndarray:
    """Mean of the observed KPI over a centred window (G, T), at least a tenth of the level."""
    seen, box = np.isfinite(kpi), np.ones(periods)
    total = np.stack([np.convolve(row, box, "same") for row in np.where(seen, kpi, 0.0)])
    count = np.stack([np.convolve(row, box, "same") for row in seen.astype(float)])
    return np.maximum(np.where(count > 0, total / np.maximum(count, 1.0), level[:, None]), 0.1 * level[:, None])


def _ramp(periods: int, spacing: float) -> np.ndarray:
    """Steps of a piecewise-linear path: column j rises from 0 to 1 between knots j and j + 1, shape (T, knots)."""
    knots = max(1, int(np.ceil((periods - 1) / spacing)))
    step = (periods - 1) / knots if periods > 1 else 1.0
    return np.clip(np.arange(periods)[:, None] / step - np.arange(knots)[None, :], 0.0, 1.0)


def _common_basis(panel: Panel, spec: ModelSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Intercept, trend steps, and what the date explains (`mmm.seasons`), in that order."""
    t = len(panel.weeks)
    trend = _ramp(t, spec.knot_days / panel.period_days)
    dated = seasons(panel.weeks, panel.weeks, panel.period_days, spec)
    basis = np.concatenate([np.ones((t, 1)), trend, dated.columns], axis=1)
    knots, rest = trend.shape[1], dated.columns.shape[1]
    kind = np.array([0] + [1] * knots + [0] * rest)
    sd = np.concatenate([[spec.intercept_sd], np.ones(knots), dated.sd])
    mean = np.zeros(basis.shape[1])
    mean[0] = spec.intercept_mean
    return basis, kind, sd, mean


def _local_basis(panel: Panel, spec: ModelSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One geo's own intercept and slow trend; empty for a national panel, whose common basis already holds both."""
    t = len(panel.weeks)
    if len(panel.geos) == 1:
        return np.zeros((t, 0)), np.zeros(0, int), np.zeros(0)
    trend = _ramp(t, spec.geo_knot_days / panel.period_days)
    trend = trend - trend.mean(axis=0)
    basis = np.concatenate([np.ones((t, 1)), trend], axis=1)
    return basis, np.array([0] + [1] * trend.shape[1]), np.array([spec.geo_intercept_sd] + [1.0] * trend.shape[1])


def kept_controls(controls: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which controls vary (K,), and mean and sd of those; constant ones carry nothing and are dropped."""
    mean, sd = controls.mean(axis=(0, 1)), controls.std(axis=(0, 1))
    keep = sd > 1e-9 * (1 + np.abs(mean))
    return keep, mean[keep], sd[keep]


def _standardise(controls: np.ndarray) -> np.ndarray:
    """Controls with mean 0 and sd 1 over the panel."""
    keep, mean, sd = kept_controls(controls)
    return (controls[:, :, keep] - mean) / sd


def revenue_rate(panel: Panel) -> float | None:
    """Currency per KPI unit over the whole panel, weighted by the KPI; None where it is unknown."""
    if panel.revenue_per_kpi is None:
        return None
    weight = np.where(np.isfinite(panel.kpi), np.maximum(panel.kpi, 0.0), 0.0)
    return float((panel.revenue_per_kpi * weight).sum() / weight.sum())


def _frequency(panel: Panel, shape: tuple[int, ...]) -> np.ndarray:
    """Frequency of every channel (paid, then organic) over its mean where positive; 0 for channels without one."""
    out = np.zeros(shape)
    if panel.frequency is not None:
        seen = panel.frequency
        counts = np.maximum((seen > 0).sum(axis=(0, 1)), 1)
        out[:, :, : seen.shape[2]] = seen / np.maximum(seen.sum(axis=(0, 1)) / counts, 1e-300)
    return out


def _curves(names: Sequence[str], spec: ModelSpec, by_frequency: np.ndarray) -> Curves:
    """Families of the active channels. Raises ContractError for a channel that the panel does not hold."""
    adstock, saturation = [], []
    order: list[Order] = []
    for name, frequent in zip(names, by_frequency, strict=True):
        own = spec.channels.get(name, ChannelSpec())
        first = spec.saturate_first if own.saturate_first is None else own.saturate_first
        adstock.append(own.adstock or spec.adstock)
        saturation.append(own.saturation or (spec.reach_frequency if frequent else spec.saturation))
        order.append("reach_frequency" if frequent else ("saturate_first" if first else "adstock_first"))
    return curves_of(adstock, saturation, order)


def _effect_prior(panel: Panel, spec: ModelSpec, active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Location, scale and basis (see `Design`) of every active channel's effect, paid first."""
    total = np.nanmean(panel.kpi, axis=1).sum() * len(panel.weeks)
    spend = np.concatenate([panel.spend.sum(axis=(0, 1)), np.zeros(len(panel.organic_names))])
    rate = revenue_rate(panel)
    known = rate is not None and rate > 0
    shares = 0.5 * spend / max(spend.sum(), 1e-300) + 0.5 / len(panel.channels)
    rows = []
    for i, channel in enumerate((*panel.channels, *panel.organic_names)):
        prior = spec.channels.get(channel, ChannelSpec()).prior
        if prior is None and i >= len(panel.channels):
            prior = EffectPrior("contribution", float(np.log(spec.organic_share)), spec.share_scale)
        elif prior is None and known and spend[i] > 0:
            prior = EffectPrior("roi", spec.roi.location, spec.roi.scale)
        elif prior is None:
            prior = EffectPrior("contribution", float(np.log(spec.paid_share * shares[i])), spec.share_scale)
        rows.append(_in_kpi_units(channel, prior, float(spend[i]), float(rate) if known and rate else 1.0, total))
    location, scale, basis = (np.array(column) for column in zip(*rows, strict=True))
    return location[active], scale[active], basis[active]


def _in_kpi_units(
    channel: str, prior: EffectPrior, spend: float, rate: float, total: float
) -> tuple[float, float, int]:
    """(location, scale, basis): the log of the prior's quantity times what turns it into KPI units."""
    if prior.kind in ("roi", "mroi") and not spend > 0:
        raise ContractError(
            f"channel {channel!r} has a prior on {prior.kind} and no spend; give it one on contribution."
        )
    if prior.kind in ("roi", "mroi"):
        return prior.location + float(np.log(spend / rate)), prior.scale, int(prior.kind == "mroi")
    if prior.kind == "contribution":
        return prior.location + float(np.log(total)), prior.scale, 0
    return prior.location, prior.scale, 2


def _lift_rows(
    panel: Panel,
    spec: ModelSpec,
    terms: Sequence[LiftTerm],
    active: np.ndarray,
    size: np.ndarray,
    scale: np.ndarray,
    lags: int,
) -> LiftRows:
    g, t = panel.kpi.shape
    where = np.cumsum(active) - 1
    parts = [(k, term, part) for k, term in enumerate(terms) for part in term.parts]
    exposure, counterfactual, weight = (np.zeros((len(parts), g, t)) for _ in range(3))
    membership = np.zeros((len(terms), len(parts)))
    for n, (k, term, part) in enumerate(parts):
        if not active[part.channel]:
            raise ContractError(f"lift {term.name!r} tests {panel.channels[part.channel]!r}, which has no exposure.")
        unit = size[term.geos][:, None] * scale[where[part.channel]]
        exposure[n, term.geos] = part.factual / unit
        counterfactual[n, term.geos] = part.counterfactual / unit
        weight[n][np.ix_(term.geos, term.window)] = term.coverage
        membership[k, n] = 1.0
    mean = np.array([term.mean for term in terms])
    return LiftRows(
        channel=np.array([where[part.channel] for _, _, part in parts], dtype=int),
        membership=membership,
        exposure=exposure,
        counterfactual=counterfactual,
        past=np.stack([past_of(exposure, lags), past_of(counterfactual, lags)]),
        weight=weight,
        mean=mean,
        std_error=np.array([term.std_error for term in terms]),
        bias_sd=spec.lift_bias * np.abs(mean),
        dof=np.array([term.dof for term in terms]),
        correlation=np.array([term.correlation for term in terms]).reshape(len(terms), len(terms)),
    )
