"""All tests of a project as one random-effects model, with the prediction for the next test.

    y[k] = mu + family + channel + season + drift(channel, age of k) + own[k] + error[k],   error ~ N(0, Sigma)

y is the return of test k (metric units per currency), Sigma the library's joint covariance on that scale, so arms that
share a control and geo tests that share donors are not counted as independent. family, channel, season and own are
normal with unknown sd; drift is Brownian motion backwards from `as_of`, so a test's say on today's effect fades with
its age: that is what staleness means here. Each sd has a half-normal prior of scale `scale` (drift: half of it, per
square-root year), mu ~ N(0, scale²·4).

Given the five sd everything is normal and integrated exactly; the sd are integrated by importance sampling on
scrambled-Sobol points: a first set from their prior, a second half from the prior and half from a normal in log sd
fitted to the first. No chain, no divergence; `effective_points` says how many points carry the weight. Errors of few
degrees of freedom get their t variance, dof / (dof − 2). Decision 0152.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from scipy import special, stats

from contracts.checks import positive
from contracts.errors import ContractError
from contracts.evidence import LiftEstimate, LiftLibrary
from contracts.intervals import summarise

LEVELS = ("family", "channel", "season", "own", "drift")
PRIOR_SCALES = np.array([1.0, 1.0, 1.0, 1.0, 0.5])  # of LEVELS, in units of `scale`
MU_SCALES = 2.0  # prior sd of mu in units of `scale`
STALE_DAYS = 365
DRAWS = 8000
_YEAR = 365.25


@dataclass(frozen=True, slots=True)
class PoolTest:
    """One test (or arm of one) on the pooled scale."""

    __test__ = False  # not a pytest class

    name: str  # experiment, or experiment/arm
    channel: str
    family: str
    season: str
    end: date
    value: float  # metric units per currency
    evidence_ids: tuple[str, ...]

    def age_days(self, as_of: date) -> int:
        """Days from the end of the test to `as_of`, 0 when it ends later."""
        return max((as_of - self.end).days, 0)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the next test should show, before it is run."""

    true_effect: dict[str, float]  # interval columns of its true return
    estimate: dict[str, float]  # of its estimate, with `std_error` added
    chance_significant: float  # that the two-sided p falls under 0.05
    std_error: float


@dataclass(frozen=True, slots=True)
class Pooled:
    """Posterior of the model; queries are answered from the weighted points."""

    tests: tuple[PoolTest, ...]
    as_of: date
    scale: float
    sd: np.ndarray  # (D, 5) of LEVELS, drawn from their posterior
    inverse: np.ndarray  # (D, K, K) of the marginal covariance of y
    effective_points: float
    seed: int

    @property
    def evidence_ids(self) -> tuple[str, ...]:
        """Every id that the pool rests on, sorted."""
        return tuple(sorted({i for t in self.tests for i in t.evidence_ids}))

    def stale(self, days: int = STALE_DAYS) -> tuple[str, ...]:
        """Names of tests that ended more than `days` before `as_of`."""
        return tuple(t.name for t in self.tests if t.age_days(self.as_of) > days)

    def spread(self) -> dict[str, dict[str, float]]:
        """Interval columns of the sd of each level, metric units per currency."""
        return {name: summarise(self.sd[:, i]) for i, name in enumerate(LEVELS)}

    def effect(self, channel: str, family: str) -> dict[str, float]:
        """Interval columns of today's mean return of a channel (known or new) over seasons and tests."""
        return summarise(self._draws(channel, family, None, own=False))

    def shrunken(self) -> tuple[dict[str, float], ...]:
        """Interval columns of every test's own true return, in order, each helped by all others."""
        y = np.array([t.value for t in self.tests])
        out = []
        for k in range(len(y)):
            cross = self._prior()[:, :, k]
            out.append(summarise(self._normal(cross, self._prior()[:, k, k], y, k)))
        return tuple(out)

    def next_test(self, channel: str, family: str, season: str, std_error: float) -> Prediction:
        """Predictive of a test that ends at `as_of`. `std_error`: of its estimate, metric units per currency."""
        positive(std_error=std_error)
        true = self._draws(channel, family, season, own=True)
        seen = true + std_error * np.random.default_rng(self.seed + 1).standard_normal(len(true))
        z = true / std_error
        chance = special.ndtr(z - 1.959963984540054) + special.ndtr(-z - 1.959963984540054)
        return Prediction(summarise(true), summarise(seen), float(chance.mean()), std_error)

    def _prior(self) -> np.ndarray:
        return _covariance(self.tests, self.as_of, self.scale, self.sd)

    def _draws(self, channel: str, family: str, season: str | None, *, own: bool) -> np.ndarray:
        same = np.array([[t.family == family, t.channel == channel, t.season == season] for t in self.tests], float)
        sd2 = self.sd**2
        cross = (MU_SCALES * self.scale) ** 2 + sd2[:, :3] @ same.T
        parts = [0, 1] + ([2] if season is not None else []) + ([3] if own else [])
        variance = (MU_SCALES * self.scale) ** 2 + sd2[:, parts].sum(axis=1)
        return self._normal(cross, variance, np.array([t.value for t in self.tests]), len(self.tests))

    def _normal(self, cross: np.ndarray, variance: np.ndarray, y: np.ndarray, salt: int) -> np.ndarray:
        """Draws (DRAWS,) of a target with prior `variance` (D,) and covariance `cross` (D, K) with the tests."""
        gain = np.einsum("dk,dkl->dl", cross, self.inverse)
        left = np.maximum(variance - (gain * cross).sum(axis=1), 0.0)
        z = np.random.default_rng((self.seed, salt)).standard_normal(len(left))
        return gain @ y + np.sqrt(left) * z


