"""What the pool reads, checked, and the same as plain arrays.

| on paper | here | dims | unit |
|---|---|---|---|
| I[c] | incremental outcome of a channel over the period | channel | KPI units |
| q[k] = predicted lift k / I[c(k)] | secant ratio over the tested spend change | lift | none, > 0 |
| m, R | margins and correlation of (log I, log q) in the uncalibrated model | channel + lift | log |
| y[k], se[k] | lift estimate and its standard error | lift | KPI units, signed |
| A[j,c], s[j,c] | credit and the sd of its released noise | model × channel | KPI units |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date, timedelta
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from contracts.checks import non_negative, positive
from contracts.errors import ContractError
from contracts.evidence import Credit, LiftEstimate, LiftLibrary, refuse_double_use
from contracts.panel import UNATTRIBUTED

MIN_DRAWS = 100  # fewer draws cannot carry 5 % and 95 % quantiles
EDGE_DAYS = 7  # credit periods may miss the panel's ends by less than a week: a quarter ends inside a week
Z90 = 1.6448536269514722
UNHEARD = 1e3  # sd of a credit that is no evidence, as a multiple of the whole KPI
CENTRED_ABOVE = 5.0  # credit / sd above which the latent credit itself is the better coordinate for the sampler
NOISE_FLOOR = 1e-3  # smallest relative sd of a credit: an exact figure would be a wall, not a likelihood


@dataclass(frozen=True, slots=True)
class MmmEvidence:
    """Joint posterior draws of the model fitted without any lift test in its likelihood."""

    channels: tuple[str, ...]
    totals: np.ndarray  # (S, C), KPI units over the whole panel, > 0
    lift_draws: np.ndarray  # (S, K), that model's prediction of each lift, signed, KPI units; NaN where it has none
    evidence_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        s, c = self.totals.shape
        if c != len(self.channels) or self.lift_draws.shape[0] != s:
            raise ContractError(
                f"MMM evidence needs totals (draws, {len(self.channels)} channels) and as many rows of lift_draws; "
                f"got {self.totals.shape} and {self.lift_draws.shape}."
            )
        if s < MIN_DRAWS:
            raise ContractError(f"MMM evidence needs at least {MIN_DRAWS} draws; got {s}.")
        for name, column in zip(self.channels, self.totals.T, strict=True):
            if not (np.isfinite(column).all() and (column > 0).all()):
                raise ContractError(
                    f"MMM totals of channel {name!r} must be finite and > 0 in every draw; smallest {column.min()}. "
                    "Leave a channel without spend out of the pool."
                )


@dataclass(frozen=True, slots=True)
class PoolInputs:
    """All evidence about one period. `spend_total` is only read for a lift that no model predicts."""

    mmm: MmmEvidence | None
    lifts: LiftLibrary  # KPI metric only
    credits: tuple[Credit, ...]  # one metric; several quarters are summed
    kpi_total: float  # KPI units over the period
    kpi_total_sd: float
    channels: tuple[str, ...]
    families: Mapping[str, str]
    period_start: date
    period_end: date  # inclusive
    spend_total: Mapping[str, float] | None = None  # currency over the period

    def __post_init__(self) -> None:
        positive(kpi_total=self.kpi_total)
        non_negative(kpi_total_sd=self.kpi_total_sd)
        if not self.channels or len(set(self.channels)) != len(self.channels):
            raise ContractError(f"channels must be unique and not empty; got {self.channels}.")
        if self.period_end < self.period_start:
            raise ContractError(f"the period ends ({self.period_end}) before it starts ({self.period_start}).")
        known = set(self.channels)
        _known_channels(known, "the model", self.mmm.channels if self.mmm else ())
        _known_channels(known, "a lift", (e.channel for e in self.lifts.estimates))
        _known_channels(known | {UNATTRIBUTED}, "a credit", (c.channel for c in self.credits))
        if missing := sorted(known - set(self.families)):
            raise ContractError(f"channel {missing[0]!r} has no family; give every channel one in plumb.toml.")
        if len({c.metric for c in self.credits}) > 1:
            raise ContractError("credits must be of one metric, the KPI's; got conversions and revenue together.")
        if len({e.metric for e in self.lifts.estimates}) > 1:
            raise ContractError("lifts must be of one metric, the KPI's; filter them before pooling.")
        if self.mmm is None and not self.lifts.estimates and not self.credits:
            raise ContractError("nothing to reconcile: no model, no lift and no credit was given.")
        self._check_double_use()

    def _check_double_use(self) -> None:
        lift_ids = [i for e in self.lifts.estimates for i in e.evidence_ids]
        refuse_double_use((("the MMM", self.mmm.evidence_ids if self.mmm else ()), ("the lift tests", lift_ids)))
        names = [(e.experiment, e.arm, e.metric) for e in self.lifts.estimates]
        if len(set(names)) != len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise ContractError(
                f"experiment {twice[0]!r} is in the lift library twice (two estimators of one test); pool one of them."
            )


def _known_channels(known: set[str], source: str, named: Iterable[str]) -> None:
    for name in named:
        if name not in known:
            raise ContractError(f"{source} names channel {name!r}, which is not pooled ({', '.join(sorted(known))}).")


@dataclass(frozen=True, slots=True)
class PoolPriors:
    """Priors of the pool, all on the log scale unless said otherwise. Sources: DESIGN section 5 and decision 0030."""

    mmm_bias_sd: float = 0.15  # scale of the Student-t bias of the uncalibrated model, per channel
    lift_bias_sd: float = 0.1  # share of the effect by which a test may miss the period's effect (sd)
    model_bias_sd: float = 2.0  # level of one credit model over all channels: credit alone tells no level
    family_bias_sd: float = 0.5  # shift of a channel family, shared by the credit models
    channel_bias_scale: float = 0.5  # HalfNormal scale of the spread of Student-t channel biases
    channel_spread_min: float = 0.05  # credit is never a fixed multiple of cause to better than this
    rule_spread_scale: float = 0.25  # HalfNormal scale of what is left between rules on one channel
    rule_spread_min: float = 0.02  # two credit rules never agree more closely than this
    dof: float = 4.0  # of every Student-t; a lift takes its own where that is smaller
    share_median: float = 0.05  # of the KPI, for a channel that the model does not hold
    share_log_sd: float = 1.5
    secant_log_sd: float = 0.3  # doubt about 'response is proportional to spend' where no model gives the secant
    closure_softness: float = 0.002  # share of the KPI over which the closure bound is smooth

    def __post_init__(self) -> None:
        positive(**{f.name: getattr(self, f.name) for f in fields(self)})
        if self.dof <= 2:
            raise ContractError(f"dof must be > 2 so that biases have a variance; got {self.dof}.")


class Margin(NamedTuple):
    """Tukey's g-distribution of a log quantity: centre + scale · (exp(g z) − 1) / g, z standard normal."""

    centre: np.ndarray  # (N,)
    scale: np.ndarray  # (N,), > 0
    skew: np.ndarray  # (N,), g


