"""What is decided: one amount per channel, channel × period, channel × geo, or every cell; the rest keeps a pattern."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from contracts.errors import ContractError
from planning.surface import Surface, held

KINDS = ("channel", "channel_period", "channel_geo", "cell")
CENT = 100


@dataclass(frozen=True, slots=True)
class Decision:
    """x = to_cells · z. Curvature of F is block-diagonal over `groups` of variables."""

    kind: str
    to_cells: csr_array  # (T G C, N)
    groups: np.ndarray  # (B, K) positions of the variables of each block
    pattern: np.ndarray  # (T, G, C) share of its variable in each cell
    top: np.ndarray  # (N,) inf, or 0 where nothing can be spent
    shape: tuple[int, int, int]

    def cells(self, z: np.ndarray) -> np.ndarray:
        """Plan (T, G, C) of amounts (N,)."""
        return (self.to_cells @ z).reshape(self.shape)

    def amounts(self, spend: np.ndarray) -> np.ndarray:
        """Amounts (N,) of a plan (T, G, C): sums over what is not decided."""
        return csr_array(self.to_cells != 0).astype(float).T @ spend.ravel()

    def gradient(self, cells: np.ndarray) -> np.ndarray:
        """Gradient (N,) from that of the cells (T, G, C)."""
        return self.to_cells.T @ cells.ravel()

    def blocks(self, cells: np.ndarray) -> np.ndarray:
        """Second derivatives (B, K, K) from those of the cells (C, G, T, T)."""
        p = self.pattern
        if self.kind == "channel":
            return np.einsum("cgts,tgc,sgc->c", cells, p, p)[:, None, None]
        if self.kind == "channel_geo":
            return np.einsum("cgts,tgc,sgc->cg", cells, p, p).reshape(-1, 1, 1)
        if self.kind == "channel_period":
            return np.einsum("cgts,tgc,sgc->cts", cells, p, p)
        return cells.reshape(-1, *cells.shape[2:])


def build_decision(surface: Surface, kind: str, reference: np.ndarray | None = None) -> Decision:
    """The decision `kind`; what it leaves open follows `reference` (T, G, C), where that spends, else today's geos and
    even periods. Raises ContractError for an unknown kind."""
    if kind not in KINDS:
        raise ContractError(f"a plan is decided by {', '.join(KINDS)}; got {kind!r}.")
    t, g, c = surface.shape
    axes = {"channel": (0, 1), "channel_period": (1,), "channel_geo": (0,), "cell": ()}[kind]
    flat = held(surface, np.ones(c))
    base = flat if reference is None else np.where(reference.sum(axis=axes, keepdims=True) > 0, reference, flat)
    usable = np.broadcast_to(surface.per_spend > 0, surface.shape)
    base = np.where(usable, np.maximum(base, 0.0), 0.0) if axes else usable.astype(float)
    mass = base.sum(axis=axes, keepdims=True)
    fallback = usable / np.maximum(usable.sum(axis=axes, keepdims=True), 1)
    pattern = np.where(mass > 0, base / np.where(mass > 0, mass, 1.0), fallback)
    columns = {
        "channel": np.broadcast_to(np.arange(c), (t, g, c)),
        "channel_period": np.broadcast_to(np.arange(t)[:, None, None] + t * np.arange(c), (t, g, c)),
        "channel_geo": np.broadcast_to(np.arange(g)[:, None] + g * np.arange(c), (t, g, c)),
        "cell": np.broadcast_to(
            np.arange(t)[:, None, None] + t * (np.arange(g)[:, None] + g * np.arange(c)), (t, g, c)
        ),
    }[kind]
    n = int(columns.max()) + 1
    to_cells = csr_array((pattern.ravel(), (np.arange(t * g * c), columns.ravel())), shape=(t * g * c, n))
    width = t if kind in ("channel_period", "cell") else 1
    reachable = np.bincount(columns.ravel(), weights=pattern.ravel(), minlength=n) > 0
    top = np.where(reachable, np.inf, 0.0)
    return Decision(kind, to_cells, np.arange(n).reshape(-1, width), pattern, top, (t, g, c))


def whole_cents(spend: np.ndarray) -> np.ndarray:
    """The plan (T, G, C) in whole cents: channels first, then their periods, then geos, each sum kept by the largest
    remainders, so that no sum moves by more than a cent and the total by less than half a cent."""
    total = round(float(spend.sum()) * CENT)
    channels = _largest_remainder(spend.sum(axis=(0, 1)), total)
    out = np.zeros(spend.shape)
    for c, cents in enumerate(channels):
        periods = _largest_remainder(spend[:, :, c].sum(axis=1), int(cents))
        for t, part in enumerate(periods):
            out[t, :, c] = _largest_remainder(spend[t, :, c], int(part))
    return out / CENT


def _largest_remainder(amounts: np.ndarray, cents: int) -> np.ndarray:
    """Whole cents (N,) that sum to `cents` and lie next to `amounts` (N,)."""
    exact = amounts * CENT
    exact = exact * (cents / exact.sum()) if exact.sum() > 0 else exact
    floor = np.floor(exact + 1e-6)
    left = cents - int(floor.sum())
    order = np.argsort(-(exact - floor), kind="stable")
    if left > 0:
        floor[np.resize(order, left) if left > len(order) else order[:left]] += 1
    elif left < 0:
        poorest = [i for i in order[::-1] if floor[i] > 0][:-left]
        floor[poorest] -= 1
    return floor
