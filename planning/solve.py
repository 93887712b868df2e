"""Maximises a smooth function under linear rows: sequential quadratic programming in a trust region.

Each step solves  max g'd − ½ d'Bd,  rows hold at z + d,  |d| <= radius,  with B the positive part of −F'' (blocks), by
Clarabel (Goulart and Chen, 2024), an interior-point solver for sparse problems; the radius follows the ratio of true to
promised gain (Nocedal and Wright, 2006, algorithm 4.1). SLSQP keeps a dense N × N matrix and is out of reach at 19,500
amounts (30 channels × 13 weeks × 50 geos).

How far the answer can be from the best is bounded by `gap = max over all plans of g'(x − z)` (Frank and Wolfe, 1956), a
linear programme: an upper bound wherever F is concave, and 0 exactly where the optimality conditions hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import clarabel
import numpy as np
from scipy.sparse import csc_matrix, diags, identity, triu, vstack

from planning.limits import Rows, best_vertex, feasible_point

ITERATIONS = 60
SMALLEST_RADIUS = 1e-7
FLOOR = 1e-9  # curvature that every amount has, relative to the largest


@dataclass(frozen=True, slots=True)
class Local:
    """F and its derivatives at a point."""

    gradient: np.ndarray  # (N,)
    blocks: np.ndarray  # (B, K, K) of F''
    groups: np.ndarray  # (B, K)


@dataclass(frozen=True, slots=True)
class Solved:
    """Where the walk ended."""

    z: np.ndarray
    value: float
    gap: float  # what a linear programme says could still be won, units of F
    iterations: int


def maximise(
    value: Callable[[np.ndarray], float],
    local: Callable[[np.ndarray], Local],
    start: np.ndarray,
    rows: Rows,
    *,
    scale: float,
    tolerance: float = 1e-7,
    iterations: int = ITERATIONS,
) -> Solved:
    """Local best from a feasible `start` (N,). Never ends below it. `tolerance` is the promised gain, in units of
    `scale` (the size of what is at stake), under which the walk ends."""
    z, best = start, value(start)
    unit = max(float(start.sum()) / max(len(start), 1), float(np.max(start)) * 1e-3, 1e-9)
    radius, at, done = 1.0, local(start), 0
    while done < iterations:
        done += 1
        found = _step(at, z, rows, unit, radius)
        enough = tolerance * scale
        if found is None or found[1] < -enough:
            radius *= 0.3  # the subproblem was too badly scaled for this region; the gap tells if the walk ends early
            if radius < SMALLEST_RADIUS:
                break
            continue
        step, promised = found
        if promised <= enough:
            break
        candidate = np.clip(z + step, 0.0, rows.top)
        reached = value(candidate)
        ratio = (reached - best) / promised
        if ratio > 1e-3:
            z, best, at = candidate, reached, local(candidate)
        if ratio > 0.7:
            radius = min(2.5 * radius, 1e3)
        elif ratio < 0.25:
            radius *= 0.3
        if radius < SMALLEST_RADIUS:
            break
    vertex = best_vertex(at.gradient, rows)
    return Solved(z, best, max(float(at.gradient @ (vertex - z)), 0.0), done)


def nearest(point: np.ndarray, rows: Rows) -> np.ndarray:
    """The plan z (N,) that keeps every row and lies nearest to `point` (N,), relative to its sizes."""
    unit = max(float(point.mean()), 1e-9)
    curvature = -1.0 / np.maximum(point, unit) ** 2
    at = Local(np.zeros(len(point)), curvature[:, None, None], np.arange(len(point))[:, None])
    found = _step(at, point, rows, unit, None)
    if found is None:
        return feasible_point(rows)
    return np.clip(point + found[0], 0.0, rows.top)


def _step(at: Local, z: np.ndarray, rows: Rows, unit: float, radius: float | None) -> tuple[np.ndarray, float] | None:
    """Best step (N,) of the quadratic model inside the trust region, and the gain that the model promises; None where
    the solver gives up."""
    blocks, reach = _positive_part(-at.blocks), np.maximum(z, unit)  # the region is relative to what is spent now
    slope = float(np.abs(at.gradient * reach).max(initial=0.0))
    steep = np.diagonal(blocks, axis1=1, axis2=2).ravel() * reach**2
    size = max(slope, float(np.median(steep)), 1e-300)
    scale = reach / np.sqrt(np.maximum(steep / size, 1.0))  # Jacobi's: an amount at nothing may bend without end
    curvature = blocks * scale[at.groups][:, :, None] * scale[at.groups][:, None, :]
    quadratic = csc_matrix(_sparse(curvature / size, at.groups, len(z)) + FLOOR * identity(len(z)))
    region = None if radius is None else radius * reach / scale
    step = _clarabel(quadratic, -at.gradient * scale / size, rows, z, scale, unit, region)
    if step is None:
        return None
    promised = size * float(step @ (at.gradient * scale / size) - 0.5 * step @ (quadratic @ step))
    return step * scale, promised


def _positive_part(blocks: np.ndarray) -> np.ndarray:
    """Nearest positive semidefinite blocks (B, K, K)."""
    if blocks.shape[1] == 1:
        return np.maximum(blocks, 0.0)
    values, vectors = np.linalg.eigh(blocks)
    return (vectors * np.maximum(values, 0.0)[:, None, :]) @ vectors.transpose(0, 2, 1)


def _sparse(blocks: np.ndarray, groups: np.ndarray, n: int) -> csc_matrix:
    k = groups.shape[1]
    row, column = np.repeat(groups, k, axis=1).ravel(), np.tile(groups, (1, k)).ravel()
    return csc_matrix((blocks.ravel(), (row, column)), shape=(n, n))


def _clarabel(
    quadratic: csc_matrix,
    linear: np.ndarray,
    rows: Rows,
    z: np.ndarray,
    scale: np.ndarray,
    unit: float,
    region: np.ndarray | None,
) -> np.ndarray | None:
    """Least ½ d'Qd + l'd (d in units of `scale`) over the rows, the bounds and the region."""
    matrix = csc_matrix(rows.matrix @ diags(scale))
    norm = np.maximum(np.abs(matrix).max(axis=1).toarray().ravel(), unit)
    matrix, here = diags(1 / norm) @ matrix, rows.matrix @ z
    high, low = (rows.high - here) / norm, (rows.low - here) / norm
    fixed = high - low <= 1e-9
    least, most = -z / scale, (rows.top - z) / scale
    if region is not None:
        least, most = np.maximum(least, -region), np.minimum(most, region)
    dead = rows.top <= 0
    eye = identity(len(z), format="csr")
    above, below = ~fixed & np.isfinite(high), ~fixed & np.isfinite(low)
    roof, floor = ~dead & np.isfinite(most), ~dead
    blocks = [matrix.tocsr()[fixed], eye[dead], matrix.tocsr()[above], -matrix.tocsr()[below], eye[roof], -eye[floor]]
    bound = [high[fixed], 0 * z[dead], high[above], -low[below], most[roof], -least[floor]]
    zeros = int(fixed.sum() + dead.sum())
    right = np.concatenate(bound)
    cones = [clarabel.ZeroConeT(zeros), clarabel.NonnegativeConeT(len(right) - zeros)]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    solver = clarabel.DefaultSolver(
        csc_matrix(triu(quadratic)), linear, csc_matrix(vstack(blocks)), right, cones, settings
    )
    solution = solver.solve()
    good = (clarabel.SolverStatus.Solved, clarabel.SolverStatus.AlmostSolved)
    return np.asarray(solution.x) if solution.status in good else None


def knapsack(table: np.ndarray) -> np.ndarray:
    """Steps (C,) for each channel that use up the K − 1 steps there are (or as many as can be) and sum to the largest
    worth; `table` (C, K) is the worth of 0 to K − 1 steps, -inf where a channel may not take so many."""
    channels, size = table.shape
    best, picks = table[0], []
    for c in range(1, channels):
        sums = np.full((size, size), -np.inf)  # [budget, given to c]
        for k in range(size):
            sums[k:, k] = best[: size - k] + table[c, k]
        picks.append(sums.argmax(axis=1))
        best = sums.max(axis=1)
    left = int(np.flatnonzero(np.isfinite(best))[-1])
    steps = np.zeros(channels, dtype=int)
    for c in range(channels - 1, 0, -1):
        steps[c] = picks[c - 1][left]
        left -= int(steps[c])
    steps[0] = left
    return steps
