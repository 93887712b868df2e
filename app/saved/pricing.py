"""What a plan brings, for saving: the planning room's evaluation on the draws of the file that the page shows.

The page and `plumb plan` use the same functions (`planning.scenarios`, `planning.surface`) on the same draws, so a
saved figure cannot differ from the one that was on the screen.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from app import figures
from app.draws import response_id
from app.saved.database import utc_now
from app.saved.scenarios import CELL_FIELDS, CHANNEL_FIELDS, Pricing, Saved, refuse_other_units
from app.store import Snapshot
from contracts.errors import ContractError
from planning.scenarios import evaluate_plan, last_day, plan_of_cells, steady_plan, today
from planning.surface import Surface, build_surface


def surface(s: Snapshot) -> Surface:
    """What plans are priced on. Raises ContractError without a published model."""
    if s.surface is None:
        raise ContractError("a scenario needs a published model; there is none, so nothing was saved. Run `plumb run`.")
    return s.surface


def fit_id(s: Snapshot) -> str:
    """Name of the draws and planning assumptions that the file holds; '' for none."""
    return "" if s.surface is None else response_id(s.surface.response, s.period)


def price(s: Snapshot, plan: Mapping[str, float] | np.ndarray, on: Surface | None = None) -> Pricing:
    """`plan` on the snapshot's draws: spend (T, G, C) in currency per period, or by channel and held.

    Raises ContractError without a published model, and for a plan that does not name the model's channels.
    """
    here = surface(s) if on is None else on
    spend = steady_plan(here, plan) if isinstance(plan, Mapping) else plan
    done = evaluate_plan(here, spend, "priced")
    fit = figures.effect(s, "incremental_kpi")
    stamp = {k: str(fit[k].iloc[0]) if len(fit) else "" for k in ("run_id", "release_id", "evidence_ids")}
    version = str(fit["model_version"].iloc[0]) if len(fit) else s.meta.model_version
    return Pricing(
        currency=s.meta.currency, kpi=s.meta.kpi, period_days=here.response.period_days, period_start=here.start,
        period_end=last_day(here), **stamp, model_version=version, response_id=fit_id(s), priced_at=utc_now(),
        budget=float(spend.sum()) / here.periods, total=done.total, channels=done.channels[list(CHANNEL_FIELDS)],
        cells=done.cells[list(CELL_FIELDS)],
    )  # fmt: skip


def spend_of(pricing: Pricing, here: Surface) -> np.ndarray:
    """A saved plan's spend (T, G, C), currency per period, on a surface of its own period. Raises ContractError unless
    it names the model's channels."""
    known = here.response.channels
    for channel in sorted(set(pricing.plan) ^ set(known)):
        what = f"no spend for channel {channel!r}" if channel in known else f"a spend for {channel!r}, unknown now"
        raise ContractError(f"the plan has {what}; open it, and save it under a new name.")
    return plan_of_cells(here, pricing.cells)


def reprice(s: Snapshot, saved: Saved) -> Pricing:
    """The same plan over the same weeks, on the snapshot's draws. Raises ContractError as `price` does, when money or
    KPI are of another kind than those it was saved with, and when its period has begun."""
    refuse_other_units(saved, s.meta.currency, s.meta.kpi)
    old, here = saved.pricing, surface(s)
    periods = ((old.period_end - old.period_start).days + 1) // here.response.period_days
    if (old.period_start, periods) != (here.start, here.periods):
        plain = all(np.ndim(getattr(here.assumptions, k) or 0) == 0 for k in ("demand", "cost_index", "price"))
        if not plain:
            raise ContractError(
                f"scenario {saved.name!r} is for another period than [planning], whose assumptions are by week; "
                "duplicate it onto that period. Nothing was saved."
            )
        here = build_surface(here.response, old.period_start, periods, here.assumptions)
    return price(s, spend_of(old, here), here)


def refuse_moved(shown: Snapshot, now: Snapshot) -> None:
    """Raises ContractError when the figures on the screen are no longer those of the workspace."""
    fits = [fit_id(s) for s in (shown, now)]
    if fits[0] != fits[1]:
        raise ContractError(
            "the model was fitted again while this page was open; look at the new figures and save again. "
            "Nothing was saved."
        )
    for what, then, found in (("money", shown.meta.currency, now.meta.currency), ("KPI", shown.meta.kpi, now.meta.kpi)):
        if then != found:
            raise ContractError(
                f"the {what} of this workspace changed from {then} to {found} while this page was open; "
                "look at the new figures and save again. Nothing was saved."
            )


def plan_for(s: Snapshot, saved: Saved) -> tuple[np.ndarray, tuple[str, ...]]:
    """A saved plan as spend (C,) per period in the order of the model's channels, and the channels that it lacks.

    Those keep their current spend. Raises ContractError when money or KPI are of another kind, and for a plan that
    spends on a channel that the model does not know.
    """
    if s.surface is None or s.response is None:
        raise ContractError("a scenario can only be opened beside a published model, and there is none.")
    refuse_other_units(saved, s.meta.currency, s.meta.kpi)
    plan, now = saved.pricing.plan, today(s.surface)
    gone = sorted(c for c, spend in plan.items() if c not in s.response.channels and spend > 0)
    if gone:
        raise ContractError(
            f"scenario {saved.name!r} spends on {gone[0]!r}, which the model no longer knows; it cannot be opened."
        )
    spend = np.array([plan.get(c, float(x)) for c, x in zip(s.response.channels, now, strict=True)])
    return spend, tuple(c for c in s.response.channels if c not in plan)
