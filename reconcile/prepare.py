"""The pool's evidence as plain arrays of fixed shape, so that one compiled program serves every world of that shape.

A cell without evidence keeps its place and is switched off by a mask. Credits whose noise is small enter on the log
scale, where they are linear; the others on their own scale, where zero and negative figures are legal.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.special import ndtri
from scipy.stats import rankdata

from contracts.errors import ContractError
from contracts.evidence import Credit, LiftEstimate
from contracts.panel import UNATTRIBUTED
from reconcile.inputs import JOURNEYS, LiftScope, PoolInputs
from reconcile.priors import PoolPriors

EDGE_DAYS = 7  # credit periods may miss the pool's by less than a week: a quarter ends inside a week
Z90 = 1.6448536269514722
NEAR_ABOVE = 5.0  # credit / sd above which its logarithm is as good as normal
NOISE_FLOOR = 1e-3  # smallest relative sd of a credit: an exact figure would be a wall, not a likelihood
SPEND_FLOOR = 0.02  # of a channel's mean spend per period: below it there is nothing to measure in that cell
TRACKED_ABOVE = 3.0  # a channel's credit over all periods / sd, median of a source's models, to count as tracked
DEFAULT_COVERAGE = 0.5  # of a test whose scope is not known


class Margin(NamedTuple):
    """Tukey's g-distribution of a log quantity: centre + scale · (exp(g z) − 1) / g, z standard normal."""

    centre: np.ndarray  # (C + K,)
    scale: np.ndarray  # (C + K,), > 0
    skew: np.ndarray  # (C + K,), g


class Arrays(NamedTuple):
    """Everything that the compiled model reads. C channels, T periods, K lifts, J models, G sources, F families, P."""

    margin: Margin  # of (log total, log secant); the secants of lifts that no model predicts are centred at 0
    root: np.ndarray  # (C + K, C + K) Cholesky factor of the normal scores' correlation
    held: np.ndarray  # (C,) 1 where the model holds the channel
    mmm_bias_sd: np.ndarray  # (C,)
    profile: np.ndarray  # (C, T) log share of the period in the model's total
    profile_sd: np.ndarray  # (C, T)
    profile_on: np.ndarray  # (C, T)
    spend_log: np.ndarray  # (C, T) log of spend around the channel's mean
    spend_total_log: np.ndarray  # (C,)
    spend_on: np.ndarray  # (C,) 1 where spend is known
    family: np.ndarray  # (C, F) one-hot
    lift_channel: np.ndarray  # (K, C) one-hot
    lift_sign: np.ndarray  # (K,)
    lift: np.ndarray  # (K,)
    lift_cov: np.ndarray  # (K, K)
    lift_extra: np.ndarray  # (K,) sd as a share of the effect
    lift_dof: np.ndarray  # (K,)
    lift_when: np.ndarray  # (K, T) share of the test's days in each period
    lift_by_model: np.ndarray  # (K,) 1 where the model gives the secant
    lift_part: np.ndarray  # (K, T) log of |spend change| / the channel's spend of the period; 0 where not read
    lift_ratio: np.ndarray  # (K,) tested spend / usual spend
    lift_on: np.ndarray  # (K,)
    source: np.ndarray  # (G, J) one-hot
    credit: np.ndarray  # (J, C, T)
    credit_sd: np.ndarray  # (J, C, T)
    near: np.ndarray  # (J, C, T) 1 where read on the log scale
    far: np.ndarray  # (J, C, T) 1 where read on its own scale
    lone: np.ndarray  # (G,) 1 where a source has one model: it needs no deviation inside the source
    covariates: np.ndarray  # (P, C, T)
    moves: np.ndarray  # (G, P) 1 where the covariate moves the source
    kpi: np.ndarray  # (T,)
    kpi_sd: np.ndarray  # (T,)


class Prepared(NamedTuple):
    """Arrays, and the names that they lost."""

    arrays: Arrays
    models: tuple[str, ...]
    sources: tuple[str, ...]
    printed: np.ndarray  # (J, C, T) the credit's 90 % interval lies above 0: only these get a factor
    recorded: np.ndarray  # (J, C, T) there is a credit at all
    tracked: np.ndarray  # (G, C)
    spent: np.ndarray  # (C, T) there was spend to speak of
    left_out: tuple[str, ...]  # sentences about evidence that could not be read


