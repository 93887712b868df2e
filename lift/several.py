"""Several arms at once: simultaneous intervals against one control (Dunnett), step-down and false-discovery p-values.

With correlations rho[i,j] = lambda[i] lambda[j], as differences from one control arm have, the chance that every
|t[i]| stays under c is a double integral with one shared normal and one shared chi (Dunnett 1955):
E_s E_u prod_i [Phi((c s − lambda_i u) / r_i) − Phi((−c s − lambda_i u) / r_i)], r_i² = 1 − lambda_i².
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize, special, stats

from contracts.errors import ContractError
from lift.arms import intention_to_treat
from lift.totals import Estimate, Totals, read_cell

_U, _W = np.polynomial.hermite_e.hermegauss(81)
_W = _W / _W.sum()
_S = (np.arange(64) + 0.5) / 64
MAX_LOADING = 0.999


@dataclass(frozen=True, slots=True)
class ArmEffects:
    """Differences of K treated arms from one control, with p-values that allow for K."""

    arms: tuple[str, ...]
    effects: tuple[Estimate, ...]
    loadings: np.ndarray  # (K,) correlation of arms i and j is loadings[i] * loadings[j]
    dof: float  # the least of the arms
    raw: np.ndarray  # (K,) two-sided p of each arm alone
    dunnett: np.ndarray  # (K,) family-wise
    holm: np.ndarray  # (K,) family-wise, no use of the correlation
    benjamini_hochberg: np.ndarray  # (K,) false-discovery rate

    def simultaneous(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Dunnett limits (K,), (K,): all hold together with `level`, and exclude 0 where `dunnett` < 1 − level."""
        c = dunnett_limit(self.loadings, self.dof, level)
        value = np.array([float(e.value) for e in self.effects])
        se = np.array([float(e.std_error) for e in self.effects])
        return value - c * se, value + c * se


def all_inside(c: float, loadings: np.ndarray, dof: float) -> float:
    """Chance that every |t[i]| < c under no effect, for `loadings` (K,) in [0, 1)."""
    scale = np.sqrt(stats.chi2.ppf(_S, dof) / dof) if math.isfinite(dof) else np.ones(1)
    rest = np.sqrt(1 - loadings**2)
    shift = loadings * _U[:, None] / rest  # (U, K)
    edge = c * scale[:, None, None] / rest  # (S, 1, K)
    inside = special.ndtr(edge - shift) - special.ndtr(-edge - shift)
    return float((inside.prod(axis=-1) @ _W).mean())


def dunnett_limit(loadings: np.ndarray, dof: float, level: float = 0.95) -> float:
    """c with all_inside(c) = level."""
    return float(optimize.brentq(lambda c: all_inside(c, loadings, dof) - level, 0.1, 60.0, xtol=1e-8))


def several_arms(control: Totals, treated: Sequence[Totals], metric: str) -> ArmEffects:
    """Every treated arm against the control arm, one metric. Raises ContractError for no arm or a repeated one."""
    names = [t.arm for t in treated]
    if not names or len({*names, control.arm}) != len(names) + 1:
        raise ContractError(
            f"several arms need distinct treated arms beside the control {control.arm!r}; got "
            f"{', '.join(names) or '-'}."
        )
    effects = [intention_to_treat(t, control, metric) for t in treated]
    cell = read_cell(control, [metric])
    mean = cell.sums[..., 0] / cell.n
    shared = cell.spread[..., 0, 0] / cell.n + (cell.sums_noise[..., 0] + mean**2 * cell.n_noise) / cell.n**2
    return arm_effects(names, effects, np.array([math.sqrt(float(shared)) / float(e.std_error) for e in effects]))


def arm_effects(names: Sequence[str], effects: Sequence[Estimate], loadings: np.ndarray) -> ArmEffects:
    """The arms together; `loadings` (K,): part of each standard error that comes from the shared control arm."""
    loadings = np.minimum(loadings, MAX_LOADING)
    dof = min(float(e.dof) for e in effects)
    size = [abs(float(e.value)) / float(e.std_error) for e in effects]
    raw = np.array([float(e.p_value()) for e in effects])
    return ArmEffects(
        tuple(names),
        tuple(effects),
        loadings,
        dof,
        raw,
        np.maximum([1 - all_inside(s, loadings, dof) for s in size], raw),  # 1 − x has no digits left far out
        holm(raw),
        np.asarray(stats.false_discovery_control(raw, method="bh")),
    )


def holm(p: np.ndarray) -> np.ndarray:
    """Holm (1979) step-down p-values (K,)."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    out = np.empty_like(p, dtype=float)
    out[order] = np.minimum(stepped, 1.0)
    return out


@dataclass(frozen=True, slots=True)
class RatioCheck:
    """Sample-ratio mismatch of the released arm sizes against the planned split."""

    arms: tuple[str, ...]
    expected: np.ndarray  # (K,) people
    observed: np.ndarray  # (K,) released people
    chi_square: float
    dof: int
    p_value: float
    verdict: Literal["pass", "fail"]
    blind_share: float  # part of the statistic's variance that is released noise: near 1, a mismatch cannot be seen


SRM_LIMIT = 0.001  # usual limit: a mismatch is a fault of the set-up, not a finding to be met once in twenty


def sample_ratio(arms: Sequence[Totals], planned: Sequence[float], limit: float = SRM_LIMIT) -> RatioCheck:
    """Wald chi-square of n − p sum(n), with covariance P (N diag(p) + diag(tau²)) P', P = I − p 1'.

    Without noise it is Pearson's test. Raises ContractError for one arm only or a plan that is no split.
    """
    p = np.asarray(planned, float)
    if len(arms) < 2 or p.shape != (len(arms),) or not (p > 0).all():
        raise ContractError(
            f"a sample-ratio test needs two arms or more and one planned share above 0 for each; got {len(arms)} arms "
            f"and the shares {[float(x) for x in p]}."
        )
    p = p / p.sum()
    n = np.array([float(a.of("n")[0]) for a in arms])
    noise = np.array([float(a.of("n")[1]) for a in arms])
    total = n.sum()
    if not total > 5 * math.sqrt(noise.sum()):
        raise ContractError(
            f"the arms hold {total:.0f} released people together, within 5 sd of their noise; there is no split to "
            "test. Give trials more rho."
        )
    project = np.eye(len(p)) - np.outer(p, np.ones(len(p)))
    people = project @ np.diag(total * p) @ project.T
    blind = project @ np.diag(noise) @ project.T
    residual = n - p * total
    chi = float(residual @ np.linalg.pinv(people + blind, hermitian=True) @ residual)
    value = float(stats.chi2.sf(chi, len(p) - 1))
    share = float(np.trace(blind) / np.trace(blind + people))
    names = tuple(a.arm for a in arms)
    return RatioCheck(names, p * total, n, chi, len(p) - 1, value, "fail" if value < limit else "pass", share)
