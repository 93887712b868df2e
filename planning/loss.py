"""What it costs to let one source alone decide the budget.

    b_s = argmax_b sum_c k[s,c] E f_c(b) − cost(b),     loss[d] = U(b*)[d] − U(b_s)[d]

f_c(b) is channel c's worth of plan b under the reconciled posterior and k[s,c] how many times as much (or as little)
the source says that the channel brought. The plan that the source would choose is valued on the reconciled draws, so a
loss is a statement about money and not about who is right: a source that errs alike everywhere costs little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from contracts.errors import ContractError
from planning.optimise import Problem, worth_of
from planning.summary import weighted_interval
from planning.surface import evaluate

ALL = ""  # channel of the rows where the source decides on every channel


@dataclass(frozen=True, slots=True)
class PlanWorth:
    """Worth of a set of plans under the reconciled posterior."""

    plans: np.ndarray  # (B, T, G, C), the best one first
    draws: np.ndarray  # (D, B)
    by_channel: np.ndarray  # (C, B) expected, before the price of money
    cost: np.ndarray  # (B,)


def plan_worth(problem: Problem, plans: np.ndarray) -> PlanWorth:
    """Worth of plans (B, T, G, C) in the objective's unit, and of each of their channels."""
    surface, worth = problem.surface, worth_of(problem.surface, problem.objective)
    draws, by_channel = [], []
    for plan in plans:
        brought = evaluate(surface, plan).plan @ worth  # (C, D)
        by_channel.append(brought @ surface.weights)
        draws.append(brought.sum(axis=0) - problem.objective.cost * float(plan.sum()))
    cost = problem.objective.cost * plans.sum(axis=(1, 2, 3))
    return PlanWorth(plans, np.stack(draws, axis=1), np.stack(by_channel, axis=1), cost)


def decision_loss(problem: Problem, found: PlanWorth, sources: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Loss of following each source, on all channels that it speaks of and on each of them alone.

    `sources` gives, by source and channel, how many times the reconciled outcome the source says. Columns: source,
    channel ('' for all), factor, spend_change (share, of that channel against the best plan; NaN for all), mean, sd,
    p05 to p95 of the loss in the objective's unit, probability (that following it loses), sorted by mean, largest
    first. Raises ContractError for a channel that is not there or a factor that is no number >= 0.
    """
    channels, weights = problem.surface.response.channels, problem.surface.weights
    best = int((weights @ found.draws).argmax())
    spent = found.plans.sum(axis=(1, 2))  # (B, C)
    rows = []
    for source, factors in sources.items():
        scale = np.ones(len(channels))
        for channel, factor in factors.items():
            if channel not in channels:
                raise ContractError(f"source {source!r} speaks of {channel!r}; the model knows {', '.join(channels)}.")
            if not (np.isfinite(factor) and factor >= 0):
                raise ContractError(f"source {source!r} has a factor of {factor} for {channel!r}; it must be >= 0.")
            scale[channels.index(channel)] = factor
        for name in (ALL, *factors):
            here = scale if name == ALL else np.where(np.array(channels) == name, scale, 1.0)
            chosen = int((here @ found.by_channel - found.cost).argmax())
            chosen = best if np.allclose(here, 1.0) else chosen
            loss = found.draws[:, best] - found.draws[:, chosen]
            c = None if name == ALL else channels.index(name)
            moved = np.nan if c is None or spent[best, c] <= 0 else spent[chosen, c] / spent[best, c] - 1
            rows.append(
                {"source": source, "channel": name, "factor": np.nan if c is None else scale[c], "spend_change": moved}
                | weighted_interval(loss, weights)
                | {"probability": min(float(weights @ (loss > 0)), 1.0)}
            )
    return pd.DataFrame(rows).sort_values(["mean", "source", "channel"], ascending=[False, True, True],
                                          ignore_index=True) if rows else pd.DataFrame()  # fmt: skip
