"""A panel to draws from the posterior: mode and curvature, chains, more draws until the gate passes.

A refresh begins from an earlier fit's metric (`Start`) and needs neither mode nor pilot.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import constrain_fn
from threadpoolctl import threadpool_limits

from contracts.panel import Panel
from mmm.collapse import draw_linear
from mmm.design import Design, build_design
from mmm.diagnostics import GateReport, gate
from mmm.laplace import Gradient, laplace, template
from mmm.lifts import LiftTerm
from mmm.media import Params
from mmm.model import SITE, model
from mmm.posterior import Posterior
from mmm.sampler import Chains, Metric, Progress, Unravel, data_of, energy_of
from mmm.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFlags:
    """How long and how parallel; the answer's distribution does not depend on these."""

    chains: int = 4
    warmup: int = 75  # draws that adapt the step size, before and after the pilot
    pilot: int = 100  # draws a chain that give the metric
    draws: int = 500
    doublings: int = 3  # times that the draws may be doubled to pass the gate
    target_accept: float = 0.85
    warmup_tree_depth: int = 6
    max_tree_depth: int = 9
    threads: int = 0  # 0: one per core


@dataclass(frozen=True, slots=True)
class Fit:
    """A posterior and whether it may be published."""

    posterior: Posterior
    report: GateReport
    start: Start | None = None  # for a warm start of the next fit


def fit(
    panel: Panel,
    spec: ModelSpec,
    terms: Sequence[LiftTerm] = (),
    *,
    seed: int,
    flags: RunFlags = RunFlags(),
    progress: Progress | None = None,
    start: Start | None = None,
) -> Fit:
    """Fits the collapsed model. Doubles the draws up to `flags.doublings` times until the gate passes.

    `start` is an earlier fit's (a refresh): used where it belongs to the same sites, so that mode, curvature and pilot
    are left out; the answer's distribution does not depend on it. The result of a failed gate is returned, marked by
    `report.passed`; nothing is raised for it. Raises ContractError when the panel cannot carry the model.
    """
    # the matrices are small: several BLAS threads per call only wait for each other (measured: 20 times slower)
    with jax.enable_x64(True), threadpool_limits(1, user_api="blas"):
        target = target_of(build_design(panel, spec, terms), spec)
        warm = start is not None and start.fits(target.sites)
        chains = _chains(target, seed, flags, start.metric if warm and start is not None else None)
        chains.advance(flags.warmup, flags.warmup_tree_depth, progress, share=(0.0, 0.1))
        if not warm:
            chains.record(flags.pilot, flags.warmup_tree_depth, progress, share=(0.1, 0.25))
            chains.retune()
            chains.advance(flags.warmup, flags.max_tree_depth, progress, share=(0.25, 0.35))
        more, rounds = flags.draws, 0
        chains.record(more, flags.max_tree_depth, progress, share=(0.35, 0.95))
        while True:
            posterior = _assemble(target, chains, seed)
            report = gate(panel, target.design, posterior)
            if report.passed or rounds == flags.doublings:
                break
            rounds += 1
            chains.record(more, flags.max_tree_depth, progress, share=(0.35, 0.95))
            more *= 2
    if progress is not None:
        progress(1.0, 0.0)
    return Fit(posterior, report, Start(*_signature(target.sites), chains.metric))


def _chains(target: Target, seed: int, flags: RunFlags, metric: Metric | None) -> Chains:
    if metric is None:
        mode, covariance = laplace(target.gradient, np.zeros(target.size))
        metric = Metric(mode, np.linalg.cholesky(covariance))
    return Chains(target.design, target.energy, target.gradient, metric, jax.random.key(seed), chains=flags.chains,
                  target_accept=flags.target_accept, threads=flags.threads)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Start:
    """What an earlier fit knows about the sampler's scale: a warm start needs no mode, no curvature and no pilot.

    `names` and `sizes` are the sampled sites in order; a model with other sites cannot use it.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    metric: Metric

    def fits(self, other: Mapping[str, np.ndarray]) -> bool:
        """Whether a model with these sites moves in the same directions."""
        return (self.names, self.sizes) == _signature(other)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays for `numpy.savez`."""
        return {"names": np.array(self.names), "sizes": np.array(self.sizes), "centre": self.metric.centre,
                "root": self.metric.root}  # fmt: skip

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> Start:
        """Inverse of `to_arrays`."""
        names, sizes = tuple(str(n) for n in arrays["names"]), tuple(int(n) for n in arrays["sizes"])
        return Start(names, sizes, Metric(np.asarray(arrays["centre"]), np.asarray(arrays["root"])))


