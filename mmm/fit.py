"""Draws from the posterior with NUTS, in chunks: progress, and more draws without a new warm-up.

Hoffman and Gelman (2014), "The No-U-Turn Sampler". Chains run in threads, one per core; the compiled step releases
the interpreter lock, and each chain depends only on its own key, so the thread order cannot change the draws.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.hmc import hmc
from numpyro.infer.util import constrain_fn, potential_energy
from threadpoolctl import threadpool_limits

from contracts.panel import Panel
from mmm.collapse import draw_linear
from mmm.design import Design, build_design
from mmm.diagnostics import GateReport, gate
from mmm.laplace import laplace
from mmm.lifts import LiftTerm
from mmm.media import Params
from mmm.model import SITE, model
from mmm.posterior import Posterior
from mmm.spec import ModelSpec

Progress = Callable[[float, float], None]  # (share done, seconds left)

START_SPREAD = 1.5  # chains start this many Laplace standard deviations around the mode, so that R-hat can tell
CHUNK = 50  # draws between two reports of progress


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFlags:
    """How long and how parallel; the answer's distribution does not depend on these."""

    chains: int = 4
    warmup: int = 100  # draws that adapt the step size, before and after the pilot
    pilot: int = 150  # draws a chain that give the mass matrix
    draws: int = 750
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


def fit(
    panel: Panel,
    spec: ModelSpec,
    terms: Sequence[LiftTerm] = (),
    *,
    seed: int,
    flags: RunFlags = RunFlags(),
    progress: Progress | None = None,
) -> Fit:
    """Fits the collapsed model. Doubles the draws up to `flags.doublings` times until the gate passes.

    The result of a failed gate is returned, marked by `report.passed`; nothing is raised for it. Raises ContractError
    when the panel cannot carry the model.
    """
    # the matrices are small: several BLAS threads per call only wait for each other (measured: 20 times slower)
    with jax.enable_x64(True), threadpool_limits(1, user_api="blas"):
        design = build_design(panel, spec, terms)
        chains = _Chains(design, spec, seed, flags)
        chains.advance(flags.warmup, progress, share=(0.0, 0.1))
        chains.record(flags.pilot, progress, share=(0.1, 0.25))
        chains.retune()
        chains.advance(flags.warmup, progress, share=(0.25, 0.35))
        target, rounds = flags.draws, 0
        chains.record(target, progress, share=(0.35, 0.95))
        while True:
            posterior = _assemble(design, spec, chains, seed)
            report = gate(panel, design, posterior)
            if report.passed or rounds == flags.doublings:
                break
            rounds += 1
            chains.record(target, progress, share=(0.35, 0.95))
            target *= 2
    if progress is not None:
        progress(1.0, 0.0)
    return Fit(posterior, report)


