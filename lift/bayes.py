"""Bayesian synthetic control whose predictive carries autocorrelation (NumPyro).

| on paper | here | dims | unit |
|---|---|---|---|
| y[t] / L | y | period | share of the treated level before the test |
| x[j,t] / m[j] − 1 | x | donor, period | share of the donor's mean before the test |
| w ~ Dirichlet(1), b ~ N(1, 0.5²) | weights, slope | donor | none |
| sigma ~ HalfNormal(2 s), phi ~ Beta(1.5, 1.5) | | | s: sd of y − mean donor before the test |

y = 1 + b w'x + drift and weekdays (integrated out) + AR(1)(sigma, phi) + released noise of y and w'x, known per cell.
The window is forecast given the history for every draw, so the sum's spread holds weights, sigma, phi and the
movement's memory. iid errors in its place make intervals far too short (the trap of the published implementations).
Estimate: mean of the draws; interval: equal tails; p: twice the smaller tail, + 1. All from the same draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jla
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

from contracts.errors import ContractError
from lift.controls import MIN_PRE
from lift.gap import DRIFT_SD, WEEKDAY_SD, weekday_columns
from lift.protocol import GeoResult, GeoTest, check_history, check_window

_JITTER = 1e-6


def _movement(lags: jax.Array, sigma: jax.Array, phi: jax.Array) -> jax.Array:
    return sigma**2 * phi**lags


def _model(y: jax.Array, x: jax.Array, lags: jax.Array, y_noise: jax.Array, x_noise: jax.Array, fixed: jax.Array,
           spread: jax.Array) -> None:  # fmt: skip
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(x.shape[0])))
    slope = numpyro.sample("slope", dist.Normal(1.0, 0.5))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0 * spread))
    phi = numpyro.sample("phi", dist.Beta(1.5, 1.5))
    noise = y_noise + slope**2 * (weights**2 @ x_noise)
    covariance = _movement(lags, sigma, phi) + fixed + jnp.diag(noise + _JITTER)
    numpyro.sample("y", dist.MultivariateNormal(1.0 + slope * (weights @ x), covariance_matrix=covariance), obs=y)


@lru_cache(maxsize=8)
def _sampler(warmup: int, draws: int) -> MCMC:
    """One sampler per setting, so that tests of one shape compile once."""
    kernel = NUTS(_model, target_accept_prob=0.9)
    return MCMC(kernel, num_warmup=warmup, num_samples=draws, progress_bar=False, jit_model_args=True)


@jax.jit
def _forecast(
    draw: dict[str, jax.Array], y: jax.Array, x: jax.Array, ahead: jax.Array, lags: jax.Array,
    noise: dict[str, jax.Array], fixed: jax.Array,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Mean (n,) and covariance (n, n) of the window without a test, its own released noise included."""
    p = len(y)
    movement = _movement(lags, draw["sigma"], draw["phi"]) + fixed
    released = noise["y"] + draw["slope"] ** 2 * (draw["weights"] ** 2 @ noise["x"])
    whole = movement + jnp.diag(released + _JITTER)
    factor = jla.cho_factor(whole[:p, :p], lower=True)
    cross = movement[:p, p:]
    residual = y - 1.0 - draw["slope"] * (draw["weights"] @ x)
    mean = 1.0 + draw["slope"] * (draw["weights"] @ ahead) + cross.T @ jla.cho_solve(factor, residual)
    return mean, whole[p:, p:] - cross.T @ jla.cho_solve(factor, cross)


