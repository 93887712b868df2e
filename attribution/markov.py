"""Markov credit of order k in closed form, for all channels at once, from released counts (DESIGN section 5).

| on paper | here | dims |
|---|---|---|
| Q | transitions among states | state, state |
| N = inv(I − Q) | expected visits | state, state |
| r, p = N r | probability to convert next, ever | state |
| v = q0 N | expected visits from the start | state |
| A_i | states that end in channel i | |
| RE[i] = v[A] inv(N[A,A]) p[A] / p0 | removal effect: share of conversions lost when i leads nowhere | channel |

A journey that ever holds channel i is in a state that ends in i the moment it gets there, so removing these states
loses the same conversions as removing every state that contains i, with a smaller matrix to invert. p0 counts the
conversions that passed through any channel.

Self-loops are kept. They change nothing: a removal effect is the probability to visit A on the way to conversion, and
staying longer in a state does not change which states are visited. What does change it, from order 2 on, is to leave
repeated touches out before counting (`privacy.journeys.path`), because a state then remembers other channels.
All functions take a leading batch of draws.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve

from attribution.states import States, states_of


def _first_order(flow: np.ndarray) -> States:
    return states_of(flow.shape[-1] - 2, 1)


@lru_cache(maxsize=8)
def _conservation(channels: int, order: int) -> tuple[sparse.csr_array, tuple[np.ndarray, bool]]:
    """(A, factor of A A') with A (S, cells): inflow minus outflow of each state."""
    states = states_of(channels, order)
    rows, width = states.count + 1, channels + 2
    cell = np.arange(rows * width).reshape(rows, width)
    into = sparse.csr_array(
        (np.ones(rows * channels), (states.onward.ravel() - 1, cell[:, :channels].ravel())),
        shape=(states.count, rows * width),
    )
    out = sparse.csr_array(
        (np.ones(states.count * width), (np.repeat(np.arange(states.count), width), cell[1:].ravel())),
        shape=(states.count, rows * width),
    )
    a = sparse.csr_array(into - out)
    return a, cho_factor((a @ a.T).toarray())


def conserve(flow: np.ndarray, states: States | None = None) -> np.ndarray:
    """Nearest counts (..., 1 + S, K + 2) in which what enters a state leaves it.

    The exact counts have this property, so the projection only takes noise out; it is linear, so it adds no bias. All
    cells of the flow vector have one noise variance, hence the plain least-squares projection. The cells from the start
    and from a state to null that are not released stay as they are.
    """
    found = states or _first_order(flow)
    a, factor = _conservation(found.channels, found.order)
    flat = flow.reshape(-1, a.shape[1])
    excess = a @ flat.T
    if np.iscomplexobj(excess):  # LAPACK would take the factor for a complex one
        lift = cho_solve(factor, excess.real) + 1j * cho_solve(factor, excess.imag)
    else:
        lift = cho_solve(factor, excess)
    return (flat - (a.T @ lift).T).reshape(flow.shape)


def transition_rows(flow: np.ndarray, row_variance: np.ndarray, states: States | None = None) -> np.ndarray:
    """Transition probabilities (..., 1 + S, K + 2); each row sums to 1, single entries may be slightly negative.

    A row whose total n does not stand clear of its noise (variance v) moves by the weight v / (n² + v) to what all
    states that end alike do; that row in turn to those that share one channel less, and in the end to the mean row of
    all channels. Nothing is clipped: clipping at zero would turn noise into credit.
    """
    found = states or _first_order(flow)
    counts, noise = _backed(flow, row_variance, found)
    mean = counts[..., 1 : found.channels + 1, :].sum(axis=-2, keepdims=True)
    total = mean.sum(axis=-1, keepdims=True)
    lower = mean / np.where(total != 0, total, 1.0)
    rows = [_shrunk(flow[..., :1, :], row_variance[:1], lower)]
    for size, block in enumerate(_blocks(found), 1):
        toward = lower if size == 1 else np.concatenate([lower] * found.channels, axis=-2)
        lower = _shrunk(counts[..., block, :], noise[block], toward)
        own = lower if size == found.order else _shrunk(flow[..., block, :], row_variance[block], lower)
        rows.append(own)
    return np.concatenate(rows, axis=-2)


def _blocks(states: States) -> list[slice]:
    """Rows of the states of 1, 2, ... channels."""
    ends = np.cumsum([1, *(states.channels**size for size in range(1, states.order + 1))])
    return [slice(int(a), int(b)) for a, b in pairwise(ends)]


def _backed(flow: np.ndarray, row_variance: np.ndarray, states: States) -> tuple[np.ndarray, np.ndarray]:
    """Counts and noise variances of each state's row, summed over all states that end as it does."""
    counts, noise = np.array(flow), np.array(row_variance, dtype=float)
    blocks = _blocks(states)
    for short, longer in reversed(list(pairwise(blocks))):  # the oldest channel runs slowest
        shape = (*flow.shape[:-2], states.channels, short.stop - short.start, flow.shape[-1])
        counts[..., short, :] += counts[..., longer, :].reshape(shape).sum(axis=-3)
        noise[short] += noise[longer].reshape(states.channels, -1).sum(axis=0)
    return counts, noise


def _shrunk(counts: np.ndarray, row_variance: np.ndarray, toward: np.ndarray) -> np.ndarray:
    total = counts.sum(axis=-1)
    denominator = total**2 + row_variance
    safe = np.where(denominator > 0, denominator, 1.0)
    keep = np.where(denominator > 0, total / safe, 0.0)[..., None]
    borrow = np.where(denominator > 0, row_variance / safe, 1.0)[..., None]
    return counts * keep + toward * borrow


def removal_effects(transitions: np.ndarray, states: States | None = None) -> np.ndarray:
    """Removal effect (..., K) of each channel, as a share of the conversions that passed through a channel."""
    found = states or _first_order(transitions)
    k, s = found.channels, found.count
    q = np.zeros((*transitions.shape[:-2], s, s), dtype=transitions.dtype)
    q[..., np.repeat(np.arange(s), k), found.onward[1:].ravel() - 1] = transitions[..., 1:, :k].reshape(
        *transitions.shape[:-2], s * k
    )
    start, convert = transitions[..., 0, :k], transitions[..., 1:, k]
    visits = np.linalg.inv(np.eye(s) - q)
    reach = (start[..., None, :] @ visits[..., :k, :])[..., 0, :]
    wins = (visits @ convert[..., :, None])[..., 0]
    through = (start * wins[..., :k]).sum(axis=-1)
    effects = []
    for channel in range(k):
        a = np.flatnonzero(found.newest == channel)
        inner = np.linalg.solve(visits[..., a[:, None], a], wins[..., a, None])[..., 0]
        effects.append((reach[..., a] * inner).sum(axis=-1) / through)
    return np.stack(effects, axis=-1)


def markov_shares(flow: np.ndarray, flow_variance: np.ndarray, states: States | None = None) -> np.ndarray:
    """Credit shares (..., K), summing to 1, from counts (..., 1 + S, K + 2) and their variances (1 + S, K + 2)."""
    rows = transition_rows(conserve(flow, states), flow_variance.sum(axis=-1), states)
    effects = removal_effects(rows, states)
    return effects / effects.sum(axis=-1, keepdims=True)