class _Chains:
    """The moving part: one sampler state per chain, the metric, and the draws recorded so far.

    NUTS moves a whitened vector w, position = centre + root w, so that one identity mass matrix fits; the metric
    starts from the Laplace approximation and is replaced once by the pilot draws' own covariance.
    """

    def __init__(self, design: Design, spec: ModelSpec, seed: int, flags: RunFlags) -> None:
        self._args, self._flags = (design, spec), flags
        key_start, self._key = jax.random.split(jax.random.key(seed))
        start = laplace(design, spec)
        self._unravel = start.unravel
        self._energy = jax.jit(self._energy_at)  # compiled once for all states and metrics
        self._init, self._sample = hmc(potential_fn_gen=self._potential, algo="NUTS")
        self._metric = (jnp.asarray(start.mode), jnp.asarray(np.linalg.cholesky(start.covariance)))
        spread = START_SPREAD * jax.random.normal(key_start, (flags.chains, len(start.mode)))
        self.states = self._begin(spread)
        self._threads = flags.threads or min(flags.chains, os.cpu_count() or 1)
        self._step = jax.jit(self._chunk).lower(self._metric, self.states[0]).compile()
        self.recorded: list[list[dict[str, Any]]] = [[] for _ in self.states]

    def _potential(self, metric: tuple[Any, Any]) -> Any:
        return lambda w: self._energy(metric, w)

    def _energy_at(self, metric: tuple[Any, Any], w: Any) -> Any:
        centre, root = metric
        return potential_energy(model, self._args, {}, self._unravel(centre + root @ w))

    def _begin(self, whitened: Any) -> list[Any]:
        """Fresh states at these whitened positions (chain, N); the step size is adapted anew over `warmup` draws."""
        self._key, use = jax.random.split(self._key)
        keys = jax.random.split(use, len(whitened))
        flags = self._flags
        return [
            self._init(
                w,
                flags.warmup,
                adapt_mass_matrix=False,
                target_accept_prob=flags.target_accept,
                max_tree_depth=(flags.warmup_tree_depth, flags.max_tree_depth),
                model_args=(self._metric,),
                rng_key=key,
            )
            for w, key in zip(whitened, keys, strict=True)
        ]

    def retune(self) -> None:
        """Begins again where the pilot draws ended, each whitened direction scaled by its own pilot spread.

        A full covariance from a short pilot is too noisy: it made the step smaller than the Laplace metric's. The
        pilot draws are thrown away.
        """
        centre, root = self._metric
        pilot = np.stack([np.concatenate([c["w"] for c in chunks]) for chunks in self.recorded])
        middle, spread = pilot.mean(axis=(0, 1)), np.maximum(pilot.std(axis=(0, 1)), 0.1)
        self._metric = (centre + root @ middle, root * spread)
        self.states = self._begin(jnp.asarray((pilot[:, -1] - middle) / spread))
        self.recorded = [[] for _ in self.states]

    def _chunk(self, metric: tuple[Any, Any], state: Any) -> tuple[Any, dict[str, Any]]:
        def one(s: Any, _: None) -> tuple[Any, dict[str, Any]]:
            s = self._sample(s, model_args=(metric,))
            return s, {"w": s.z, "diverging": s.diverging, "accept": s.accept_prob, "steps": s.num_steps}

        return jax.lax.scan(one, state, None, length=CHUNK)

    def advance(self, steps: int, progress: Progress | None, share: tuple[float, float]) -> None:
        """Moves every chain `steps` draws on without keeping them (the warm-up)."""
        self._run(steps, progress, share, keep=False)

    def record(self, steps: int, progress: Progress | None, share: tuple[float, float]) -> None:
        """Moves every chain `steps` draws on and keeps them."""
        self._run(steps, progress, share, keep=True)

    def _run(self, steps: int, progress: Progress | None, share: tuple[float, float], keep: bool) -> None:
        rounds = -(-steps // CHUNK)
        done, total, begun = [0], rounds * len(self.states), time.monotonic()

        def run(chain: int) -> None:
            with jax.enable_x64(True):  # the setting is per thread
                for _ in range(rounds):
                    self.states[chain], out = self._step(self._metric, self.states[chain])
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

    def constrain(self, w: np.ndarray) -> dict[str, np.ndarray]:
        """All sites on their own scale from whitened draws (chain, draw, N), leading axes (chain, draw)."""
        chains, draws, _ = w.shape
        centre, root = self._metric

        def one(x: Any) -> dict[str, Any]:
            return constrain_fn(model, self._args, {}, self._unravel(centre + root @ x), return_deterministic=True)

        out = jax.device_get(jax.jit(jax.vmap(one))(w.reshape(chains * draws, -1)))
        return {k: np.asarray(v).reshape(chains, draws, *v.shape[1:]) for k, v in out.items()}


def _assemble(design: Design, spec: ModelSpec, chains: _Chains, seed: int) -> Posterior:
    drawn = chains.stacked()
    sites = chains.constrain(drawn["w"])
    params = {name: sites[f"{SITE}{name}"] for name in Params._fields}
    n_chains, n_draws = params["theta"].shape[:2]
    flat = Params(**{k: v.reshape(n_chains * n_draws, *v.shape[2:]) for k, v in params.items()})
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), n_chains * n_draws)
    draw = jax.jit(lambda args: jax.lax.map(lambda a: draw_linear(design, *a), args, batch_size=50))
    local, shared = jax.device_get(draw((jax.tree.map(jnp.asarray, flat), keys)))
    return Posterior(
        channels=design.channels,
        params=params,
        sampled={k: v for k, v in sites.items() if not k.startswith(SITE)},
        local=np.asarray(local).reshape(n_chains, n_draws, *local.shape[1:]),
        shared=np.asarray(shared).reshape(n_chains, n_draws, *shared.shape[1:]),
        divergences=int(drawn["diverging"].sum()),
        accept=float(drawn["accept"].mean()),
        seed=seed,
        spec_hash=spec.hash(),
    )