def _covariance(tests: Sequence[PoolTest], as_of: date, scale: float, sd: np.ndarray) -> np.ndarray:
    """Prior covariance (D, K, K) of the tests' true returns."""

    def same(names: Sequence[str]) -> np.ndarray:
        column = np.array(names)
        return (column[:, None] == column[None, :]).astype(float)

    age = np.array([t.age_days(as_of) for t in tests]) / _YEAR
    channel = same([t.channel for t in tests])
    kernels = np.stack([
        same([t.family for t in tests]), channel, same([t.season for t in tests]), np.eye(len(tests)),
        channel * np.minimum(age[:, None], age[None, :]),
    ])  # fmt: skip
    return (MU_SCALES * scale) ** 2 + np.einsum("dl,lij->dij", sd**2, kernels)


def pool(
    tests: Sequence[PoolTest], covariance: np.ndarray, *, scale: float, as_of: date, points: int = 4096, seed: int = 1
) -> Pooled:
    """Posterior of the random-effects model.

    `covariance` (K, K) of the errors, squared metric units per currency. `scale`: how far returns of different
    channels may plausibly lie apart, same unit; it sets every prior. Raises ContractError for no test, one test twice,
    a covariance that is not positive definite, or a test that ends after `as_of`.
    """
    _check(tests, covariance, scale, as_of)
    if points < 64 or points & (points - 1):
        raise ContractError(f"points must be a power of two of 64 or more; got {points}.")
    y = np.array([t.value for t in tests])
    first = np.log(scale * PRIOR_SCALES) + _log_unit_points(points // 4, seed)
    weight = _normalised(_fit(_marginal(tests, covariance, as_of, scale, first), y))
    log_sd, proposal = _second_points(first, weight, scale, points, seed + 1)
    sd = np.exp(log_sd)
    marginal = _marginal(tests, covariance, as_of, scale, log_sd)
    weight = _normalised(_fit(marginal, y) + _log_prior(log_sd, scale) - proposal)
    ordered = np.searchsorted(np.cumsum(weight), (np.arange(DRAWS) + 0.5) / DRAWS)  # systematic resampling
    chosen = np.minimum(ordered, points - 1)
    kept, back = np.unique(chosen, return_inverse=True)
    inverse = np.linalg.inv(marginal[kept])[back]
    return Pooled(tuple(tests), as_of, scale, sd[chosen], inverse, float(1 / (weight**2).sum()), seed)


def _log_unit_points(points: int, seed: int) -> np.ndarray:
    """Log of half-normal points of unit scale, (points, 5)."""
    uniform = stats.qmc.Sobol(len(LEVELS), seed=seed).random(points)
    return np.asarray(np.log(stats.halfnorm.ppf(np.clip(uniform, 1e-9, 1 - 1e-9))))


def _log_prior(log_sd: np.ndarray, scale: float) -> np.ndarray:
    unit = log_sd - np.log(scale * PRIOR_SCALES)
    return np.asarray((stats.halfnorm.logpdf(np.exp(unit)) + unit).sum(axis=1))


def _second_points(
    first: np.ndarray, weight: np.ndarray, scale: float, points: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Log sd (points, 5), half from the prior and half from a widened normal fit, and their log proposal density."""
    centre = weight @ first
    cov = 1.5 * np.cov(first.T, aweights=weight, ddof=0) + 0.02 * np.eye(len(LEVELS))
    uniform = stats.qmc.Sobol(len(LEVELS), seed=seed).random(points // 2)
    normal = stats.norm.ppf(np.clip(uniform, 1e-9, 1 - 1e-9)) @ np.linalg.cholesky(cov).T + centre
    log_sd = np.concatenate([np.log(scale * PRIOR_SCALES) + _log_unit_points(points // 2, seed + 1), normal])
    near = stats.multivariate_normal(centre, cov).logpdf(log_sd)
    return log_sd, np.logaddexp(_log_prior(log_sd, scale), near) - math.log(2)


def _marginal(
    tests: Sequence[PoolTest], covariance: np.ndarray, as_of: date, scale: float, log_sd: np.ndarray
) -> np.ndarray:
    return np.asarray(_covariance(tests, as_of, scale, np.exp(log_sd)) + covariance)


def _fit(marginal: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Log likelihood (D,) of y under normal covariances (D, K, K), less a constant."""
    root = np.linalg.cholesky(marginal)
    white = np.linalg.solve(root, np.broadcast_to(y[:, None], (len(root), len(y), 1)))[..., 0]
    return np.asarray(-0.5 * (white**2).sum(axis=1) - np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1))


def _normalised(log_weight: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(log_weight - special.logsumexp(log_weight)))


def _check(tests: Sequence[PoolTest], covariance: np.ndarray, scale: float, as_of: date) -> None:
    positive(scale=scale)
    names = [t.name for t in tests]
    if not names:
        raise ContractError("a pool of tests needs at least one test.")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ContractError(
            f"test {twice[0]!r} would be pooled twice; choose one metric and one estimator of each test and arm."
        )
    late = [t for t in tests if t.end > as_of]
    if late:
        raise ContractError(f"test {late[0].name!r} ends on {late[0].end}, after as_of {as_of}; pool finished tests.")
    if covariance.shape != (len(tests), len(tests)) or not np.isfinite(covariance).all():
        raise ContractError(f"the pool's covariance must be finite and {(len(tests),) * 2}; got {covariance.shape}.")
    if float(np.linalg.eigvalsh(covariance)[0]) < -1e-9 * float(np.trace(covariance)):
        raise ContractError("the pool's covariance has a negative eigenvalue; build it with build_library.")


def season_of(start: date, end: date) -> str:
    """Calendar quarter of the middle day: 'Q1' to 'Q4'."""
    middle = start + (end - start) / 2
    return f"Q{(middle.month + 2) // 3}"


def returns(
    library: LiftLibrary, metric: str, families: Mapping[str, str]
) -> tuple[tuple[PoolTest, ...], np.ndarray, dict[str, str]]:
    """Tests of one metric as returns per currency with covariance (K, K), and why others are left out.

    `families`: channel -> family; a channel without one is its own. First order: spend's own error adds
    (value · se / spend)² to a test's variance. Left out: no known spend change, or one within 2 standard errors of
    zero, where a ratio has no normal error.
    """
    keep: list[int] = []
    left: dict[str, str] = {}
    for i, e in enumerate(library.estimates):
        if e.metric != metric:
            continue
        reason = _unfit(e)
        if reason:
            left[_name(e)] = reason
        else:
            keep.append(i)
    chosen = [library.estimates[i] for i in keep]
    spend = np.array([e.spend_delta for e in chosen])
    value = np.array([e.mean for e in chosen]) / spend if chosen else np.zeros(0)
    covariance = library.covariance[np.ix_(keep, keep)] / np.outer(spend, spend)
    heavy = np.array([math.sqrt(e.dof / (e.dof - 2)) if 2 < e.dof < math.inf else 1.0 for e in chosen])
    covariance = covariance * np.outer(heavy, heavy)
    covariance = covariance + np.diag([_spend_part(e, float(v)) for v, e in zip(value, chosen, strict=True)])
    tests = tuple(_pool_test(e, float(v), families) for v, e in zip(value, chosen, strict=True))
    return tests, covariance, left


def _spend_part(e: LiftEstimate, value: float) -> float:
    """What spend's own error and its correlation with the outcome add to the variance of the return."""
    shared = e.spend_correlation * e.std_error * e.spend_delta_se
    return (value**2 * e.spend_delta_se**2 - 2 * value * shared) / e.spend_delta**2


def _pool_test(e: LiftEstimate, value: float, families: Mapping[str, str]) -> PoolTest:
    family, season = families.get(e.channel, e.channel), season_of(e.start, e.end)
    return PoolTest(_name(e), e.channel, family, season, e.end, value, e.evidence_ids)


def _name(estimate: LiftEstimate) -> str:
    return f"{estimate.experiment}/{estimate.arm}" if estimate.arm else estimate.experiment


def _unfit(estimate: LiftEstimate) -> str:
    if not math.isfinite(estimate.spend_delta) or estimate.spend_delta == 0:
        return "its spend change is not known or zero; give spend_delta in the experiments table"
    if abs(estimate.spend_delta) < 2 * estimate.spend_delta_se:
        return "its spend change lies within 2 standard errors of zero, so its return has no usable error"
    if estimate.dof <= 2:
        return f"its estimate has {estimate.dof:g} degrees of freedom, too few for a variance"
    return ""


def typical_scale(tests: Sequence[PoolTest]) -> float:
    """A prior scale from the returns themselves: their root mean square. Empirical Bayes; state a scale where you can.

    Raises ContractError when there is no test or all are zero.
    """
    size = math.sqrt(float(np.mean([t.value**2 for t in tests]))) if tests else 0.0
    if not size > 0:
        raise ContractError("no test has a return other than zero, so no prior scale can be read from them; state one.")
    return size
