"""From plan to actual: what the difference is made of, and whether the recommendation was right.

In this order, each step from where the last one ended, so that the steps sum to the difference exactly:

| step | what changes |
|---|---|
| spend | the total, the planned mix kept |
| mix | the actual split over channels, periods and geos |
| price and currency | cost per exposure, exchange rate and worth of a KPI unit, as they came |
| effectiveness | what the refitted model says that the same spend brought |
| baseline | demand without paid media, refitted, against the forecast |
| noise | what the known noise of the released KPI explains of the rest: its share of the variance |
| residual | what nothing explains; named, never put into the baseline |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from contracts.errors import ContractError
from contracts.intervals import normal_interval
from planning.summary import weighted_interval
from planning.surface import Surface, build_surface, evaluate, value_per_kpi

STEPS = ("spend", "mix", "price and currency", "effectiveness", "baseline", "noise", "residual")


@dataclass(frozen=True, slots=True)
class Actuals:
    """What came: spend (T, G, C) in plan currency, KPI (T,) over all geos with its known noise variance (T,), the
    refit's baseline (D, T) and the variance (T,) of what its model leaves unexplained."""

    spend: np.ndarray
    kpi: np.ndarray
    noise_variance: np.ndarray
    baseline: np.ndarray
    residual_variance: np.ndarray


@dataclass(frozen=True, slots=True)
class Bridge:
    """Plan, steps, actual: `steps` has one row per step (step, mean, sd, p05 to p95) that sum to actual − plan."""

    plan: dict[str, float]
    steps: pd.DataFrame
    actual: float
    unit: str


def bridge(
    planned: Surface,
    refitted: Surface,
    plan: np.ndarray,
    actuals: Actuals,
    baseline: np.ndarray,
    *,
    unit: str = "kpi",
) -> Bridge:
    """Bridge over the plan's periods, worth inside the horizon.

    `planned`: the surface that the plan (T, G, C) was made on, with its assumptions; `baseline` (D, T) its forecast
    without media. `refitted`: the response of a model that has seen the actuals, over the same periods, with the costs,
    rates and prices that came. Raises ContractError where the two are not about the same periods and channels.
    """
    _match(planned, refitted, plan, actuals, baseline)
    t = planned.periods
    then, now = value_per_kpi(planned, _gross(unit))[:t], value_per_kpi(refitted, _gross(unit))[:t]
    same = build_surface(planned.response, planned.start, t, refitted.assumptions)
    total = float(plan.sum())
    scaled = plan * (float(actuals.spend.sum()) / total) if total > 0 else plan
    old = [_media(planned, x) for x in (plan, scaled, actuals.spend)]
    base_then, base_now = baseline, actuals.baseline
    after = _media(same, actuals.spend)
    new = _media(refitted, actuals.spend)
    start = (old[0] + base_then) @ then
    draws = {
        "spend": ((old[1] - old[0]) @ then, planned.weights),
        "mix": ((old[2] - old[1]) @ then, planned.weights),
        "price and currency": ((after + base_then) @ now - (old[2] + base_then) @ then, planned.weights),
        "effectiveness": _apart(new @ now, after @ now, refitted, planned),
        "baseline": _apart(base_now @ now, base_then @ now, refitted, planned),
    }
    left = (actuals.kpi - np.average(new + base_now, axis=0, weights=refitted.weights)) * now
    known = actuals.noise_variance / np.maximum(actuals.noise_variance + actuals.residual_variance, 1e-300)
    rows = [{"step": s} | weighted_interval(d, w) for s, (d, w) in draws.items()]
    for step, value in (("noise", float(left @ known)), ("residual", float(left @ (1 - known)))):
        rows.append({"step": step} | normal_interval(value, 0.0))
    return Bridge(
        plan=weighted_interval(start, planned.weights),
        steps=pd.DataFrame(rows),
        actual=float(actuals.kpi @ now),
        unit=_gross(unit),
    )


def score_recommendation(stated: Mapping[str, float], found: np.ndarray, weights: np.ndarray) -> dict[str, object]:
    """How a recommendation of last time looks now: `stated` is its interval (sd, p10, p50, p90 of the gain), `found`
    (D,) the draws of the same gain under a model that has seen what came.

    inside: the new median lies in the stated 80 % interval; right: the move is now more likely than not to have paid;
    probability: of that; off_by: new median minus stated, in stated standard deviations.
    """
    now = weighted_interval(found, weights)
    paid = float(weights @ (found > 0))
    sd = stated["sd"]
    return {
        "inside": bool(stated["p10"] <= now["p50"] <= stated["p90"]),
        "right": paid > 0.5,
        "probability": min(paid, 1.0),
        "off_by": (now["p50"] - stated["p50"]) / sd if sd > 0 else float("nan"),
    }


def _gross(unit: str) -> str:
    """A bridge is of the KPI or of revenue: contribution after media mixes cost with effect."""
    if unit not in ("kpi", "revenue"):
        raise ContractError(f"a bridge is drawn in 'kpi' or 'revenue'; got {unit!r}.")
    return unit


def _media(surface: Surface, spend: np.ndarray) -> np.ndarray:
    """KPI (D, T) of a plan and of what was in flight, inside the horizon, all channels."""
    found = evaluate(surface, spend)
    return (found.plan + found.in_flight)[:, :, : surface.periods].sum(axis=0)


def _apart(new: np.ndarray, old: np.ndarray, refitted: Surface, planned: Surface) -> tuple[np.ndarray, np.ndarray]:
    """new minus old for independent draws of two fits, and equal weights: drawn as often as the longer has draws, the
    order of one shuffled; shifted by the Monte Carlo error so that the mean is the difference of the means."""
    size = max(len(new), len(old))
    comb = (np.arange(size) + 0.5) / size
    a, b = (
        draws[np.searchsorted(np.cumsum(s.weights), comb).clip(0, len(draws) - 1)]
        for draws, s in ((new, refitted), (old, planned))
    )
    found = a - b[np.random.default_rng(0).permutation(size)]
    exact = float(refitted.weights @ new) - float(planned.weights @ old)
    return found - found.mean() + exact, np.full(size, 1.0 / size)


def _match(planned: Surface, refitted: Surface, plan: np.ndarray, actuals: Actuals, baseline: np.ndarray) -> None:
    if (planned.start, planned.periods) != (refitted.start, refitted.periods):
        raise ContractError(
            f"plan and actuals must cover the same periods; got {planned.periods} from {planned.start} and "
            f"{refitted.periods} from {refitted.start}."
        )
    for what in ("channels", "geos"):
        if getattr(planned.response, what) != getattr(refitted.response, what):
            raise ContractError(f"plan and refit must hold the same {what} in the same order.")
    if planned.currency != refitted.currency:
        raise ContractError(f"the plan is in {planned.currency} and the actuals are in {refitted.currency}.")
    t = planned.periods
    shapes = {
        "plan": (plan, planned.shape), "actual spend": (actuals.spend, planned.shape),
        "actual KPI": (actuals.kpi, (t,)),
        "noise variance": (actuals.noise_variance, (t,)), "residual variance": (actuals.residual_variance, (t,)),
        "planned baseline": (baseline, (planned.response.draws, t)),
        "actual baseline": (actuals.baseline, (refitted.response.draws, t)),
    }  # fmt: skip
    for name, (value, shape) in shapes.items():
        if value.shape != shape:
            raise ContractError(f"{name} must have shape {shape}; got {value.shape}.")
        if not np.isfinite(value).all():
            raise ContractError(f"{name} holds values that are not finite; leave such periods out.")
