"""What a planned spend would bring over the planning period, from the posterior draws. Pure functions; no sampling.

A plan is one spend per channel in currency per period, held, in the order of the model's channels. Outcomes are of the
response in time: what earlier spend still brings counts for no plan, what a plan works after the period counts for it.
They are shown per period of the plan (the whole ÷ its periods). Scenario and current split are evaluated on the same
draws, so their difference is paired: what both share cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from app.figures import Estimate, weighted_interval
from app.wording import Units, percent
from contracts.errors import ContractError
from planning.scenarios import DUST, today
from planning.surface import Surface, evaluate, held
from planning.surface import extrapolated as beyond_observed

GUARDRAIL = 0.30  # how far a channel may move from its current spend unless the user widens it
QUERY_PREFIX = "spend."


@dataclass(frozen=True, slots=True)
class Comparison:
    """Outcome of a plan against the current split, KPI units per period of the plan."""

    current: Estimate
    planned: Estimate
    change: Estimate
    probability: float  # that the plan brings more than the current split
    rows: pd.DataFrame  # channel, current_spend, spend, spend_change, mean, p05, p95 (change of outcome)

    @property
    def moved(self) -> bool:
        """True when any channel's outcome differs from that of the current split."""
        return bool((self.rows[["mean", "p05", "p95"]] != 0).any(axis=None))


def current(surface: Surface) -> np.ndarray:
    """Current spend per channel over all geos, shape (C,), currency per period."""
    return today(surface)


def from_changes(surface: Surface, changes: Mapping[str, float]) -> np.ndarray:
    """Spend (C,) from changes as shares of current spend; channels not named keep theirs."""
    return current(surface) * np.array([1 + changes.get(c, 0.0) for c in surface.response.channels])


def outcome(surface: Surface, spend: np.ndarray) -> np.ndarray:
    """KPI units per period of the plan (D, C) that a held spend (C,) brings."""
    found = evaluate(surface, held(surface, spend))
    return (found.within + found.beyond) / surface.periods


def compare(surface: Surface, spend: np.ndarray) -> Comparison:
    """Outcome of `spend` (C,) against the current split. Raises ContractError for a negative or wrong-sized spend."""
    channels = surface.response.channels
    if spend.shape != (len(channels),) or not np.isfinite(spend).all() or (spend < 0).any():
        raise ContractError(f"a plan needs one spend >= 0 for each of {len(channels)} channels; got {spend}.")
    before = current(surface)
    now, plan = outcome(surface, before), outcome(surface, spend)
    change, weights = plan - now, surface.weights
    change[np.abs(change) <= DUST * np.abs(now)] = 0.0  # dust of the arithmetic is no change
    each = [weighted_interval(change[:, c], weights) for c in range(len(channels))]
    rows = pd.DataFrame(
        {
            "channel": channels,
            "current_spend": before,
            "spend": spend,
            "spend_change": np.divide(spend, before, out=np.full_like(before, np.nan), where=before > 0) - 1,
            "mean": [e.mean for e in each],
            "p05": [e.p05 for e in each],
            "p95": [e.p95 for e in each],
        }
    )
    total = change.sum(axis=1)
    return Comparison(
        weighted_interval(now.sum(axis=1), weights),
        weighted_interval(plan.sum(axis=1), weights),
        weighted_interval(total, weights),
        float(weights @ (total > 0)),
        rows,
    )


def verdict(change: Estimate, probability: float) -> str:
    """One sentence on signal against noise."""
    if change.p05 == change.mean == change.p95 == 0:
        return "The scenario brings what the current split brings."
    if change.p05 > 0:
        return "The scenario brings more than the current split: its 90 % interval lies above zero."
    if change.p95 < 0:
        return "The scenario brings less than the current split: its 90 % interval lies below zero."
    # A probability of exactly 0 or 1 would be a statement about the number of draws, not about the world.
    chance = min(max(probability, 0.01), 0.99)
    return f"Noise and signal are not told apart: the interval holds zero (chance of a gain: {percent(chance)})."


