"""The pooled model in NumPyro, and its sampler.

| on paper | here | prior or likelihood |
|---|---|---|
| log I[c], log q[k] | log_i, log_q | Gaussian copula with g-distributed margins, from the uncalibrated model's draws |
| b[c] | mmm_bias | mmm_bias_sd · t(dof), added to log I |
| y[k] | lift | t(dof, sign · I · q, sqrt(se² + (lift_bias_sd · effect)²)), multivariate where cells are correlated |
| beta[j], gamma[f] | model_bias, family_bias | N(0, model_bias_sd), N(0, family_bias_sd) |
| delta[c] | channel_bias | tau · t(dof), tau ~ channel_spread_min + HalfNormal |
| log a[j,c] | log_credit | t(dof, log I + beta + gamma + delta, rule spread) |
| A[j,c] | credit | N(a, released sd): zero and negative credits are legal |
| closure | closure | factor log Phi((KPI − sum I) / sd): the base is positive; no likelihood |
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS, init_to_value
from scipy.sparse.csgraph import connected_components

from reconcile.inputs import PoolPriors, Prepared

CHAINS = 4
WARMUP = 600
DRAWS = 600
MIN_ESS = 400.0


@dataclass(frozen=True, slots=True)
class Sampled:
    """Posterior draws, chains joined (S = chains × draws), and their health."""

    log_i: np.ndarray  # (S, C)
    log_q: np.ndarray  # (S, K)
    log_credit: np.ndarray  # (S, P)
    biases: dict[str, np.ndarray]  # model (S, J), family (S, F), channel (S, C), tau (S,), rule_spread (S,)
    rhat: float
    ess: float  # of the published figures: log I and log credit
    divergences: int
    draws: int


def lift_groups(cov: np.ndarray) -> list[np.ndarray]:
    """Positions of lifts that share noise, one array per connected group of the covariance (K, K)."""
    if not len(cov):
        return []
    scale = np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    count, label = connected_components(np.abs(cov) > 1e-9 * scale, directed=False)
    return [np.flatnonzero(label == g) for g in range(count)]


def _log_latents(data: Prepared, priors: PoolPriors) -> tuple[jax.Array, jax.Array]:
    """log I (C,) with the model's bias, and log q (K,)."""
    c = len(data.from_mmm)
    u = numpyro.sample("u", dist.Normal(0.0, 1.0).expand([len(data.mean)]).to_event(1))
    z = jnp.asarray(np.linalg.cholesky(data.corr)) @ u
    g = data.margin.skew
    safe = np.where(g == 0, 1.0, g)
    bent = jnp.where(g == 0, z, jnp.expm1(safe * z) / safe)
    logs = data.margin.centre + data.margin.scale * bent
    bias = numpyro.sample("mmm_bias", dist.StudentT(priors.dof, 0.0, 1.0).expand([c]).to_event(1))
    log_i = logs[:c] + priors.mmm_bias_sd * data.from_mmm * bias
    return numpyro.deterministic("log_i", log_i), numpyro.deterministic("log_q", logs[c:])


def _lift_likelihood(data: Prepared, priors: PoolPriors, log_i: jax.Array, log_q: jax.Array) -> None:
    effect = data.lift_sign * jnp.exp(log_i[data.lift_channel] + log_q)
    extra = (priors.lift_bias_sd * effect) ** 2
    for n, group in enumerate(lift_groups(data.lift_cov)):
        dof = float(data.lift_dof[group].min())
        if len(group) == 1:
            k = int(group[0])
            scale = jnp.sqrt(data.lift_cov[k, k] + extra[k])
            numpyro.sample(f"lift_{n}", dist.StudentT(dof, effect[k], scale), obs=data.lift[k])
        else:
            root = jnp.linalg.cholesky(data.lift_cov[np.ix_(group, group)] + jnp.diag(extra[group]))
            likelihood = dist.MultivariateStudentT(dof, effect[group], root)
            numpyro.sample(f"lift_{n}", likelihood, obs=data.lift[group])


