"""The pooled model as a list of scaled residuals: one definition for sampling, for weights and for conflicts.

| on paper | here | prior or likelihood |
|---|---|---|
| log I[c], log q[k] | level, secant | copula with g-distributed margins, from the model's draws (u standard normal) |
| b[c] | mmm_bias | mmm_bias_sd · t(dof), added to log I |
| I[c,t] = I[c] softmax_t((1 + kappa) log S + w) | x = log I[c,t] | kappa in (−1, 0), w a walk over periods |
| p[c,t] | profile | log share of the period ~ N(p, sd), from the model's draws |
| log I[c] − log S[c] | family | N(return of the family, spread inside the family) |
| y[k] | lift | t(dof, sign · secant · I, sqrt(se² + (extra · effect)²)) |
| log a[j,c,t] | log_credit | x + level + family + channel bias + model's deviation + slope log S + covariates |
| A[j,c,t] | credit | log scale: shock shared by a source's models + own; own scale where noise is large |
| closure | closure | log Phi((KPI[t] − sum_c I[c,t]) / sd): the base is positive; no likelihood |

Models of one source (rules of the same journeys) share level, slope, channel bias and shocks, and each has deviations
of its own: a further rule of the same counts then tells what rules differ by, and not the same thing once more.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, log_ndtr

from reconcile.prepare import Arrays
from reconcile.priors import PoolPriors

NORMAL = 0.0  # stands for infinitely many degrees of freedom
Layout = dict[str, tuple[slice, tuple[int, ...]]]


class Term(NamedTuple):
    """Scaled residuals of one source of information. Its log density is the sum over `on` of t or normal densities."""

    residual: Any  # (n,)
    log_scale: Any  # (n,)
    on: Any  # (n,)
    dof: Any  # (n,), NORMAL for a normal


class State(NamedTuple):
    """What the parameters mean."""

    level: Any  # (C,) log I over all periods
    share: Any  # (C, T) log share of each period
    kappa: Any  # (C,)
    effect: Any  # (K,) predicted lifts, signed
    log_credit: Any  # (J, C, T)
    shock: Any  # (G,) sd
    own: Any  # (G,) sd


def layout(data: Arrays) -> Layout:
    """Name -> place in the flat parameter vector and shape. Scales come last (log of what exceeds their floor)."""
    (c, t), k, p = data.spend_log.shape, len(data.lift), len(data.covariates)
    (g, j), f = data.source.shape, data.family.shape[1]
    shapes = {
        "u": (c + k,), "mmm_bias": (c,), "saturation": (c,), "walk": (c, t - 1), "family": (f,),
        "group_level": (g,), "model_level": (j,), "family_bias": (g, f), "channel_bias": (g, c),
        "deviation": (j, c), "slope": (g,), "own_slope": (j,), "covariate": (g, p),
        "tau": (g,), "spread": (g,), "shock": (g,), "own": (g,),
    }  # fmt: skip
    out: Layout = {}
    at = 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        out[name] = (slice(at, at + size), shape)
        at += size
    return out


SCALES = ("tau", "spread", "shock", "own")


def scale_priors(priors: PoolPriors) -> dict[str, tuple[float, float]]:
    """Floor and HalfNormal scale of every spread."""
    return {
        "tau": (priors.channel_bias_min, priors.channel_bias_scale),
        "spread": (priors.rule_spread_min, priors.rule_spread_scale),
        "shock": (priors.shock_min, priors.shock_scale),
        "own": (priors.own_shock_min, priors.own_shock_scale),
    }


def split(theta: Any, places: Layout) -> dict[str, Any]:
    """Named parts of a flat vector."""
    return {name: theta[at].reshape(shape) for name, (at, shape) in places.items()}


def size(places: Layout) -> int:
    """Length of the flat vector."""
    return max(at.stop for at, _ in places.values())


def _scales(part: dict[str, Any], priors: PoolPriors) -> dict[str, Any]:
    return {name: low + jnp.exp(part[name]) for name, (low, _) in scale_priors(priors).items()}


def state(theta: Any, data: Arrays, priors: PoolPriors) -> State:
    """Incremental outcomes, predicted lifts and credits of one parameter vector."""
    part = split(theta, layout(data))
    scales = _scales(part, priors)
    c = data.held.shape[0]
    z = data.root @ part["u"]
    g = data.margin.skew
    safe = jnp.where(g == 0, 1.0, g)
    logs = data.margin.centre + data.margin.scale * jnp.where(g == 0, z, jnp.expm1(safe * z) / safe)
    level = logs[:c] + data.mmm_bias_sd * data.held * part["mmm_bias"]
    kappa = -jax.nn.sigmoid(priors.saturation_centre + priors.saturation_sd * part["saturation"])
    walk = jnp.pad(jnp.cumsum(priors.walk_sd * part["walk"], axis=1), ((0, 0), (1, 0)))
    walk = walk - walk.mean(axis=1, keepdims=True)
    share = jax.nn.log_softmax((1.0 + kappa)[:, None] * data.spend_log + walk, axis=1)
    effect = _effects(data, level, share, walk, kappa, logs[c:])
    bias = part["group_level"][:, None] + part["family_bias"] @ data.family.T + part["channel_bias"]
    moved = jnp.einsum("gp,pct->gct", data.moves * part["covariate"], data.covariates) * priors.covariate_sd
    moved = moved + priors.spend_slope_sd * part["slope"][:, None, None] * data.spend_log
    shared = jnp.einsum("gj,gct->jct", data.source, bias[:, :, None] + moved)
    own = part["model_level"][:, None] + part["deviation"]
    slope = priors.own_slope_sd * part["own_slope"][:, None, None] * data.spend_log
    log_credit = level[None, :, None] + share + shared + own[:, :, None] + slope
    return State(level, share, kappa, effect, log_credit, scales["shock"], scales["own"])


def _effects(data: Arrays, level: Any, share: Any, walk: Any, kappa: Any, secant: Any) -> Any:
    """Predicted lifts (K,). The model's secant speaks of average effectiveness, so the walk is added to it; without a
    model, response follows spend^(1 + kappa): (1 − r^(1 + kappa)) / (1 − r) of the average return, r tested / usual."""
    of = data.lift_channel
    drift = (of @ walk * data.lift_when).sum(axis=1) - of @ (jnp.exp(share) * walk).sum(axis=1)
    plain = jnp.log((data.lift_when * jnp.exp(of @ share + data.lift_part)).sum(axis=1) + 1e-300)
    r, k = data.lift_ratio, of @ kappa
    away = jnp.where(jnp.abs(1.0 - r) < 0.05, jnp.where(r >= 1.0, 1.05, 0.95), r)
    curve = jnp.log((1.0 - jnp.where(away > 0, away, 1.0) ** (1.0 + k) * (away > 0)) / (1.0 - away))
    log_size = of @ level + secant + jnp.where(data.lift_by_model > 0, drift, plain + curve)
    return data.lift_sign * jnp.exp(log_size)


def terms(theta: Any, data: Arrays, priors: PoolPriors) -> dict[str, Term]:
    """Everything that is believed or observed, as scaled residuals by source."""
    part, s = split(theta, layout(data)), state(theta, data, priors)
    scales = _scales(part, priors)
    c, dof = data.held.shape[0], priors.dof
    free = 1.0 - data.held
    returns = s.level - data.spend_total_log - priors.family_log_sd * (data.family @ part["family"])
    out = {
        "prior": _join(_normal(part["u"][:c], free), *(_normal(part[n]) for n in ("saturation", "walk"))),
        "family": _join(_normal(returns / priors.within_family_sd, data.spend_on), _normal(part["family"])),
        "mmm": _join(
            _normal(part["u"][:c], data.held), _term(part["mmm_bias"], 0.0, 1.0, dof),
            _normal((data.profile - s.share) / data.profile_sd, data.profile_on),
        ),
        "secant": _normal(part["u"][c:]),
        "lift": _lift_term(s, data),
        "credit": _join(*_credit_terms(part, s, scales, data, priors)),
    }  # fmt: skip
    return {name: term for name, term in out.items() if term.residual.size}


def _term(residual: Any, log_scale: Any, on: Any, dof: Any) -> Term:
    shape = jnp.shape(residual)
    whole = (jnp.broadcast_to(jnp.asarray(v, dtype=float), shape).ravel() for v in (log_scale, on, dof))
    return Term(jnp.ravel(residual), *whole)


def _normal(residual: Any, on: Any = 1.0) -> Term:
    return _term(residual, 0.0, on, NORMAL)


def _join(*parts: Term) -> Term:
    return Term(*(jnp.concatenate(v) for v in zip(*parts, strict=True)))


def _lift_term(s: State, data: Arrays) -> Term:
    """Innovations of the lifts in order: those of cells that share controls are made independent first."""
    extra = (data.lift_extra * s.effect) ** 2
    root = jnp.linalg.cholesky(data.lift_cov + jnp.diag(extra)) if data.lift.shape[0] else data.lift_cov
    residual = jax.scipy.linalg.solve_triangular(root, data.lift - s.effect, lower=True)
    return _term(residual, jnp.log(jnp.diagonal(root)), data.lift_on, data.lift_dof)


def _credit_terms(
    part: dict[str, Any], s: State, scales: dict[str, Any], data: Arrays, priors: PoolPriors
) -> list[Term]:
    seen = jnp.minimum((data.near + data.far).sum(axis=2), 1.0)
    spread = jnp.where(
        seen * (1.0 - data.source.T @ data.lone)[:, None] > 0, (data.source.T @ scales["spread"])[:, None], 1.0
    )
    tau = jnp.where(data.source @ seen > 0, scales["tau"][:, None], 1.0)
    levels = [
        _normal(part["group_level"] / priors.group_level_sd),
        _normal(part["model_level"] / priors.model_bias_sd),
        _normal(part["family_bias"] / priors.family_bias_sd),
        _term(part["channel_bias"] / tau, jnp.log(tau), 1.0, priors.dof),
        _term(part["deviation"] / spread, jnp.log(spread), 1.0, priors.dof),
        *(_normal(part[n]) for n in ("slope", "own_slope", "covariate")),
    ]
    near = _innovations(s, data)
    total = jnp.sqrt(data.source.T @ (s.shock**2 + s.own**2))[:, None, None]
    fitted = jnp.exp(jnp.minimum(s.log_credit, 50.0))
    scale = jnp.sqrt(data.credit_sd**2 + (total * fitted) ** 2)
    far = _term((data.credit - fitted) / scale, jnp.log(scale), data.far, priors.dof)
    return [*levels, near._replace(dof=near.dof + priors.dof), far]


def _innovations(s: State, data: Arrays) -> Term:
    """Log credits of one channel and period less what the earlier models of the same source told about their common
    shock: r_j − m_j over sqrt(d_j + s² / (1 + s² sum_{i<j} 1/d_i)), the exact sequential form of D + s² 11'."""
    log_a = jnp.log(jnp.where(data.near > 0, data.credit, 1.0))
    rough = jnp.where(data.near > 0, data.credit_sd / jnp.where(data.near > 0, data.credit, 1.0), 1.0)
    own = (data.source.T @ s.own)[:, None, None]
    off, d = log_a - s.log_credit, own**2 + rough**2
    residual, log_scale = jnp.zeros_like(off), jnp.zeros_like(off)
    for g in range(data.source.shape[0]):
        mine = data.near * data.source[g][:, None, None]
        weight = mine / d
        before, told = jnp.cumsum(weight, axis=0) - weight, jnp.cumsum(weight * off, axis=0) - weight * off
        common = s.shock[g] ** 2 / (1.0 + s.shock[g] ** 2 * before)
        scale = jnp.sqrt(d + common)
        residual = residual + mine * (off - common * told) / scale
        log_scale = log_scale + mine * jnp.log(scale)
    return _term(residual, log_scale, data.near, NORMAL)


