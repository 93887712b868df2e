"""Looking early: intervals that hold at every look together, each look adding a release with its own noise.

Two readings of a running test.

`mixture_sequence`: each release holds the people who entered since the last one (their totals, drawn with fresh noise).
With d[k] the difference after k releases on N[k] = harmonic people, B[k] = N[k] (d[k] − delta) is a sum of independent
parts with variance T[k] = N[k]² (sampling + released): a martingale. Robbins' normal mixture with parameter eta gives
P(any k: |B[k]| >= sqrt((T + eta) log((T + eta) / (eta alpha²)))) <= alpha (Ville; Robbins 1970; asymptotic for sums of
people, Waudby-Smith et al. 2024).

`spending_sequence`: any releases at all (the same people measured again, a growing window): look k is read at level
alpha[k] with sum alpha[k] = alpha. Wider, and valid under every dependence between looks.

Where noisy squares leave few degrees of freedom, the normal limit is replaced by the t limit of equal tail. p-values
are the alpha at which 0 leaves the interval, so both agree. Decision 0151.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from contracts.checks import share
from contracts.errors import ContractError
from lift.arms import intention_to_treat
from lift.totals import Estimate, Totals, added


@dataclass(frozen=True, slots=True)
class Looks:
    """Effect per person after each of L looks; leading axes are batches. All arrays (..., L)."""

    value: np.ndarray
    std_error: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    p_value: np.ndarray  # of this look
    p_always: np.ndarray  # least p so far: may be stopped on at any look
    noise_share: np.ndarray
    level: float

    def stopped_at(self) -> np.ndarray:
        """Index (...) of the first look whose interval leaves out 0, −1 where none does."""
        out = (self.lower > 0) | (self.upper < 0)
        return np.where(out.any(-1), out.argmax(-1), -1)


def _check(looks: Sequence[tuple[Totals, Totals]], level: float) -> None:
    share(level=level)
    if not looks:
        raise ContractError("a running test needs at least one look with a treated and a control arm.")
    for treated, control in looks:
        if treated.components != looks[0][0].components or control.components != looks[0][1].components:
            raise ContractError(
                f"the looks of arms {treated.arm!r} and {control.arm!r} hold different totals; release the same "
                "components at every look."
            )


def mixture_parameter(planned: float, alpha: float) -> float:
    """eta, as a multiple of the first look's T, that makes the interval tightest when T is `planned` times it.

    Waudby-Smith et al. (2024), eq. 13: eta = T / (−2 log alpha + log(−2 log alpha) + 1).
    """
    log = -2 * math.log(alpha)
    return planned / (log + math.log(log) + 1)


def mixture_sequence(
    looks: Sequence[tuple[Totals, Totals]], metric: str, *, planned_looks: int, level: float = 0.95
) -> Looks:
    """Always-valid intervals of a test in which look k adds new people, released on their own.

    `planned_looks`: where the interval is to be tightest; must be fixed before the first look. Valid at all looks for
    any value. Raises ContractError when a look lacks a total or has other components than the first.
    """
    _check(looks, level)
    if planned_looks < 1:
        raise ContractError(f"planned_looks must be 1 or more; got {planned_looks}.")
    alpha = 1 - level
    found = [_upto(looks, k, metric) for k in range(1, len(looks) + 1)]
    people = np.stack([n for _, n in found], -1)
    time = people**2 * np.stack([e.std_error**2 for e, _ in found], -1)
    time = time / time[..., :1]
    eta = mixture_parameter(planned_looks, alpha)
    spread = (time + eta) / time
    limit = np.sqrt(spread * np.log((time + eta) / (eta * alpha**2)))

    def p_of(z: np.ndarray) -> np.ndarray:
        log = 0.5 * np.log((time + eta) / eta) - 0.5 * z**2 / spread
        return np.exp(np.minimum(log, 0.0))

    return _looks([e for e, _ in found], limit, p_of, level)


def _upto(looks: Sequence[tuple[Totals, Totals]], k: int, metric: str) -> tuple[Estimate, np.ndarray]:
    treated, control = added([t for t, _ in looks[:k]]), added([c for _, c in looks[:k]])
    n_t, n_c = treated.of("n")[0], control.of("n")[0]
    return intention_to_treat(treated, control, metric), n_t * n_c / (n_t + n_c)


def spending_sequence(looks: Sequence[tuple[Totals, Totals]], metric: str, *, level: float = 0.95) -> Looks:
    """Intervals of looks with any dependence: look k at alpha · 6 / (pi k)², which sums to alpha over all k.

    Each look is read on its own totals (cumulative windows). Covers each look's own effect, all together.
    """
    _check(looks, level)
    found = [intention_to_treat(t, c, metric) for t, c in looks]
    weight = 6 / (math.pi * np.arange(1, len(looks) + 1)) ** 2
    limit = np.broadcast_to(stats.norm.isf((1 - level) * weight / 2), (*found[0].value.shape, len(looks)))
    return _looks(found, limit, lambda z: np.minimum(2 * stats.norm.sf(z) / weight, 1.0), level)


def _looks(
    found: Sequence[Estimate], limit: np.ndarray, p_of: Callable[[np.ndarray], np.ndarray], level: float
) -> Looks:
    """Intervals at `limit` normal sd (..., L), made wider where the degrees of freedom are few."""
    value, se, dof, noise = (
        np.stack(x, -1) for x in zip(*((e.value, e.std_error, e.dof, e.noise_share) for e in found), strict=True)
    )
    few = np.isfinite(dof) & (dof < 1e6)
    finite = np.where(few, dof, 1e6)
    half = se * np.where(few, stats.t.isf(stats.norm.sf(limit), finite), limit)
    t = np.abs(value) / se
    z = np.where(few, stats.norm.isf(np.maximum(stats.t.sf(t, finite), 1e-300)), t)
    p = p_of(z)
    return Looks(value, se, value - half, value + half, p, np.minimum.accumulate(p, axis=-1), noise, level)


def looks_needed(effect: float, first_se: float, *, planned_looks: int, level: float = 0.95) -> float:
    """Looks of equal size after which a true `effect` (metric units per person) is just outside 0's interval.

    `first_se`: standard error of one look alone. Raises ContractError when both are not above 0.
    """
    if not (effect > 0 and first_se > 0):
        raise ContractError(f"effect and first_se must be above 0; got {effect} and {first_se}.")
    alpha, eta = 1 - level, mixture_parameter(planned_looks, 1 - level)

    def slack(log_k: float) -> float:
        k = math.exp(log_k)
        return effect / first_se * math.sqrt(k) - math.sqrt((k + eta) / k * math.log((k + eta) / (eta * alpha**2)))

    return math.exp(optimize.brentq(slack, math.log(1e-6), math.log(1e12)))