class Prepared(NamedTuple):
    """Arrays of the model; N = C + K latent logs, P credit rows."""

    margin: Margin  # of (log I, log q)
    corr: np.ndarray  # (N, N)
    mean: np.ndarray  # (N,) of (log I, log q)
    cov: np.ndarray  # (N, N)
    from_mmm: np.ndarray  # (C,) bool
    lift_channel: np.ndarray  # (K,) int
    lift_sign: np.ndarray  # (K,) ±1
    lift: np.ndarray  # (K,)
    lift_cov: np.ndarray  # (K, K)
    lift_dof: np.ndarray  # (K,)
    models: tuple[str, ...]
    credit_model: np.ndarray  # (P,) int
    credit_channel: np.ndarray  # (P,) int
    credit: np.ndarray  # (P,)
    credit_sd: np.ndarray  # (P,)
    family: np.ndarray  # (C,) int
    kpi: float
    closure_sd: float

    @property
    def centred(self) -> np.ndarray:
        """Rows (P,) whose latent credit is well known by itself."""
        return self.credit > CENTRED_ABOVE * self.credit_sd

    @property
    def printed(self) -> np.ndarray:
        """Rows (P,) whose credit's 90 % interval lies above 0: only these get a factor."""
        return self.credit > Z90 * self.credit_sd


