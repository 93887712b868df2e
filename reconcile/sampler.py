"""Draws of the pooled model: Gauss-Newton to a centre, then Hamiltonian Monte Carlo in coordinates whitened there.

Every credit, bias and walk is linear on the log scale, so that in whitened coordinates the posterior is close to a
standard normal, and trajectories of a quarter turn (pi / 2, jittered) leave it well mixed (Neal 2011, "MCMC using
Hamiltonian dynamics"; step size by dual averaging, Hoffman and Gelman 2014). The chains move together, one call of the
compiled gradient a step: only the gradient is compiled, which takes seconds where a whole compiled sampler takes most
of a minute, and it depends on shapes only, so worlds of one shape share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from threadpoolctl import threadpool_limits

from reconcile.model import SCALES, State, layout, log_density, robust_weight, start, state, terms
from reconcile.prepare import Arrays
from reconcile.priors import PoolPriors

MAX_RHAT = 1.05
MIN_ESS = 400.0
TARGET_ACCEPT = 0.8
TURN = np.pi / 2
MAX_STEPS = 60  # of one trajectory
DIVERGENT = 1000.0  # error of the energy
NEWTON_STEPS = 25
NEWTON_STRIDE = 1.0  # no parameter moves further in one step
SCALE_SD = 0.5  # of the log of a spread, in the first metric
BATCH = 250  # parameter vectors read at a time
DIFFERENCE = 1e-5  # of a parameter, for central differences of residuals
# The graphs are small and many: full optimisation of the machine code costs more than it saves.
QUICK = {"xla_backend_optimization_level": 1}

Metric = tuple[np.ndarray, np.ndarray]  # centre (D,), root (D, D): theta = centre + root v


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to sample; the answer's distribution does not depend on it."""

    chains: int = 4
    pilot: int = 150  # draws around the first centre
    warmup: int = 200  # draws around the second; its first half also scales the coordinates
    draws: int = 500
    rounds: int = 9  # times that draws are added until the gate is passed; a fresh world needed more than 3


@dataclass(frozen=True, slots=True)
class Sampled:
    """Posterior draws, chains joined (S = chains × draws), and their health."""

    theta: np.ndarray  # (S, D)
    level: np.ndarray  # (S, C) log I over all periods
    share: np.ndarray  # (S, C, T) log share of each period
    kappa: np.ndarray  # (S, C)
    effect: np.ndarray  # (S, K) predicted lifts
    log_credit: np.ndarray  # (S, J, C, T) expected credit, before the shocks of its cell
    shock: np.ndarray  # (S, G)
    own: np.ndarray  # (S, G)
    rhat: float  # largest split R-hat of log I over all periods and per period
    ess: float  # smallest effective sample size of the same
    divergences: int

    @property
    def log_outcome(self) -> np.ndarray:
        """log I, (S, C, T)."""
        return np.asarray(self.level[:, :, None] + self.share)

    @property
    def healthy(self) -> bool:
        """Whether the draws may be published."""
        return self.rhat < MAX_RHAT and self.ess >= MIN_ESS


@partial(jax.jit, static_argnames=("priors",), compiler_options=QUICK)
def _energy(v: Any, centre: Any, root: Any, data: Arrays, priors: PoolPriors) -> Any:
    """Potential energy (chains,) and its gradient (chains, D) at whitened positions (chains, D)."""
    return jax.vmap(jax.value_and_grad(lambda x: -log_density(centre + root @ x, data, priors)))(v)


@partial(jax.jit, static_argnames=("priors",), compiler_options=QUICK)
def _stack(theta: Any, data: Arrays, priors: PoolPriors) -> tuple[Any, Any]:
    """Residuals and their robust weights (B, n) at parameter vectors (B, D)."""

    def one(x: Any) -> tuple[Any, Any]:
        found = terms(x, data, priors).values()
        return jnp.concatenate([t.residual for t in found]), jnp.concatenate([robust_weight(t) for t in found])

    return jax.vmap(one)(theta)


@partial(jax.jit, static_argnames=("priors",), compiler_options=QUICK)
def _meaning(theta: Any, data: Arrays, priors: PoolPriors) -> Any:
    return jax.vmap(lambda x: state(x, data, priors))(theta)


