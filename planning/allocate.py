"""The best split of a budget over channels, on posterior draws.

maximise F(x) = sum_c f_c(x_c),   f_c(x) = sum_d w_d sum_g B[d,g,c] Hill(u[g,c] p[g,c] x; k[d,c], n[d,c])
subject to sum_c x_c = budget and lower <= x <= upper.

The geo split p of a channel stays as it is today, so the problem is separable. Hill curves with slope over 1 are not
concave: a dynamic programme over a grid finds the right basin, SLSQP walks from it and from other starts, and Newton's
method on the optimality conditions f_c'(x_c) = lambda finishes. Money is counted in cents.

| on paper | here | unit |
|---|---|---|
| x[c] | spend | currency per period, all geos |
| p[g,c] | shares | share of the channel's spend |
| f'_c | marginal | KPI units per currency |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import LinearConstraint, minimize

from contracts.errors import ContractError
from contracts.response import SteadyResponse
from planning.summary import weighted_interval

GRID = 201  # budget steps of the dynamic programme
COARSE_DRAWS = 300  # draws used to look for the basin; the finish uses all
RANDOM_STARTS = 2
NEWTON_STEPS = 60
CENT = 100
OBJECTIVES = ("mean",)


@dataclass(frozen=True, slots=True)
class Split:
    """One split of a budget and what it brings, draw by draw."""

    channels: tuple[str, ...]
    spend: np.ndarray  # (C,), currency per period, whole cents; sums to the budget
    reference: np.ndarray  # (C,), the current proportions at the same budget
    expected: float  # KPI units per period
    interval: dict[str, float]  # of the outcome, KPI units per period
    outcome: np.ndarray  # (D,) draws, KPI units per period
    gain: np.ndarray  # (D,) draws: outcome − outcome of the reference on the same draw
    gain_interval: dict[str, float]
    gain_probability: float  # that the gain is positive
    marginal: np.ndarray  # (C,), KPI units per currency at the split
    extrapolated: tuple[str, ...]  # channels whose planned spend is over anything observed
    kkt_residual: float  # largest breach of the optimality conditions, relative to the price of money
    starts: int


@dataclass(frozen=True, slots=True)
class Curves:
    """f_c of every channel over a set of draws."""

    amplitude: np.ndarray  # (D, G, C), weighted: summed over draws it is the mean
    dose: np.ndarray  # (G, C), saturation units per currency of the channel's total
    half: np.ndarray  # (D, 1, C)
    slope: np.ndarray  # (D, 1, C)

    def value(self, x: np.ndarray) -> np.ndarray:
        """f_c (C,), KPI units per period, at spend x (C,)."""
        share, _ = self._share(x)
        return np.einsum("dgc,dgc->c", self.amplitude, share)

    def slope_at(self, x: np.ndarray) -> np.ndarray:
        """f'_c (C,), KPI units per currency. At no spend: the limit from the right (inf where the Hill slope < 1)."""
        share, safe = self._share(x)
        return np.einsum("dgc,dgc->c", self.amplitude, self.slope * share * (1 - share)) / safe

    def bend(self, x: np.ndarray) -> np.ndarray:
        """f''_c (C,), KPI units per currency²."""
        share, safe = self._share(x)
        n = self.slope
        second = n * share * (1 - share) * (n - 1 - 2 * n * share)
        return np.einsum("dgc,dgc->c", self.amplitude, second) / safe**2

    def _share(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hill share (D, G, C) of saturation, and spend kept off zero by a ten-thousandth of a cent."""
        safe = np.maximum(x, 1e-6)
        dose = self.dose * safe
        with np.errstate(divide="ignore"):
            log_ratio = self.slope * (np.log(dose)[None] - np.log(self.half))
        return 1.0 / (1.0 + np.exp(np.clip(-log_ratio, -700.0, 700.0))) * (dose > 0), safe


def geo_shares(response: SteadyResponse) -> np.ndarray:
    """Share (G, C) of a channel's spend by geo: today's. For a channel that is dark today, by expected amplitude over
    the geos where it ever ran; even over all geos for a channel that never ran."""
    current = response.current_spend
    size = np.einsum("d,dgc->gc", response.weights, response.amplitude) * (response.unit > 0)
    mass = np.where(current.sum(axis=0) > 0, current, size)
    mass = np.where(mass.sum(axis=0) > 0, mass, 1.0)
    return mass / mass.sum(axis=0)


def outcome_draws(response: SteadyResponse, spend: np.ndarray) -> np.ndarray:
    """Outcome (D, G, C) in KPI units per period of channel spend (C,), currency per period, geo split as today."""
    return response.evaluate(geo_shares(response) * spend)


def best_split(
    response: SteadyResponse,
    budget: float,
    *,
    lower: np.ndarray,
    upper: np.ndarray,
    objective: str = "mean",
    seed: int = 0,
) -> Split:
    """Best split of `budget` (currency per period, all geos) with lower <= spend <= upper (C,), on posterior draws.

    The answer spends the budget to the cent. Raises ContractError for bounds that no split can meet, naming them and
    the smallest relaxation. `seed` only picks the random starts.
    """
    if objective not in OBJECTIVES:
        raise ContractError(f"objective must be one of {', '.join(OBJECTIVES)}; got {objective!r}.")
    cents, low, high = _check(response, budget, np.asarray(lower, float), np.asarray(upper, float))
    total = cents / CENT
    fine, coarse = _curves(response, None), _curves(response, COARSE_DRAWS)
    reference = _proportional(response, total)
    starts = [_project(s, low, high, total) for s in _starts(coarse, reference, low, high, total, seed)]
    walked = [_walk(coarse, s, low, high, total) for s in starts]
    best = sorted([*starts, *walked], key=lambda x: float(coarse.value(x).sum()), reverse=True)[:3]
    polished = [_newton(fine, _walk(fine, x, low, high, total), low, high, total) for x in best]
    found = max([*polished, *best], key=lambda x: float(fine.value(x).sum()))
    spend = _whole_cents(found, fine, cents, low, high)
    return _describe(response, fine, spend, reference, low, high, len(starts))


def _describe(
    response: SteadyResponse,
    curves: Curves,
    spend: np.ndarray,
    reference: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    starts: int,
) -> Split:
    outcome = outcome_draws(response, spend).sum(axis=(1, 2))
    gain = outcome - outcome_draws(response, reference).sum(axis=(1, 2))
    over = spend > response.observed_max * (1 + 1e-9)
    return Split(
        channels=response.channels,
        spend=spend,
        reference=reference,
        expected=float(response.weights @ outcome),
        interval=weighted_interval(outcome, response.weights),
        outcome=outcome,
        gain=gain,
        gain_interval=weighted_interval(gain, response.weights),
        gain_probability=float(response.weights @ (gain > 0)),
        marginal=curves.slope_at(spend),
        extrapolated=tuple(c for c, far in zip(response.channels, over, strict=True) if far),
        kkt_residual=kkt_residual(curves.slope_at(spend), spend, low, high),
        starts=starts,
    )


def _check(
    response: SteadyResponse, budget: float, lower: np.ndarray, upper: np.ndarray
) -> tuple[int, np.ndarray, np.ndarray]:
    """Budget in cents, and bounds in currency read outwards to whole cents so that a fixed channel stays feasible."""
    names = response.channels
    if not (np.isfinite(budget) and budget > 0):
        raise ContractError(f"budget must be a finite number > 0; got {budget}.")
    if lower.shape != (len(names),) or upper.shape != (len(names),):
        raise ContractError(f"bounds need one figure per channel ({len(names)}); got {lower.shape} and {upper.shape}.")
    for name, a, b in zip(names, lower, upper, strict=True):
        if not (np.isfinite(a) and a >= 0) or np.isnan(b):
            raise ContractError(f"bounds of channel {name!r} must be numbers >= 0; got {a} to {b}.")
        if a > b:
            raise ContractError(f"channel {name!r} must spend at least {a:.2f} and at most {b:.2f}; lower the first.")
    cents = round(budget * CENT)
    low = np.floor(lower * CENT + 1e-6) / CENT
    high = np.ceil(np.minimum(upper, np.maximum(budget + 1.0, lower)) * CENT - 1e-6) / CENT
    least, most = round(low.sum() * CENT), round(high.sum() * CENT)
    if least > cents:
        clash = ", ".join(f"{n} ({a:.2f})" for n, a in zip(names, low, strict=True) if a > 0)
        raise ContractError(
            f"the lower bounds of {clash} add up to {least / CENT:.2f}, more than the budget of {cents / CENT:.2f}; "
            f"raise the budget or lower these bounds by {(least - cents) / CENT:.2f} in all."
        )
    if most < cents:
        clash = ", ".join(f"{n} ({b:.2f})" for n, b in zip(names, high, strict=True))
        raise ContractError(
            f"the upper bounds of {clash} add up to {most / CENT:.2f}, less than the budget of {cents / CENT:.2f}; "
            f"lower the budget or raise these bounds by {(cents - most) / CENT:.2f} in all."
        )
    return cents, low, high


def _curves(response: SteadyResponse, draws: int | None) -> Curves:
    """Curves over all draws, or over `draws` of them picked systematically in proportion to their weights."""
    weights = response.weights
    at = np.arange(len(weights))
    if draws is not None and draws < len(weights):
        at = np.searchsorted(np.cumsum(weights), (np.arange(draws) + 0.5) / draws).clip(0, len(weights) - 1)
        weights = np.full(len(response.weights), 1.0 / draws)
    return Curves(
        amplitude=response.amplitude[at] * weights[at][:, None, None],
        dose=response.unit * geo_shares(response),
        half=response.half_saturation[at][:, None, :],
        slope=response.slope[at][:, None, :],
    )


def _proportional(response: SteadyResponse, total: float) -> np.ndarray:
    """Today's proportions (C,) at the given budget; even where nothing is spent today."""
    current = response.current_spend.sum(axis=0)
    if current.sum() <= 0:
        return np.full(len(current), total / len(current))
    return total * current / current.sum()


def _starts(
    curves: Curves, reference: np.ndarray, low: np.ndarray, high: np.ndarray, total: float, seed: int
) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    random = [total * rng.dirichlet(np.ones(len(low))) for _ in range(RANDOM_STARTS)]
    room = np.minimum(high, total) - low
    return [_by_grid(curves, low, high, total), reference, low + room, *random]


def _project(x: np.ndarray, low: np.ndarray, high: np.ndarray, total: float) -> np.ndarray:
    """Nearest point (C,) to x with the given sum inside the bounds: clip(x + shift), the shift by bisection."""
    a, b = float((low - x).min()), float((high - x).max())
    for _ in range(200):
        shift = (a + b) / 2
        if np.clip(x + shift, low, high).sum() > total:
            b = shift
        else:
            a = shift
    return np.clip(x + (a + b) / 2, low, high)


def _by_grid(curves: Curves, low: np.ndarray, high: np.ndarray, total: float) -> np.ndarray:
    """Best split (C,) on a grid of the budget above the lower bounds, by dynamic programming: finds the right basin of
    S-shaped curves whatever their number."""
    free = total - low.sum()
    steps = np.linspace(0.0, free, GRID)
    table = np.array([curves.value(low + s) for s in steps]).T  # (C, GRID)
    table = np.where(low[:, None] + steps <= high[:, None] + 1e-9, table, -np.inf)
    return low + steps[knapsack(table)]


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


def _walk(curves: Curves, start: np.ndarray, low: np.ndarray, high: np.ndarray, total: float) -> np.ndarray:
    """SLSQP from `start` in units of the budget and of the outcome; never returns less than it was given."""
    scale = max(float(curves.value(start).sum()), 1e-12)
    result = minimize(
        lambda y: -float(curves.value(y * total).sum()) / scale,
        start / total,
        jac=lambda y: -curves.slope_at(y * total) * total / scale,
        method="SLSQP",
        bounds=list(zip(low / total, high / total, strict=True)),
        constraints=LinearConstraint(np.ones((1, len(start))), 1.0, 1.0),
        options={"ftol": 1e-12, "maxiter": 200},
    )
    walked = _project(result.x * total, low, high, total)
    return walked if curves.value(walked).sum() > curves.value(start).sum() else start


def _newton(curves: Curves, start: np.ndarray, low: np.ndarray, high: np.ndarray, total: float) -> np.ndarray:
    """Newton on f'_c(x_c) = lambda over the channels off their bounds, with backtracking; x (C,) keeps its sum."""
    x, value = start, float(curves.value(start).sum())
    for _ in range(NEWTON_STEPS):
        gradient, bend = curves.slope_at(x), curves.bend(x)
        inside = (x > low + 1e-9) & (x < high - 1e-9)
        price = float(np.median(gradient[inside])) if inside.any() else float(gradient.mean())
        free = inside | ((x <= low + 1e-9) & (gradient > price)) | ((x >= high - 1e-9) & (gradient < price))
        free &= high - low > 1e-9
        if free.sum() < 2:
            break
        # Where the curve bends up, Newton would go to a minimum: a bend of that size downwards gives the ascent step.
        down = np.maximum(np.abs(bend), 1e-12 * (np.abs(gradient) + 1e-300))
        price = float((gradient[free] / down[free]).sum() / (1 / down[free]).sum())
        step = np.where(free, (gradient - price) / down, 0.0)
        size, moved = 1.0, False
        while size > 1e-8 and not moved:
            trial = _project(x + size * step, low, high, total)
            trial_value = float(curves.value(trial).sum())
            moved, size = trial_value > value, size / 2
        if not moved:
            break
        x, value = trial, trial_value
    return x


def _whole_cents(x: np.ndarray, curves: Curves, cents: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """x (C,) in whole cents that sum to the budget: rounded down, the cents left over go to the largest remainders."""
    least, most = np.rint(low * CENT).astype(int), np.rint(high * CENT).astype(int)
    whole = np.clip(np.floor(x * CENT + 1e-6).astype(int), least, most)
    left = cents - int(whole.sum())
    order = np.argsort(-(x * CENT - whole), kind="stable")
    while left:
        sign = 1 if left > 0 else -1
        room = [c for c in order if (whole[c] < most[c] if sign > 0 else whole[c] > least[c])]
        for c in room[: abs(left)]:
            whole[c] += sign
        left -= sign * min(abs(left), len(room))
    return whole / CENT


def kkt_residual(gradient: np.ndarray, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Largest breach of the optimality conditions, relative to the price of money: with price lambda, f' = lambda off
    the bounds, f' <= lambda at a lower and f' >= lambda at an upper bound. Channels with no room do not count."""
    tolerance = 1.0 / CENT
    open_ = high - low > tolerance
    at_low, at_high = open_ & (x <= low + tolerance), open_ & (x >= high - tolerance)
    inside = open_ & ~at_low & ~at_high
    if inside.any():
        price = float(np.median(gradient[inside]))
    elif at_low.any() and at_high.any():
        price = float((gradient[at_low].max() + gradient[at_high].min()) / 2)
    else:
        return 0.0
    breach = np.concatenate(
        [np.abs(gradient[inside] - price), gradient[at_low] - price, price - gradient[at_high], [0.0]]
    )
    return float(max(breach.max(), 0.0) / max(abs(price), 1e-300))