def log_density(theta: Any, data: Arrays, priors: PoolPriors) -> Any:
    """Log posterior density up to a constant."""
    value = sum(_log_term(t) for t in terms(theta, data, priors).values())
    part, s = split(theta, layout(data)), state(theta, data, priors)
    for name, (_, scale) in scale_priors(priors).items():
        value = value + jnp.sum(part[name] - 0.5 * (jnp.exp(part[name]) / scale) ** 2)
    total = jnp.exp(s.level[:, None] + s.share).sum(axis=0)
    return value + log_ndtr((data.kpi - total) / data.kpi_sd).sum()


def _log_term(term: Term) -> Any:
    heavy = jnp.where(term.dof == NORMAL, 4.0, term.dof)
    const = gammaln((heavy + 1) / 2) - gammaln(heavy / 2) - 0.5 * jnp.log(heavy * math.pi)
    t = const - 0.5 * (heavy + 1) * jnp.log1p(term.residual**2 / heavy)
    normal = -0.5 * term.residual**2 - 0.5 * math.log(2 * math.pi)
    return jnp.sum(jnp.where(term.on > 0, term.on * (jnp.where(term.dof == NORMAL, normal, t) - term.log_scale), 0.0))


def robust_weight(term: Term) -> Any:
    """Iterated least-squares weight (n,) of each residual: 1 for a normal, (dof + 1) / (dof + r²) for a t."""
    heavy = (term.dof + 1.0) / (term.dof + term.residual**2)
    return term.on * jnp.where(term.dof == NORMAL, 1.0, heavy)


def start(data: Arrays, priors: PoolPriors) -> np.ndarray:
    """All parameters at their centres, scales at the median of their priors."""
    places = layout(data)
    theta = np.zeros(size(places))
    for name, (_, scale) in scale_priors(priors).items():
        theta[places[name][0]] = np.log(0.6745 * scale)
    return theta
