"""One statistic, its reference distribution, and the p-value and interval that both follow from it.

| on paper | here | unit |
|---|---|---|
| S | total: sum of the gaps over the window | KPI units |
| D[b] | placebo sums: the same statistic where nothing happened | KPI units |
| V, V[b] | released noise in S and D[b], known | KPI units² |

Every sum is divided by sqrt(own² + its own V), so that a window with more (or less) released noise than the history is
compared fairly; own² is the mean of D² − V. The p-value counts placebos at least as large, plus one for the test
itself; the interval is the set of effects with p > 1 − level. So it holds the estimate, and p and interval agree.
Chernozhukov, Wuthrich and Zhu (2021); Barber et al. (2021); Abadie, Diamond and Hainmueller (2010).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contracts.errors import ContractError


@dataclass(frozen=True, slots=True)
class Reading:
    """What inference gives: everything in KPI units."""

    mean: float
    std_error: float
    lower: float
    upper: float
    p_value: float
    placebos: np.ndarray  # (B,) placebo sums on the scale of the estimate


def blocks(periods: int, length: int) -> list[np.ndarray]:
    """Every run of `length` neighbouring positions among `periods`, as positions."""
    return [np.arange(s, s + length) for s in range(periods - length + 1)]


def _rank(count: int, level: float, name: str) -> int:
    """How many placebos may be as large as the statistic before it is rejected at `level`."""
    rank = int(np.floor((1 - level) * (count + 1) + 1e-9))
    if rank < 1:
        needed = int(np.ceil(1 / (1 - level) - 1e-9)) - 1
        raise ContractError(
            f"test {name!r} has {count} placebos, and an interval at level {level:g} needs at least {needed}; use a "
            "longer history, more control geos, or a lower level."
        )
    return rank


def own_variance(sums: np.ndarray, noise: np.ndarray) -> float:
    """Variance of the placebo sums beyond their released noise, never under a thousandth of the whole."""
    whole = float((sums**2).mean())
    return max(whole - float(noise.mean()), 1e-3 * whole)


def by_placebos(
    total: float, noise: float, sums: np.ndarray, sums_noise: np.ndarray, own: np.ndarray | float, level: float,
    name: str,
) -> Reading:  # fmt: skip
    """Permutation p with + 1 and the interval that inverts it. `own`: variance beyond noise, one or one per placebo.

    `own` as (B + 1,) gives the test's own value first. Raises ContractError where there are too few placebos.
    """
    spread = np.broadcast_to(own, (len(sums) + 1,))
    scale = float(np.sqrt(spread[0] + noise))
    reference = np.sort(np.abs(sums) / np.sqrt(spread[1:] + sums_noise))[::-1]
    half = scale * float(reference[_rank(len(sums), level, name) - 1])
    count = int((reference >= abs(total) / scale - 1e-12).sum())
    return Reading(
        total, scale, total - half, total + half, (1 + count) / (1 + len(sums)),
        scale * sums / np.sqrt(spread[1:] + sums_noise),
    )  # fmt: skip


def jackknife_plus(
    totals: np.ndarray, noise: np.ndarray, sums: np.ndarray, sums_noise: np.ndarray, level: float, name: str
) -> Reading:
    """Jackknife+ over left-out blocks: `totals` (B,) the window's sum under each fit without block b, `sums` block b's.

    The estimate is the median of `totals`, which the interval always holds; p(h) is the level at which h leaves it.
    """
    own = own_variance(sums, sums_noise)
    reach = np.abs(sums) * np.sqrt((own + noise) / (own + sums_noise))
    low, high = np.sort(totals - reach), np.sort(totals + reach)
    rank = _rank(len(sums), level, name)
    p_value = (1 + min(int((low <= 0).sum()), int((high >= 0).sum()))) / (1 + len(sums))
    mean = float(np.median(totals))
    scale = float(np.sqrt(own + noise.mean()))
    return Reading(mean, scale, float(low[rank - 1]), float(high[-rank]), min(p_value, 1.0), reach * np.sign(sums))