def _signature(sites: Mapping[str, np.ndarray]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    return tuple(sorted(sites)), tuple(int(np.size(sites[n])) for n in sorted(sites))


@dataclass(frozen=True, slots=True)
class Target:
    """The density of one design on the unconstrained scale, compiled once."""

    design: Design
    spec: ModelSpec
    sites: Mapping[str, np.ndarray]  # zeros of each site's shape
    unravel: Unravel
    energy: Callable[[dict[str, Any], Any], Any]
    gradient: Gradient

    @property
    def size(self) -> int:
        """Number of directions N."""
        return sum(int(np.size(v)) for v in self.sites.values())

    def constrain(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """All sites on their own scale from unconstrained draws (..., N)."""

        def one(vector: Any) -> dict[str, Any]:
            return constrain_fn(model, (self.design, self.spec), {}, self.unravel(vector), return_deterministic=True)

        out = jax.device_get(jax.jit(jax.vmap(one))(x.reshape(-1, x.shape[-1])))
        return {k: np.asarray(v).reshape(*x.shape[:-1], *v.shape[1:]) for k, v in out.items()}


def target_of(design: Design, spec: ModelSpec) -> Target:
    """Compiles the density and its gradient."""
    sites = template(design, spec)
    flat, unravel = ravel_pytree(sites)
    energy, data = energy_of(design, spec, unravel), jax.tree.map(jnp.asarray, data_of(design))
    program = jax.jit(jax.value_and_grad(energy, argnums=1)).lower(data, flat).compile()

    def gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = program(data, jnp.asarray(x))
        return float(value), np.asarray(slope)

    return Target(design, spec, sites, unravel, energy, gradient)


def _assemble(target: Target, chains: Chains, seed: int) -> Posterior:
    drawn = chains.stacked()
    x = chains.metric.centre + drawn["w"] @ chains.metric.root.T
    sites = target.constrain(x)
    params = {name: sites[f"{SITE}{name}"] for name in Params._fields}
    local, shared = _linear_draws(target.design, params, seed)
    return Posterior(
        channels=target.design.channels,
        params=params,
        sampled={k: v for k, v in sites.items() if not k.startswith(SITE)},
        local=local,
        shared=shared,
        divergences=int(drawn["diverging"].sum()),
        accept=float(drawn["accept"].mean()),
        seed=seed,
        spec_hash=target.spec.hash(),
        energy=drawn["energy"],
    )


def _linear_draws(design: Design, params: Mapping[str, np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact draws of the linear part for every recorded draw, leading axes (chain, draw)."""
    chains, draws = params["theta"].shape[:2]
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), (chains, draws))

    def one(data: dict[str, Any], args: tuple[Params, Any]) -> tuple[Any, Any]:
        whole = dataclasses.replace(design, **data)
        return jax.lax.map(lambda a: draw_linear(whole, *a), args)

    program, data = jax.jit(one), jax.tree.map(jnp.asarray, data_of(design))

    def of(chain: int) -> Any:
        with jax.enable_x64(True):
            mine = Params(**{k: jnp.asarray(v[chain]) for k, v in params.items()})
            return jax.device_get(program(data, (mine, keys[chain])))

    first = of(0)  # compiles
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        parts = [first, *pool.map(of, range(1, chains))]
    local, shared = (np.stack([p[i] for p in parts]) for i in (0, 1))
    return local, shared
