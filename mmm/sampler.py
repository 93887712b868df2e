"""The chains: NumPyro's NUTS tree, driven in compiled chunks, on a metric learned from draws and their gradients.

One program serves warm-up and recording and holds the model once: compiling it is most of a small fit. The panel's
figures are arguments of the program, not constants in it, so that another panel of the same shape finds it in JAX's
compile cache. Chains run in threads, one per core; each depends on its own key only, so the order of the threads cannot
change the draws.

Hoffman and Gelman (2014), "The No-U-Turn Sampler". The metric minimises the Fisher divergence (Seyboldt, Carlson,
Carpenter, "Preconditioning Hamiltonian Monte Carlo by minimizing Fisher divergence"; the idea of nutpie): the geometric
mean of the draws' covariance and the inverse of the gradients'. It is exact for a normal posterior as soon as there are
more draws than directions, where a covariance of draws alone is still noise.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.hmc_util import build_tree, dual_averaging, euclidean_kinetic_energy, velocity_verlet
from numpyro.infer.util import potential_energy

from mmm.design import Design
from mmm.model import model
from mmm.spec import ModelSpec

Progress = Callable[[float, float], None]  # (share done, seconds left)
Unravel = Callable[[Any], dict[str, Any]]

START_SPREAD = 1.5  # chains start this many Laplace standard deviations around the mode, so that R-hat can tell
CHUNK = 25  # draws between two reports of progress
DEEPEST = 10
SHRINK = 10.0  # draws' worth of the previous metric in a new one
DATA = ("past", "outcome", "observed", "noise", "scatter", "controls", "level", "size", "effect_location")


class ChainState(NamedTuple):
    """One chain, on the whitened scale."""

    position: Any  # (N,)
    energy: Any  # ()
    gradient: Any  # (N,)
    step: Any  # dual-averaging state of the log step size
    key: Any


@dataclass(frozen=True, slots=True)
class Metric:
    """Position = centre + root · whitened."""

    centre: np.ndarray  # (N,)
    root: np.ndarray  # (N, N)


def data_of(design: Design) -> dict[str, Any]:
    """The figures that a compiled program takes as arguments."""
    return {name: getattr(design, name) for name in DATA}


def energy_of(design: Design, spec: ModelSpec, unravel: Unravel) -> Callable[[dict[str, Any], Any], Any]:
    """Potential energy as a function of the data and the unconstrained vector."""

    def energy(data: dict[str, Any], x: Any) -> Any:
        return potential_energy(model, (dataclasses.replace(design, **data), spec), {}, unravel(x))

    return energy


def fisher_covariance(draws: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Geometric mean of cov(draws) (n, N) and cov(gradients)^-1, both shrunk towards the identity, shape (N, N).

    It solves M cov(gradients) M = cov(draws).
    """
    n, size = draws.shape
    a, b = (
        (n * np.atleast_2d(np.cov(x, rowvar=False)) + SHRINK * np.eye(size)) / (n + SHRINK) for x in (draws, gradients)
    )
    values, vectors = np.linalg.eigh(b)
    root, back = (vectors * np.sqrt(values)) @ vectors.T, (vectors / np.sqrt(values)) @ vectors.T
    middle, turned = np.linalg.eigh(root @ a @ root)
    out = back @ ((turned * np.sqrt(np.maximum(middle, 1e-12))) @ turned.T) @ back
    return (out + out.T) / 2