def meaning(theta: np.ndarray, data: Arrays, priors: PoolPriors) -> State:
    """States of parameter vectors (B, D), in batches of one size so that it is compiled once."""
    whole = -(-len(theta) // BATCH) * BATCH
    padded = np.concatenate([theta, np.repeat(theta[-1:], whole - len(theta), axis=0)])
    with jax.enable_x64(True):
        found = [jax.device_get(_meaning(part, data, priors)) for part in np.split(padded, whole // BATCH)]
    return State(*(np.concatenate(v)[: len(theta)] for v in zip(*found, strict=True)))


def scale_places(data: Arrays) -> np.ndarray:
    """Positions of the spreads in the flat vector."""
    places = layout(data)
    return np.concatenate([np.arange(places[n][0].start, places[n][0].stop) for n in SCALES])


def linearised(theta: np.ndarray, data: Arrays, priors: PoolPriors) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals (n,), weights (n,) and Jacobian (n, D) by central differences; spreads are held fixed."""
    d = len(theta)
    nudged = np.concatenate([theta[None], theta + DIFFERENCE * np.eye(d), theta - DIFFERENCE * np.eye(d)])
    residual, weight = (np.asarray(v) for v in _stack(nudged, data, priors))
    jacobian = (residual[1 : d + 1] - residual[d + 1 :]).T / (2 * DIFFERENCE)
    jacobian[:, scale_places(data)] = 0.0
    return residual[0], weight[0], jacobian


def centre(data: Arrays, priors: PoolPriors, theta: np.ndarray | None = None, steps: int = NEWTON_STEPS) -> Metric:
    """Point near the mode given the spreads in `theta`, and a root of the covariance there."""
    at = start(data, priors) if theta is None else theta.copy()
    free = np.zeros(len(at))
    free[scale_places(data)] = SCALE_SD**-2
    information = np.eye(len(at))
    for _ in range(steps):
        residual, weight, jacobian = linearised(at, data, priors)
        information = (jacobian * weight[:, None]).T @ jacobian + np.diag(free) + 1e-9 * np.eye(len(at))
        move = np.clip(-np.linalg.solve(information, jacobian.T @ (weight * residual)), -NEWTON_STRIDE, NEWTON_STRIDE)
        at = at + move
        if np.abs(move).max() < 1e-2:
            break
    return at, np.linalg.inv(np.linalg.cholesky(information)).T


class _Chains:
    """Positions of all chains in one metric, and the step that suits it."""

    def __init__(self, rng: np.random.Generator, data: Arrays, priors: PoolPriors, metric: Metric, v: np.ndarray):
        self._rng, self._args, self.metric = rng, (data, priors), metric
        self.v = v
        self.energy, self.gradient = self._at(v)
        self.step, self.divergences = 0.4, 0
        self._log_mean, self._error, self._count = np.log(0.4), 0.0, 0
        self._aim = np.log(4.0)

    def _at(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, gradient = _energy(v, *self.metric, *self._args)
        return np.asarray(value), np.asarray(gradient)

    def move(self) -> float:
        """One trajectory of every chain; their mean probability of acceptance."""
        count = int(np.clip(np.ceil(self._rng.uniform(0.5, 1.5) * TURN / self.step), 1, MAX_STEPS))
        momentum = self._rng.standard_normal(self.v.shape)
        before = self.energy + 0.5 * (momentum**2).sum(axis=1)
        v, gradient, energy = self.v, self.gradient, self.energy
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(count):
                momentum = momentum - 0.5 * self.step * gradient
                v = v + self.step * momentum
                energy, gradient = self._at(v)
                momentum = momentum - 0.5 * self.step * gradient
            rise = energy + 0.5 * (momentum**2).sum(axis=1) - before
        rise = np.where(np.isfinite(rise) & np.isfinite(gradient).all(axis=1), rise, np.inf)
        chance = np.exp(np.minimum(-rise, 0.0))
        take = self._rng.uniform(size=len(chance)) < chance
        self.v = np.where(take[:, None], v, self.v)
        self.energy = np.where(take, energy, self.energy)
        self.gradient = np.where(take[:, None], gradient, self.gradient)
        self.divergences += int((rise > DIVERGENT).sum())
        return float(chance.mean())

    def adapt(self, draws: int) -> np.ndarray:
        """Moves with dual averaging of the step size; the positions of the later half, (chains, draws // 2, D)."""
        kept = []
        for n in range(draws):
            chance = self.move()
            self._count += 1
            share = 1.0 / (self._count + 10.0)
            self._error = (1 - share) * self._error + share * (TARGET_ACCEPT - chance)
            log_step = self._aim - np.sqrt(self._count) / 0.05 * self._error
            log_step = min(log_step, np.log(1.5))
            fade = self._count**-0.75
            self._log_mean = fade * log_step + (1 - fade) * self._log_mean
            self.step = float(np.exp(log_step))
            if n >= draws // 2:
                kept.append(self.v)
        self.step = float(np.exp(self._log_mean))
        self.divergences = 0
        return np.stack(kept, axis=1)

    def record(self, draws: int) -> np.ndarray:
        """Positions theta (chains, draws, D)."""
        out = np.empty((len(self.v), draws, self.v.shape[1]))
        for n in range(draws):
            self.move()
            out[:, n] = self.v
        return np.asarray(self.metric[0] + out @ self.metric[1].T)


def sample(data: Arrays, priors: PoolPriors, seed: int, effort: Effort = Effort()) -> Sampled:
    """Draws in float64, the same for the same seed; up to `effort.rounds` times more of them while they are too few."""
    with jax.enable_x64(True), threadpool_limits(1, user_api="blas"):
        rng = np.random.default_rng(seed)
        data = jax.tree.map(jnp.asarray, data)
        metric = centre(data, priors)
        first = _Chains(rng, data, priors, metric, rng.standard_normal((effort.chains, len(metric[0]))))
        pilot = metric[0] + first.adapt(effort.pilot) @ metric[1].T
        chains = _recentred(rng, data, priors, pilot)
        chains = _rescaled(rng, data, priors, chains, chains.adapt(effort.warmup // 2))
        chains.adapt(effort.warmup - effort.warmup // 2)
        kept = [chains.record(effort.draws)]
        found = _summary(kept, data, priors, chains.divergences)
        for _ in range(effort.rounds):
            if found.healthy:
                break
            kept.append(chains.record(effort.draws))
            found = _summary(kept, data, priors, chains.divergences)
        return found


def _recentred(rng: np.random.Generator, data: Arrays, priors: PoolPriors, pilot: np.ndarray) -> _Chains:
    """Chains where the pilot's ended, in the metric of the spreads that it found."""
    flat = pilot.reshape(-1, pilot.shape[2])
    at, places = flat.mean(axis=0), scale_places(data)
    root = centre(data, priors, at, steps=1)[1]
    root[:, places] = 0.0
    root[places, :] = 0.0
    root[places, places] = np.maximum(flat[:, places].std(axis=0), 0.05)
    return _Chains(rng, data, priors, (at, root), np.linalg.solve(root, (pilot[:, -1] - at).T).T)


def _rescaled(rng: np.random.Generator, data: Arrays, priors: PoolPriors, chains: _Chains, seen: np.ndarray) -> _Chains:
    """The same chains with every whitened coordinate divided by its spread (shrunk towards 1: few draws)."""
    n = seen.shape[0] * seen.shape[1]
    spread = np.sqrt((n * seen.var(axis=(0, 1)) + 20.0) / (n + 20.0))
    at, root = chains.metric
    return _Chains(rng, data, priors, (at, root * spread), chains.v / spread)


def _summary(kept: list[np.ndarray], data: Arrays, priors: PoolPriors, divergences: int) -> Sampled:
    theta = np.concatenate(kept, axis=1)
    chains, draws, d = theta.shape
    s = meaning(theta.reshape(-1, d), data, priors)
    watched = np.concatenate([s.level[:, :, None], s.level[:, :, None] + s.share], axis=2).reshape(chains, draws, -1)
    return Sampled(
        theta.reshape(-1, d), s.level, s.share, s.kappa, s.effect, s.log_credit, s.shock, s.own,
        rhat=float(np.max(split_gelman_rubin(watched))), ess=float(np.min(effective_sample_size(watched))),
        divergences=divergences,
    )  # fmt: skip
