"""First-order Markov credit in closed form from released transition counts (DESIGN section 5).

| on paper | here | dims |
|---|---|---|
| Q | transitions among channels | channel, channel |
| N = inv(I − Q) | expected visits | channel, channel |
| r, p = N r | probability to convert next, ever | channel |
| RE[i] = N[0,i] p[i] / (N[i,i] p[0]) | removal effect: share of conversions lost when i leads nowhere | channel |

Self-loops are kept. They change nothing: a removal effect is the probability to visit i on the way to conversion, and
staying longer in a state does not change which states are visited. All functions take a leading batch of draws.
"""

from __future__ import annotations

import numpy as np


def conserve(flow: np.ndarray) -> np.ndarray:
    """Nearest counts (..., 1 + K, K + 2) in which what enters a channel leaves it.

    The exact counts have this property, so the projection only takes noise out; it is linear, so it adds no bias. All
    cells of the flow vector have one noise variance, hence the plain least-squares projection. The cell from start to
    null is not released and stays as it is.
    """
    k = flow.shape[-1] - 2
    constraint = np.zeros((k, k + 1, k + 2))
    for i in range(k):
        constraint[i, :, i] += 1.0
        constraint[i, i + 1, :] -= 1.0
    a = constraint.reshape(k, -1)
    flat = flow.reshape(*flow.shape[:-2], -1)
    excess = flat @ a.T
    return (flat - np.linalg.solve(a @ a.T, excess[..., None])[..., 0] @ a).reshape(flow.shape)


def transition_rows(flow: np.ndarray, row_variance: np.ndarray) -> np.ndarray:
    """Transition probabilities (..., 1 + K, K + 2); each row sums to 1, single entries may be slightly negative.

    A row whose total n does not stand clear of its noise (variance v) moves to the mean row of all channels by the
    weight v / (n² + v). Nothing is clipped: clipping at zero would turn noise into credit.
    """
    total = flow.sum(axis=-1)
    denominator = total**2 + row_variance
    safe = np.where(denominator > 0, denominator, 1.0)
    pooled = flow[..., 1:, :].sum(axis=-2)
    pooled_total = pooled.sum(axis=-1, keepdims=True)
    pooled = pooled / np.where(pooled_total != 0, pooled_total, 1.0)
    keep = np.where(denominator > 0, total / safe, 0.0)[..., None]
    borrow = np.where(denominator > 0, row_variance / safe, 1.0)[..., None]
    return flow * keep + pooled[..., None, :] * borrow


def removal_effects(transitions: np.ndarray) -> np.ndarray:
    """Removal effect (..., K) of each channel, as a share of the conversions that passed through a channel."""
    k = transitions.shape[-1] - 2
    q, convert = transitions[..., 1:, :k], transitions[..., 1:, k]
    start = transitions[..., 0, :k]
    visits = np.linalg.inv(np.eye(k) - q)
    reach = (start[..., None, :] @ visits)[..., 0, :]
    wins = (visits @ convert[..., :, None])[..., 0]
    through = (start * wins).sum(axis=-1, keepdims=True)
    return reach * wins / (np.diagonal(visits, axis1=-2, axis2=-1) * through)


def markov_shares(flow: np.ndarray, flow_variance: np.ndarray) -> np.ndarray:
    """Credit shares (..., K), summing to 1, from counts (..., 1 + K, K + 2) and their variances (1 + K, K + 2)."""
    effects = removal_effects(transition_rows(conserve(flow), flow_variance.sum(axis=-1)))
    return effects / effects.sum(axis=-1, keepdims=True)