class Chains:
    """The moving part: one state per chain, the metric, and what was recorded so far."""

    def __init__(
        self,
        design: Design,
        energy: Callable[[dict[str, Any], Any], Any],
        gradient: Callable[[np.ndarray], tuple[float, np.ndarray]],
        metric: Metric,
        key: Any,
        *,
        chains: int,
        target_accept: float,
        threads: int,
    ) -> None:
        self._energy, self._gradient, self._accept = energy, gradient, target_accept
        self._data = jax.tree.map(jnp.asarray, data_of(design))
        self.metric = metric
        self._threads = threads or min(chains, os.cpu_count() or 1)
        start, self._key = jax.random.split(key)
        spread = START_SPREAD * np.asarray(jax.random.normal(start, (chains, len(metric.centre))))
        self._place(spread)
        self._program = jax.jit(self._chunk).lower(*self._arguments(0, adapt=True, depth=DEEPEST)).compile()
        self.recorded: list[list[dict[str, Any]]] = [[] for _ in self.states]

    def _place(self, whitened: np.ndarray) -> None:
        """States at these positions (chain, N), pulled to the centre until the density is finite there."""
        self._key, use = jax.random.split(self._key)
        self.states, start = [], np.log(2.0) - 0.25 * np.log(whitened.shape[1])
        for w, key in zip(whitened, jax.random.split(use, len(whitened)), strict=True):
            value, slope = self._gradient(self.metric.centre + self.metric.root @ w)
            for _ in range(20):
                if np.isfinite(value) and value < 1e12:
                    break
                w = 0.7 * w
                value, slope = self._gradient(self.metric.centre + self.metric.root @ w)
            step = dual_averaging()[0](start)
            state = ChainState(w, value, self.metric.root.T @ slope, (start, start, *step[2:]), key)
            self.states.append(jax.tree.map(jnp.asarray, state))

    def retune(self) -> None:
        """Learns the metric from what was recorded, and begins again where it ended; what was recorded is dropped."""
        drawn = self.stacked()
        w, g = (drawn[k].reshape(-1, drawn[k].shape[2]) for k in ("w", "gradient"))
        old, middle = self.metric, w.mean(axis=0)
        change = np.linalg.cholesky(fisher_covariance(w, g))
        self.metric = Metric(old.centre + old.root @ middle, old.root @ change)
        self._place(np.linalg.solve(change, (drawn["w"][:, -1] - middle).T).T)
        self.recorded = [[] for _ in self.states]

    def _chunk(self, data: Any, centre: Any, root: Any, state: ChainState, adapt: Any, depth: Any) -> Any:
        _, verlet = velocity_verlet(lambda w: self._energy(data, centre + root @ w), euclidean_kinetic_energy)
        _, average = dual_averaging()
        unit = jnp.ones_like(centre)

        def one(s: ChainState, _: None) -> tuple[ChainState, dict[str, Any]]:
            key, momentum_key, tree_key = jax.random.split(s.key, 3)
            size = jnp.exp(jnp.where(adapt, s.step[0], s.step[1]))
            momentum = jax.random.normal(momentum_key, centre.shape)
            begin = (s.position, momentum, s.energy, s.gradient)
            tree = build_tree(verlet, euclidean_kinetic_energy, begin, unit, size, tree_key,
                              max_tree_depth=(depth, DEEPEST))  # fmt: skip
            accept = tree.sum_accept_probs / tree.num_proposals
            moved = average(self._accept - accept, s.step)
            step = jax.tree.map(lambda a, b: jnp.where(adapt, a, b), moved, s.step)
            after = ChainState(tree.z_proposal, tree.z_proposal_pe, tree.z_proposal_grad, step, key)
            return after, {"w": after.position, "gradient": after.gradient, "energy": tree.z_proposal_energy,
                           "diverging": tree.diverging, "accept": accept, "steps": tree.num_proposals}  # fmt: skip

        return jax.lax.scan(one, state, None, length=CHUNK)

    def _arguments(self, chain: int, adapt: bool, depth: int) -> tuple[Any, ...]:
        centre, root = jnp.asarray(self.metric.centre), jnp.asarray(self.metric.root)
        return self._data, centre, root, self.states[chain], jnp.asarray(adapt), jnp.asarray(depth)

    def advance(self, steps: int, depth: int, progress: Progress | None, share: tuple[float, float]) -> None:
        """Moves every chain `steps` draws on while the step size adapts, without keeping them (the warm-up)."""
        self._run(steps, depth, progress, share, keep=False)

    def record(self, steps: int, depth: int, progress: Progress | None, share: tuple[float, float]) -> None:
        """Moves every chain `steps` draws on with a fixed step size and keeps them."""
        self._run(steps, depth, progress, share, keep=True)

    def _run(self, steps: int, depth: int, progress: Progress | None, share: tuple[float, float], keep: bool) -> None:
        rounds = -(-steps // CHUNK)
        done, total, begun = [0], rounds * len(self.states), time.monotonic()

        def run(chain: int) -> None:
            with jax.enable_x64(True):  # the setting is per thread
                for _ in range(rounds):
                    self.states[chain], out = self._program(*self._arguments(chain, not keep, depth))
                    if keep:
                        self.recorded[chain].append(jax.device_get(out))
                    else:
                        jax.block_until_ready(out)
                    done[0] += 1
                    if progress is not None:
                        part = done[0] / total
                        left = (time.monotonic() - begun) / part * (1 - part)
                        progress(share[0] + (share[1] - share[0]) * part, left)

        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(run, range(len(self.states))))

    def stacked(self) -> dict[str, Any]:
        """Recorded draws, leading axes (chain, draw)."""
        joined = [jax.tree.map(lambda *a: np.concatenate(a), *chunks) for chunks in self.recorded]
        return jax.tree.map(lambda *a: np.stack(a), *joined)