def guardrails(surface: Surface, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest spend (C,): current spend ± `share`; 0 to the observed maximum where there is none now."""
    now, most = current(surface), surface.response.steady.observed_max / surface.assumptions.rate
    return now * (1 - share), np.where(now > 0, now * (1 + share), most)


def hold_locked(
    low: np.ndarray, high: np.ndarray, spend: np.ndarray, locked: Sequence[bool]
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds in which a locked channel can only keep the spend that it has."""
    hold = np.asarray(locked, dtype=bool)
    return np.where(hold, spend, low), np.where(hold, spend, high)


def hold_total(
    spend: np.ndarray, budget: float, keep: Sequence[bool], low: np.ndarray, high: np.ndarray
) -> np.ndarray | None:
    """Moves the channels not in `keep` in proportion until the plan adds up to `budget`, inside [low, high].

    Channels that meet a bound stay there and the rest goes on. None when the bounds do not allow the budget.
    """
    plan, free = spend.astype(float).copy(), ~np.asarray(keep, dtype=bool)
    plan[free] = np.clip(plan[free], low[free], high[free])
    for _ in range(len(plan) + 1):
        gap = budget - plan.sum()
        if abs(gap) <= 1e-9 * max(budget, 1.0):
            return plan
        room = free & ((plan < high) if gap > 0 else (plan > low))
        if not room.any():
            return None
        basis = plan[room] if plan[room].sum() > 0 else np.ones(int(room.sum()))
        plan[room] = np.clip(plan[room] + gap * basis / basis.sum(), low[room], high[room])
    return plan if abs(budget - plan.sum()) <= 1e-6 * max(budget, 1.0) else None


def feasible(low: np.ndarray, high: np.ndarray, budget: float, units: Units) -> str:
    """'' when the budget fits into the bounds, else a sentence that says what to change."""
    if budget < low.sum() * (1 - 1e-9):
        return (
            f"The budget of {units.money(budget)} is less than the least that locks and guardrails ask for "
            f"({units.money(low.sum())}): raise it, unlock a channel or widen the guardrails."
        )
    if budget > high.sum() * (1 + 1e-9):
        return (
            f"The budget of {units.money(budget)} is more than locks and guardrails allow "
            f"({units.money(high.sum())}): lower it, unlock a channel or widen the guardrails."
        )
    return ""


def extrapolated(surface: Surface, spend: np.ndarray) -> tuple[str, ...]:
    """Channels whose planned spend goes, in some geo, beyond any exposure that the model has seen there."""
    return beyond_observed(surface, held(surface, spend))


def cells_csv(comparison: Comparison, units: Units) -> str:
    """The scenario as CSV: one row a channel, units in the header, full precision."""
    money, kpi = f"{units.currency}_per_{units.period}", f"{units.kpi}_per_{units.period}"
    names = {
        "current_spend": f"current_spend_{money}",
        "spend": f"spend_{money}",
        "mean": f"change_{kpi}",
        "p05": f"change_{kpi}_p05",
        "p95": f"change_{kpi}_p95",
    }
    total = pd.DataFrame(
        [
            {
                "channel": "total",
                "current_spend": comparison.rows["current_spend"].sum(),
                "spend": comparison.rows["spend"].sum(),
                "spend_change": comparison.rows["spend"].sum() / comparison.rows["current_spend"].sum() - 1,
                "mean": comparison.change.mean,
                "p05": comparison.change.p05,
                "p95": comparison.change.p95,
            }
        ]
    )
    return pd.concat([comparison.rows, total], ignore_index=True).rename(columns=names).to_csv(index=False)


def to_query(channels: Sequence[str], spend: np.ndarray) -> dict[str, str]:
    """Address parameters that carry a plan."""
    return {f"{QUERY_PREFIX}{c}": f"{x:.2f}" for c, x in zip(channels, spend, strict=True)}


def from_query(channels: Sequence[str], params: Mapping[str, str], now: np.ndarray) -> np.ndarray:
    """Plan of an address; channels that it does not name, and values that are no spend, keep the current one."""
    plan = now.astype(float).copy()
    for i, channel in enumerate(channels):
        try:
            value = float(params.get(f"{QUERY_PREFIX}{channel}", ""))
        except ValueError:
            continue
        if np.isfinite(value) and value >= 0:
            plan[i] = value
    return plan


def spend_rows(comparison: Comparison) -> pd.DataFrame:
    """Long form for the bars: channel, plan ('current', 'scenario'), spend."""
    wide = comparison.rows[["channel", "current_spend", "spend"]]
    wide = wide.rename(columns={"spend": "scenario", "current_spend": "current"})
    return wide.melt(id_vars="channel", var_name="plan", value_name="spend")


def change_rows(comparison: Comparison) -> pd.DataFrame:
    """Change of outcome per channel, and the paired total below: channel, mean, p05, p95."""
    total = {"channel": "total", "mean": comparison.change.mean}
    total |= {"p05": comparison.change.p05, "p95": comparison.change.p95}
    return pd.concat([comparison.rows[["channel", "mean", "p05", "p95"]], pd.DataFrame([total])], ignore_index=True)