def _credit_likelihood(data: Prepared, priors: PoolPriors, log_i: jax.Array) -> None:
    heavy = dist.StudentT(priors.dof, 0.0, 1.0)
    c, j, f = len(data.family), len(data.models), int(data.family.max()) + 1
    at = data.credit_channel
    family = numpyro.sample("family", dist.Normal(0.0, priors.family_bias_sd).expand([f]).to_event(1))
    tau = priors.channel_spread_min + numpyro.sample("tau_raw", dist.HalfNormal(priors.channel_bias_scale))
    spread = priors.rule_spread_min + numpyro.sample("rule_spread_raw", dist.HalfNormal(priors.rule_spread_scale))
    channel = tau * numpyro.sample("channel_t", heavy.expand([c]).to_event(1))
    base = log_i + family[data.family] + channel
    near, far = np.flatnonzero(data.centred), np.flatnonzero(~data.centred)
    # The level of a model plus the mean over its channels is what the credits pin down: sampled as one figure. A
    # channel whose credits are mere noise has no place in that mean: its own bias wanders down a long tail.
    middle = base[at][near if len(near) else far].mean()
    top = numpyro.sample("top", dist.Normal(middle, priors.model_bias_sd).expand([j]).to_event(1))
    level = top - middle
    expected = base[at] + level[data.credit_model]
    # A credit known to a few per cent is sampled itself; a noisy one through its deviation: no funnel either way.
    log_credit = expected
    if len(near):
        own = numpyro.sample("log_credit_near", dist.StudentT(priors.dof, expected[near], spread).to_event(1))
        log_credit = log_credit.at[near].set(own)
    if len(far):
        off = numpyro.sample("log_credit_far", heavy.expand([len(far)]).to_event(1))
        log_credit = log_credit.at[far].add(spread * off)
    numpyro.sample("credit", dist.Normal(jnp.exp(log_credit), data.credit_sd).to_event(1), obs=data.credit)
    for name, value in (("model", level), ("channel", channel), ("tau", tau), ("rule_spread", spread)):
        numpyro.deterministic(name, value)
    numpyro.deterministic("log_credit", log_credit)


def pooled_model(data: Prepared, priors: PoolPriors) -> None:
    """NumPyro model of DESIGN section 5 (module docstring gives the terms)."""
    log_i, log_q = _log_latents(data, priors)
    if len(data.lift):
        _lift_likelihood(data, priors, log_i, log_q)
    if len(data.credit):
        _credit_likelihood(data, priors, log_i)
    numpyro.factor("closure", log_ndtr((data.kpi - jnp.exp(log_i).sum()) / data.closure_sd))


def _run(data: Prepared, priors: PoolPriors, seed: int, draws: int) -> Sampled:
    start = {"log_credit_near": np.log(data.credit[data.centred])} if data.centred.any() else {}
    kernel = NUTS(pooled_model, target_accept_prob=0.95, dense_mass=True, init_strategy=init_to_value(values=start))
    mcmc = MCMC(
        kernel, num_warmup=WARMUP, num_samples=draws, num_chains=CHAINS, chain_method="vectorized", progress_bar=False
    )
    mcmc.run(jax.random.PRNGKey(seed), data, priors, extra_fields=("diverging",))
    chains = {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}
    # A credit that may be zero gets no factor; its log has no lower end, and nobody reads it.
    published = [chains["log_i"]] + ([chains["log_credit"][..., data.printed]] if data.printed.any() else [])
    watched = [*published, *(chains[k] for k in ("tau", "model") if k in chains)]
    s = CHAINS * draws
    flat = {k: v.reshape(s, *v.shape[2:]) for k, v in chains.items()}
    return Sampled(
        log_i=flat["log_i"],
        log_q=flat["log_q"],
        log_credit=flat.get("log_credit", np.empty((s, 0))),
        biases={k: flat[k] for k in ("model", "family", "channel", "tau", "rule_spread") if k in flat},
        rhat=max(float(np.max(split_gelman_rubin(v))) for v in watched),
        ess=min(float(np.min(effective_sample_size(v))) for v in published),
        divergences=int(np.asarray(mcmc.get_extra_fields()["diverging"]).sum()),
        draws=s,
    )


def sample(data: Prepared, priors: PoolPriors, seed: int) -> Sampled:
    """Draws of the pooled model in float64, the same for the same seed; once more with 4 × the draws if ESS < 400."""
    with jax.enable_x64(True):
        first = _run(data, priors, seed, DRAWS)
        return first if first.ess >= MIN_ESS else _run(data, priors, seed, 4 * DRAWS)