def prepare(inputs: PoolInputs, priors: PoolPriors) -> Prepared:
    """Plain arrays of the pooled model. Raises ContractError where a lift cannot be tied to its channel."""
    c, t = len(inputs.channels), len(inputs.periods)
    at = {name: i for i, name in enumerate(inputs.channels)}
    spend = np.full((c, t), np.nan) if inputs.spend is None else np.asarray(inputs.spend, dtype=float)
    known = np.isfinite(spend).all(axis=1) & (np.nan_to_num(spend).sum(axis=1) > 0)
    mean = np.where(known, np.nan_to_num(spend).mean(axis=1), 1.0)
    relative = np.where(known[:, None], np.nan_to_num(spend) / mean[:, None], 1.0)
    spent = relative >= SPEND_FLOOR
    levels = _levels(inputs, priors, at)
    lifts = _lifts(inputs, priors, at, spend, levels.by_model)
    families = sorted({inputs.families[name] for name in inputs.channels})
    credit = _credits(inputs, at, spent)
    profile, profile_sd = _profile(inputs, at)
    total = float(inputs.kpi.sum())
    arrays = Arrays(
        margin=levels.margin,
        root=np.linalg.cholesky(levels.corr),
        held=levels.held,
        mmm_bias_sd=np.full(c, priors.mmm_bias_sd),
        profile=np.nan_to_num(profile),
        profile_sd=np.hypot(np.nan_to_num(profile_sd), priors.mmm_profile_sd),
        profile_on=(np.isfinite(profile) & spent & (t > 1)).astype(float),
        spend_log=np.log(np.maximum(relative, SPEND_FLOOR)),
        spend_total_log=np.where(known, np.log(mean * t), 0.0) - _price(inputs, known, mean * t),
        spend_on=known.astype(float),
        family=np.array([[inputs.families[n] == f for f in families] for n in inputs.channels], dtype=float),
        **lifts,
        **credit.arrays,
        covariates=np.array([v.values for v in inputs.covariates], dtype=float).reshape(-1, c, t),
        moves=np.array([[s in v.sources for v in inputs.covariates] for s in credit.sources], dtype=float).reshape(
            len(credit.sources), len(inputs.covariates)
        ),
        kpi=np.asarray(inputs.kpi, dtype=float),
        kpi_sd=np.hypot(inputs.kpi_sd, priors.closure_softness * total / t),
    )
    return Prepared(
        arrays, credit.models, credit.sources, credit.printed, credit.recorded, credit.tracked, spent, credit.left_out
    )


def _price(inputs: PoolInputs, known: np.ndarray, total: np.ndarray) -> float:
    """log of the spend that a KPI unit costs if paid channels make 30 % of it: the centre of families' returns."""
    money = float(total[known].sum())
    return 0.0 if money <= 0 else float(np.log(money / (0.3 * inputs.kpi.sum())))


class _Levels(NamedTuple):
    margin: Margin
    corr: np.ndarray
    held: np.ndarray
    by_model: np.ndarray


def _levels(inputs: PoolInputs, priors: PoolPriors, at: Mapping[str, int]) -> _Levels:
    """Margins and correlation of (log total, log secant): the model's, else wide priors."""
    c, k = len(inputs.channels), len(inputs.lifts.estimates)
    centre = np.concatenate([np.full(c, np.log(priors.share_median * inputs.kpi.sum())), np.zeros(k)])
    scale = np.concatenate([np.full(c, priors.share_log_sd), np.full(k, priors.secant_log_sd)])
    skew, corr = np.zeros(c + k), np.eye(c + k)
    held, by_model = np.zeros(c), np.zeros(k)
    if inputs.mmm is None:
        return _Levels(Margin(centre, scale, skew), corr, held, by_model)
    mmm = inputs.mmm
    where = [at[name] for name in mmm.channels]
    held[where] = 1.0
    columns = [np.log(mmm.totals)]
    for n, estimate in enumerate(inputs.lifts.estimates):
        draws = mmm.lift_draws[:, n]
        if estimate.channel not in mmm.channels or np.isnan(draws).all():
            continue
        sign = np.sign(np.median(draws))
        if not (np.isfinite(draws).all() and (draws * sign > 0).all()):
            raise ContractError(
                f"the model's prediction of lift {estimate.experiment!r} must be finite, not zero and of one sign in "
                f"every draw; it runs from {draws.min()} to {draws.max()}. Check that the test changed spend."
            )
        by_model[n] = sign
        where.append(c + n)
        columns.append(np.log(np.abs(draws) / mmm.totals[:, mmm.channels.index(estimate.channel)])[:, None])
    logs = np.hstack(columns)
    for i, column in zip(where, logs.T, strict=True):
        centre[i], scale[i], skew[i] = _margin(column)
    corr[np.ix_(where, where)] = _rank_correlation(logs)
    return _Levels(Margin(centre, scale, skew), corr, held, by_model)


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


