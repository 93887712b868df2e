"""What a plan brings, for saving: the planning room's evaluation on the draws of the file that the page shows.

The page and `plumb plan` use the same functions (`planning.scenarios`, `planning.allocate`), so a saved figure cannot
differ from the one that was on the screen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date, timedelta

import numpy as np

from app import figures
from app.saved.database import utc_now
from app.saved.scenarios import CELL_FIELDS, CHANNEL_FIELDS, Pricing, Saved, refuse_other_units
from app.store import Snapshot
from contracts.errors import ContractError
from contracts.response import SteadyResponse
from planning.scenarios import Horizon, Scenario, evaluate

DEFAULT_WEEKS = 13  # where the job made no plan whose horizon could be taken over


def response_id(response: SteadyResponse) -> str:
    """Name of one set of posterior draws, as `store.response` reads them: the same draws have the same name."""
    digest = hashlib.sha256(repr((response.channels, response.geos)).encode())
    for name in ("amplitude", "half_saturation", "slope", "unit", "current_spend", "weights"):
        digest.update(np.ascontiguousarray(getattr(response, name), dtype="<f8").tobytes())
    return f"draws-{digest.hexdigest()[:16]}"


def horizon(s: Snapshot) -> Horizon:
    """The weeks that a scenario of the explorer is for: those of the job's own plan, else the quarter after the panel.

    Raises ContractError when the panel's periods are neither days nor weeks, or the file does not say when it ends.
    """
    days = figures.period_days(s)
    plan = figures.job_scenarios(s)
    if len(plan):
        start, end = plan["period_start"].iloc[0].date(), plan["period_end"].iloc[0].date()
        return Horizon(start, ((end - start).days + 1) // 7, days)
    if not s.meta.period_end:
        raise ContractError("the warehouse does not say which weeks its figures are for; run `plumb run`.")
    return Horizon(date.fromisoformat(s.meta.period_end) + timedelta(days=1), DEFAULT_WEEKS, days)


def price(s: Snapshot, plan: Mapping[str, float], weeks: Horizon | None = None) -> Pricing:
    """`plan` (currency per period, by channel) held over `weeks`, on the snapshot's draws.

    Raises ContractError without a published model, and for a plan that does not name the model's channels.
    """
    if s.response is None:
        raise ContractError("a scenario needs a published model; there is none, so nothing was saved. Run `plumb run`.")
    weeks = weeks or horizon(s)
    done = evaluate(Scenario("priced", plan, weeks), s.response)
    fit = figures.effect(s, "incremental_kpi")
    stamp = {k: str(fit[k].iloc[0]) if len(fit) else "" for k in ("run_id", "release_id", "evidence_ids")}
    version = str(fit["model_version"].iloc[0]) if len(fit) else s.meta.model_version
    return Pricing(
        currency=s.meta.currency, kpi=s.meta.kpi, period_days=weeks.period_days, period_start=weeks.start,
        period_end=weeks.end, **stamp, model_version=version, response_id=response_id(s.response),
        priced_at=utc_now(), budget=float(sum(plan.values())), total=done.total,
        channels=done.channels[list(CHANNEL_FIELDS)], cells=done.cells[list(CELL_FIELDS)],
    )  # fmt: skip


def reprice(s: Snapshot, saved: Saved) -> Pricing:
    """The same plan over the same weeks, on the snapshot's draws. Raises ContractError as `price` does, and when money
    or KPI are of another kind than those it was saved with."""
    refuse_other_units(saved, s.meta.currency, s.meta.kpi)
    old = saved.pricing
    weeks = ((old.period_end - old.period_start).days + 1) // 7
    return price(s, old.plan, Horizon(old.period_start, weeks, old.period_days))


def refuse_moved(shown: Snapshot, now: Snapshot) -> None:
    """Raises ContractError when the figures on the screen are no longer those of the workspace."""
    fits = [None if s.response is None else response_id(s.response) for s in (shown, now)]
    if fits[0] != fits[1]:
        raise ContractError(
            "the model was fitted again while this page was open; look at the new figures and save again. "
            "Nothing was saved."
        )
    for what, then, today in (("money", shown.meta.currency, now.meta.currency), ("KPI", shown.meta.kpi, now.meta.kpi)):
        if then != today:
            raise ContractError(
                f"the {what} of this workspace changed from {then} to {today} while this page was open; "
                "look at the new figures and save again. Nothing was saved."
            )


def plan_for(s: Snapshot, saved: Saved) -> tuple[np.ndarray, tuple[str, ...]]:
    """A saved plan as spend (C,) per period in the order of the model's channels, and the channels that it lacks.

    Those keep their current spend. Raises ContractError when money or KPI are of another kind, and for a plan that
    spends on a channel that the model does not know.
    """
    if s.response is None:
        raise ContractError("a scenario can only be opened beside a published model, and there is none.")
    refuse_other_units(saved, s.meta.currency, s.meta.kpi)
    plan, now = saved.pricing.plan, s.response.current_spend.sum(axis=0)
    gone = sorted(c for c, spend in plan.items() if c not in s.response.channels and spend > 0)
    if gone:
        raise ContractError(
            f"scenario {saved.name!r} spends on {gone[0]!r}, which the model no longer knows; it cannot be opened."
        )
    spend = np.array([plan.get(c, float(x)) for c, x in zip(s.response.channels, now, strict=True)])
    return spend, tuple(c for c in s.response.channels if c not in plan)