def prepare(inputs: PoolInputs, priors: PoolPriors) -> Prepared:
    """Plain arrays of the pooled model. Raises ContractError where a lift's secant cannot be known."""
    c, k = len(inputs.channels), len(inputs.lifts.estimates)
    at = {name: i for i, name in enumerate(inputs.channels)}
    centre = np.full(c + k, np.log(priors.share_median * inputs.kpi_total))
    scale, skew, corr = np.full(c + k, priors.share_log_sd), np.zeros(c + k), np.eye(c + k)
    mean, cov = centre.copy(), np.diag(scale**2)
    sign, from_mmm = np.ones(k), np.zeros(c, dtype=bool)
    held: list[int] = []
    logs = np.empty((0, 0))
    if inputs.mmm is not None:
        held, logs, sign = _model_logs(inputs, at)
        from_mmm[[i for i in held if i < c]] = True
        for i, column in zip(held, logs.T, strict=True):
            centre[i], scale[i], skew[i] = _margin(column)
        block = np.ix_(held, held)
        mean[held], cov[block], corr[block] = logs.mean(axis=0), _ridge(np.cov(logs.T)), _rank_correlation(logs)
    for n in set(range(k)) - {i - c for i in held}:
        centre[c + n] = mean[c + n] = _spend_share(inputs, inputs.lifts.estimates[n])
        scale[c + n], cov[c + n, c + n] = priors.secant_log_sd, priors.secant_log_sd**2
        sign[n] = np.sign(inputs.lifts.estimates[n].spend_delta)
    models, rows = _sum_credits(inputs, at)
    families = sorted({inputs.families[name] for name in inputs.channels})
    return Prepared(
        margin=Margin(centre, scale, skew),
        corr=corr,
        mean=mean,
        cov=cov,
        from_mmm=from_mmm,
        lift_channel=np.array([at[e.channel] for e in inputs.lifts.estimates], dtype=int),
        lift_sign=sign,
        lift=np.array([e.mean for e in inputs.lifts.estimates], dtype=float),
        lift_cov=np.asarray(inputs.lifts.covariance, dtype=float),
        lift_dof=np.array([min(e.dof, priors.dof) for e in inputs.lifts.estimates], dtype=float),
        models=models,
        credit_model=rows[0].astype(int),
        credit_channel=rows[1].astype(int),
        credit=rows[2],
        credit_sd=_heard(rows[1].astype(int), rows[2], rows[3], inputs.kpi_total),
        family=np.array([families.index(inputs.families[name]) for name in inputs.channels], dtype=int),
        kpi=inputs.kpi_total,
        closure_sd=float(np.hypot(inputs.kpi_total_sd, priors.closure_softness * inputs.kpi_total)),
    )


def _heard(channel: np.ndarray, credit: np.ndarray, sd: np.ndarray, kpi_total: float) -> np.ndarray:
    """Released sd (P,) of each credit, or one that says nothing for channels that no credit model can see.

    A channel all of whose credits may be zero (television) is not tracked: the absence of touches is no evidence about
    what it caused, and as evidence it gave the posterior a second, empty mode (no effect, or no tracking).
    """
    above = credit > Z90 * sd
    seen = np.isin(channel, channel[above])
    return np.where(seen, sd, UNHEARD * kpi_total)