def _profile(inputs: PoolInputs, at: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    shape = (len(inputs.channels), len(inputs.periods))
    mean, sd = np.full(shape, np.nan), np.zeros(shape)
    if inputs.mmm is not None and inputs.mmm.profile is not None and inputs.mmm.profile_sd is not None:
        where = [at[name] for name in inputs.mmm.channels]
        mean[where], sd[where] = inputs.mmm.profile, inputs.mmm.profile_sd
    return mean, sd


def _lifts(
    inputs: PoolInputs, priors: PoolPriors, at: Mapping[str, int], spend: np.ndarray, by_model: np.ndarray
) -> dict[str, np.ndarray]:
    """The lift arrays of `Arrays`."""
    estimates = inputs.lifts.estimates
    k, t = len(estimates), len(inputs.periods)
    scopes = inputs.scopes or (LiftScope(),) * k
    when, part, extra, sign = np.zeros((k, t)), np.zeros((k, t)), np.zeros(k), by_model.copy()
    for n, (estimate, scope) in enumerate(zip(estimates, scopes, strict=True)):
        when[n], gap = _when(inputs, estimate)
        coverage = scope.coverage if np.isfinite(scope.coverage) else DEFAULT_COVERAGE
        thin = priors.lift_scope_sd**2 * (1 - min(max(coverage, 0.0), 1.0))
        extra[n] = np.sqrt(priors.lift_bias_sd**2 + thin + priors.drift_sd**2 * gap)
        if by_model[n] == 0:
            part[n] = _spend_part(inputs, estimate, spend[at[estimate.channel]])
            sign[n] = np.sign(estimate.spend_delta)
    return {
        "lift_channel": np.array(
            [[estimate.channel == name for name in inputs.channels] for estimate in estimates], dtype=float
        ).reshape(k, len(inputs.channels)),
        "lift_sign": sign,
        "lift": np.array([e.mean for e in estimates], dtype=float),
        "lift_cov": np.asarray(inputs.lifts.covariance, dtype=float).reshape(k, k),
        "lift_extra": extra,
        "lift_dof": np.array([min(e.dof, priors.dof) for e in estimates], dtype=float),
        "lift_when": when,
        "lift_by_model": (by_model != 0).astype(float),
        "lift_part": part,
        "lift_ratio": np.array([s.ratio for s in scopes], dtype=float),
        "lift_on": np.full(k, float(inputs.lifts_pooled)),
    }


def _when(inputs: PoolInputs, estimate: LiftEstimate) -> tuple[np.ndarray, float]:
    """Share of the test's days in each period (T,), and the years between the test and the nearest period."""
    days = np.array(
        [max(0, (min(last, estimate.end) - max(first, estimate.start)).days + 1) for first, last in inputs.periods],
        dtype=float,
    )
    if days.sum() > 0:
        return days / days.sum(), 0.0
    before = (inputs.periods[0][0] - estimate.end).days
    after = (estimate.start - inputs.periods[-1][1]).days
    gaps = [min(abs((first - estimate.end).days), abs((estimate.start - last).days)) for first, last in inputs.periods]
    near = int(np.argmin(gaps))
    days[near] = 1.0
    return days, max(before, after, 0) / 365.25


def _spend_part(inputs: PoolInputs, estimate: LiftEstimate, spend: np.ndarray) -> np.ndarray:
    """log(|tested spend change| / spend of each period) (T,): read where no model gives the secant."""
    delta = estimate.spend_delta
    if not (np.isfinite(spend).all() and spend.sum() > 0 and np.isfinite(delta) and delta != 0):
        total = spend.sum() if np.isfinite(spend).all() else None
        raise ContractError(
            f"lift {estimate.experiment!r} cannot be tied to the total of channel {estimate.channel!r}: no model "
            f"predicts it, its spend_delta is {delta} and the channel's spend is {total}. "
            "Give spend_delta in the experiments table and the channel's spend."
        )
    return np.asarray(np.log(abs(delta) / np.maximum(spend, SPEND_FLOOR * spend.mean())))


class _Credits(NamedTuple):
    arrays: dict[str, np.ndarray]
    models: tuple[str, ...]
    sources: tuple[str, ...]
    printed: np.ndarray
    recorded: np.ndarray
    tracked: np.ndarray
    left_out: tuple[str, ...]


def _credits(inputs: PoolInputs, at: Mapping[str, int], spent: np.ndarray) -> _Credits:
    rows = [r for r in inputs.credits if r.channel != UNATTRIBUTED]
    models = tuple(dict.fromkeys(r.model for r in rows))
    of = {m: inputs.sources.get(m, JOURNEYS) for m in models}
    sources = tuple(dict.fromkeys(of.values()))
    shape = (len(models), len(inputs.channels), len(inputs.periods))
    value, sd, recorded = np.zeros(shape), np.ones(shape), np.zeros(shape, dtype=bool)
    left: dict[str, None] = {}
    for row in rows:
        period = _period_of(inputs, row)
        if period is None:
            left[f"credit of {row.period_start} to {row.period_end} covers no period of the pool"] = None
            continue
        cell = models.index(row.model), at[row.channel], period
        if recorded[cell]:
            raise ContractError(
                f"credit of {row.model!r} for {row.channel!r} is given twice for the period that starts on "
                f"{row.period_start}."
            )
        if not (np.isfinite(row.mean) and np.isfinite(row.sd) and row.sd >= 0):
            raise ContractError("every credit needs a finite mean and a finite sd >= 0.")
        recorded[cell], value[cell], sd[cell] = True, row.mean, row.sd
    floor = NOISE_FLOOR * np.abs(value).max(initial=0.0)
    sd = np.where(recorded, np.maximum(sd, max(floor, 1e-9)), 1.0)
    tracked = _tracked(value, sd, recorded, models, sources, of)
    of_model = np.array([tracked[sources.index(of[m])] for m in models], dtype=bool).reshape(*shape[:2], 1)
    heard = recorded & spent & of_model
    near = heard & (value > NEAR_ABOVE * sd)
    onehot = np.array([[of[m] == s for m in models] for s in sources], dtype=float).reshape(len(sources), len(models))
    arrays = {
        "source": onehot, "credit": value, "credit_sd": sd, "near": near.astype(float),
        "far": (heard & ~near).astype(float), "lone": (onehot.sum(axis=1) == 1).astype(float),
    }  # fmt: skip
    printed = recorded & (value > Z90 * sd) & heard
    return _Credits(arrays, models, sources, printed, recorded, tracked, tuple(left))


def _tracked(
    value: np.ndarray, sd: np.ndarray, recorded: np.ndarray, models: tuple[str, ...], sources: tuple[str, ...],
    of: Mapping[str, str],
) -> np.ndarray:  # fmt: skip
    """Channels (G, C) that a source sees at all: the median over its models of credit over all periods / sd is large.

    A channel without touches (television) is not tracked: the absence of touches is no evidence about what it caused,
    and as evidence it gave the posterior a second, empty mode (no effect, or no tracking).
    """
    noise = np.sqrt((np.where(recorded, sd, 0.0) ** 2).sum(axis=2) + 1e-300)
    clear = np.where(recorded, value, 0.0).sum(axis=2) / noise
    out = np.zeros((len(sources), value.shape[1]), dtype=bool)
    for g, source in enumerate(sources):
        mine = [i for i, m in enumerate(models) if of[m] == source]
        out[g] = np.median(clear[mine], axis=0) > TRACKED_ABOVE
    return out


def _period_of(inputs: PoolInputs, row: Credit) -> int | None:
    """The period that a credit covers, up to less than a week at each edge."""
    edge = timedelta(days=EDGE_DAYS)
    for i, (first, last) in enumerate(inputs.periods):
        if abs(row.period_start - first) < edge and abs(row.period_end - last) < edge:
            return i
    return None


def lift_groups(cov: np.ndarray) -> list[np.ndarray]:
    """Positions of lifts that share noise, one array per connected group of the covariance (K, K)."""
    if not len(cov):
        return []
    scale = np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    count, label = connected_components(np.abs(cov) > 1e-9 * scale, directed=False)
    return [np.flatnonzero(label == g) for g in range(count)]
