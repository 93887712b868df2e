"""Shapley credit from released channel-set counts.

| on paper | here | unit |
|---|---|---|
| R(T), L(T) | converted journeys, and others, whose channels are exactly T | journeys |
| v(S) | worth of a set of channels | by game |
| φ_i = Σ_S∌i |S|! (n − |S| − 1)! / n! · (v(S ∪ i) − v(S)) | credit of channel i | by game |

**Conversions** (model `shapley`): v(S) = Σ_{T ⊆ S} R(T), what S alone could have brought (Zhao, Mahboobi and Bagheri
2018). Then φ_i = Σ_{T ∋ i} R(T) / |T|: linear credit over the *distinct* channels of a journey. It needs no 2^n sum and
only the counts by channel × number of distinct channels, so it is exact for any number of channels, and it holds no
more information than they do.

**Conversion rate** (model `shapley_rate`): v(S) = Σ_{T ⊆ S} R(T) / Σ_{T ⊆ S} (R(T) + L(T)), v(∅) = 0, over sets that
hold a channel: journeys that did not convert count. Exact over all 2^n sets, to ten channels. A channel whose company
converts less often gets negative credit. The rate of a set with n journeys and c conversions (noise variance v) is
taken as c n / (n² + v / r²), r the rate of all journeys: a set near its noise is worth what nobody is worth, nothing,
so that a channel that nobody saw gets nothing.
"""

from __future__ import annotations

from functools import cache
from math import factorial

import numpy as np

from attribution.tables import SetTable
from contracts.errors import ContractError


def conversion_matrix(sets: SetTable) -> np.ndarray:
    """Matrix (K, R) that maps set cells to Shapley credit of the conversions game."""
    share = sets.converted / np.maximum(sets.size, 1)
    matrix: np.ndarray = (sets.member * share[:, None]).T
    return matrix


@cache
def shapley_weights(channels: int) -> np.ndarray:
    """Matrix (n, 2^n) that maps the worth of every set (by bit mask) to the Shapley value of each channel."""
    masks = np.arange(2**channels)
    size = np.array([bin(m).count("1") for m in masks])
    out = np.zeros((channels, len(masks)))
    whole = factorial(channels)
    for i in range(channels):
        inside = (masks >> i) & 1 == 1
        with_i = [factorial(s - 1) * factorial(channels - s) / whole for s in size[inside]]
        without = [-factorial(s) * factorial(channels - s - 1) / whole for s in size[~inside]]
        out[i, inside], out[i, ~inside] = with_i, without
    return out


def subset_sums(exact: np.ndarray, channels: int) -> np.ndarray:
    """Σ_{T ⊆ S} of values (..., 2^n) by bit mask."""
    out = exact.reshape(*exact.shape[:-1], *(2,) * channels).copy()
    for axis in range(channels):
        out = np.cumsum(out, axis=out.ndim - channels + axis)
    return out.reshape(exact.shape)


def rate_shares(sets: SetTable, channels: int, cells: np.ndarray) -> np.ndarray:
    """Shares (..., K), summing to 1, of the conversion-rate game from set cells (..., R).

    Raises ContractError where the release holds no full sets.
    """
    if not sets.full:
        raise ContractError(
            f"shapley_rate needs every set of channels, which is released up to 10 channels; here are {channels}."
        )
    mask = sets.member @ (1 << np.arange(channels))
    won, lost = (np.zeros((*cells.shape[:-1], 2**channels), dtype=cells.dtype) for _ in range(2))
    noise = np.zeros(2**channels)
    inside = sets.converted & (sets.size > 0)
    for rows, to in ((inside, won), (~sets.converted, lost)):
        to[..., mask[rows]] = cells[..., rows]
    noise[mask[inside]] = sets.cells.variance[inside]
    wins = subset_sums(won, channels)
    seen = wins + subset_sums(lost, channels)
    overall = wins[..., -1:] / seen[..., -1:]
    denominator = seen**2 + subset_sums(noise, channels) / overall**2
    worth = np.where(denominator != 0, wins * seen / np.where(denominator != 0, denominator, 1.0), 0.0)
    worth[..., 0] = 0.0
    effects = worth @ shapley_weights(channels).T
    return effects / effects.sum(axis=-1, keepdims=True)