@dataclass(frozen=True, slots=True)
class BayesianControl:
    """Configuration. One chain of `draws` after `warmup`; `seed` makes it repeatable."""

    warmup: int = 400
    draws: int = 600
    seed: int = 0
    level: float = 0.95

    @property
    def name(self) -> str:
        """'bayes_control'."""
        return "bayes_control"

    def __call__(self, test: GeoTest, /) -> GeoResult:
        """Effect of one test. Raises ContractError for too short a history, no complete donor, a non-positive level."""
        pre = check_history(test, MIN_PRE)
        y, y_noise = test.treated_sum()
        win = check_window(test, np.isfinite(y))
        periods = np.r_[pre, win]
        means = np.nanmean(test.kpi[np.ix_(test.donors, pre)], axis=1)
        whole = np.isfinite(test.kpi[np.ix_(test.donors, periods)]).all(axis=1) & (means > 0)
        donors, level = test.donors[whole], float(y[pre].mean())
        if not len(donors) or level <= 0:
            raise ContractError(
                f"test {test.name!r} needs treated geos with a positive KPI and a control geo without a missing KPI."
            )
        scaled = test.kpi[np.ix_(donors, periods)] / means[whole][:, None]
        noise = {
            "y": y_noise[periods] / level**2,
            "x": test.noise[np.ix_(donors, periods)] / means[whole][:, None] ** 2,
        }
        sums, paths, chosen = self._draw(test, y[periods] / level, scaled - 1, noise, periods, len(pre))
        return _result(self, test, donors, means[whole], y, level, win, sums, paths, chosen, noise, len(pre))

    def _draw(
        self, test: GeoTest, y: np.ndarray, x: np.ndarray, noise: dict[str, np.ndarray], periods: np.ndarray, p: int
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Draws of the effect's sum (D,) and path (D, n), and of the parameters."""
        lags = np.abs(periods[:, None] - periods).astype(float)
        years = (periods - periods[:p].mean()) * test.period_days / 365.25
        week = weekday_columns(periods, test.period_days)
        fixed = DRIFT_SD**2 * np.outer(years, years) + WEEKDAY_SD**2 * week @ week.T
        spread = float((y[:p] - x[:, :p].mean(axis=0)).std())
        sampler = _sampler(self.warmup, self.draws)
        key = jax.random.PRNGKey(self.seed)
        sampler.run(
            key, jnp.asarray(y[:p]), jnp.asarray(x[:, :p]), jnp.asarray(lags[:p, :p]), jnp.asarray(noise["y"][:p]),
            jnp.asarray(noise["x"][:, :p]), jnp.asarray(fixed[:p, :p]), jnp.asarray(spread),
        )  # fmt: skip
        draws = sampler.get_samples()
        known = {k: jnp.asarray(v) for k, v in noise.items()}
        mean, covariance = jax.vmap(
            lambda d: _forecast(
                d, jnp.asarray(y[:p]), jnp.asarray(x[:, :p]), jnp.asarray(x[:, p:]), jnp.asarray(lags), known,
                jnp.asarray(fixed),
            )
        )(draws)  # fmt: skip
        shocks = jax.random.multivariate_normal(jax.random.fold_in(key, 1), mean, covariance, method="svd")
        paths = y[p:] - np.asarray(shocks, float)
        return paths.sum(axis=1), paths, {k: np.asarray(v, float) for k, v in draws.items()}


def _result(
    config: BayesianControl, test: GeoTest, donors: np.ndarray, means: np.ndarray, y: np.ndarray, level: float,
    win: np.ndarray, sums: np.ndarray, paths: np.ndarray, draws: dict[str, Any], noise: dict[str, np.ndarray], p: int,
) -> GeoResult:  # fmt: skip
    stretch = level * len(test.window) / len(win)
    total = stretch * sums
    tail = (1 - config.level) / 2
    lower, upper = np.quantile(total, [tail, 1 - tail])
    p_value = min(2 * (1 + min(int((total > 0).sum()), int((total < 0).sum()))) / (1 + len(total)), 1.0)
    mixed = (draws["slope"][:, None] * draws["weights"]).mean(axis=0) * level / means
    released = (
        (stretch / level) ** 2
        * level**2
        * float(noise["y"][p:].sum() + (mixed * means / level) ** 2 @ noise["x"][:, p:].sum(axis=1))
    )
    weights = np.zeros(test.kpi.shape)
    sign = np.zeros(test.kpi.shape[1])
    sign[win] = stretch / level
    weights[test.treated], weights[donors] = sign, -np.outer(mixed, sign)
    inside = np.isin(test.window, win)
    path, path_sd = np.full(len(test.window), np.nan), np.full(len(test.window), np.nan)
    path[inside], path_sd[inside] = level * paths.mean(axis=0), level * paths.std(axis=0, ddof=1)
    without = level + mixed @ (test.kpi[donors] - means[:, None])
    without[win] = y[win] - level * paths.mean(axis=0)
    donor_weights = np.zeros(len(test.donors))
    donor_weights[np.isin(test.donors, donors)] = mixed
    sd = float(total.std(ddof=1))
    return GeoResult(
        estimator=config.name, inference="posterior draws", mean=float(total.mean()), path=path, path_sd=path_sd,
        std_error=sd, dof=float("nan"), level=config.level, lower=float(lower), upper=float(upper), p_value=p_value,
        noise_variance_share=min(released / sd**2, 1.0), cell_weights=weights, counterfactual=without,
        donor_weights=donor_weights, own_variance=np.zeros(len(test.kpi)), phi=float(draws["phi"].mean()),
        placebos=total - total.mean(),
        diagnostics={"sigma": float(draws["sigma"].mean()), "slope": float(draws["slope"].mean())},
    )  # fmt: skip