def _model_logs(inputs: PoolInputs, at: Mapping[str, int]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Positions (n,) and log draws (S, n) of what the model holds, and the signs (K,) of its predicted lifts."""
    assert inputs.mmm is not None
    mmm, k = inputs.mmm, len(inputs.lifts.estimates)
    if mmm.lift_draws.shape[1] != k:
        raise ContractError(f"MMM lift_draws must have one column per lift ({k}); got {mmm.lift_draws.shape[1]}.")
    held = [at[name] for name in mmm.channels]
    columns = [np.log(mmm.totals)]
    sign = np.ones(k)
    for n, estimate in enumerate(inputs.lifts.estimates):
        draws = mmm.lift_draws[:, n]
        if estimate.channel not in mmm.channels or np.isnan(draws).all():
            continue
        sign[n] = np.sign(np.median(draws))
        if not (np.isfinite(draws).all() and (draws * sign[n] > 0).all()):
            raise ContractError(
                f"the model's prediction of lift {estimate.experiment!r} must be finite, not zero and of one sign in "
                f"every draw; it runs from {draws.min()} to {draws.max()}. Check that the test changed spend."
            )
        held.append(len(at) + n)
        total = mmm.totals[:, mmm.channels.index(estimate.channel)]
        columns.append(np.log(np.abs(draws) / total)[:, None])
    return held, np.hstack(columns), sign


def _margin(logs: np.ndarray) -> tuple[float, float, float]:
    """Centre, scale and g that match the 5 %, 50 % and 95 % quantiles (Hoaglin 1985, the g-distribution)."""
    low, middle, high = np.quantile(logs, [0.05, 0.5, 0.95])
    left, right = max(middle - low, 1e-6), max(high - middle, 1e-6)
    z = float(ndtri(0.95))
    g = float(np.clip(np.log(right / left) / z, -1.0, 1.0))
    if abs(g) < 1e-3:
        return float(middle), float((left + right) / (2 * z)), 0.0
    return float(middle), float((left + right) * g / (np.exp(g * z) - np.exp(-g * z))), g


def _rank_correlation(logs: np.ndarray) -> np.ndarray:
    """Correlation of normal scores (n, n), constant columns uncorrelated; a hair towards I keeps it invertible."""
    scores = ndtri((rankdata(logs, axis=0) - 0.5) / len(logs))
    sd = scores.std(axis=0)
    unit = (scores - scores.mean(axis=0)) / np.where(sd > 1e-9, sd, np.inf)
    corr = unit.T @ unit / len(logs)
    np.fill_diagonal(corr, 1.0)
    return 0.9999 * corr + 0.0001 * np.eye(len(corr))


def _ridge(cov: np.ndarray) -> np.ndarray:
    cov = np.atleast_2d(cov)
    return cov + 1e-8 * np.eye(len(cov))


def _spend_share(inputs: PoolInputs, estimate: LiftEstimate) -> float:
    """log(|tested spend change| / spend of the period): the stated assumption where no model gives the secant."""
    total = (inputs.spend_total or {}).get(estimate.channel)
    delta = estimate.spend_delta
    if total is None or not total > 0 or not np.isfinite(delta) or delta == 0:
        raise ContractError(
            f"lift {estimate.experiment!r} cannot be tied to the total of channel {estimate.channel!r}: no model "
            f"predicts it, its spend_delta is {delta} and the channel's spend is {total}. "
            "Give spend_delta in the experiments table and the channel's spend."
        )
    return float(np.log(abs(delta) / total))


def _sum_credits(inputs: PoolInputs, at: Mapping[str, int]) -> tuple[tuple[str, ...], np.ndarray]:
    """Model names and rows (4, P): model, channel, credit and sd, summed over quarters (their noise is independent)."""
    rows = [r for r in inputs.credits if r.channel != UNATTRIBUTED]
    models = tuple(dict.fromkeys(r.model for r in rows))
    grouped: dict[tuple[int, int], list[Credit]] = {}
    for row in rows:
        grouped.setdefault((models.index(row.model), at[row.channel]), []).append(row)
    for (_, channel), group in grouped.items():
        _check_cover(inputs, inputs.channels[channel], group)
    keys = sorted(grouped)
    mean = np.array([sum(r.mean for r in grouped[key]) for key in keys], dtype=float)
    sd = np.array([np.sqrt(sum(r.sd**2 for r in grouped[key])) for key in keys], dtype=float)
    if not (np.isfinite(mean).all() and np.isfinite(sd).all() and (sd >= 0).all()):
        raise ContractError("every credit needs a finite mean and a finite sd >= 0.")
    floor = NOISE_FLOOR * np.abs(mean).max(initial=0.0)
    ids = np.array(keys, dtype=float).reshape(-1, 2)
    return models, np.vstack([ids.T, mean, np.maximum(sd, max(floor, 1e-9))])


def _check_cover(inputs: PoolInputs, channel: str, group: list[Credit]) -> None:
    """Raises ContractError unless the quarters of one model × channel tile the period once."""
    group = sorted(group, key=lambda r: r.period_start)
    edge = timedelta(days=EDGE_DAYS)
    for before, after in zip(group, group[1:], strict=False):
        if not before.period_end < after.period_start <= before.period_end + edge:
            raise ContractError(
                f"credits of {group[0].model!r} for {channel!r} must follow each other: one period ends on "
                f"{before.period_end}, the next starts on {after.period_start}."
            )
    gaps = abs(group[0].period_start - inputs.period_start), abs(group[-1].period_end - inputs.period_end)
    if max(gaps) >= edge:
        raise ContractError(
            f"credits of {group[0].model!r} for {channel!r} cover {group[0].period_start} to {group[-1].period_end}, "
            f"the incremental totals {inputs.period_start} to {inputs.period_end}; pass totals of the same period."
        )
