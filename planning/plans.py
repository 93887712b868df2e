"""Plans as documents: who made which, when and why, what is locked, which is the plan of record, who approved it.

Every change is a new version; nothing is overwritten. Pure values: who keeps them is the business of the caller.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd

from contracts.errors import ContractError
from planning.objective import Objective
from planning.optimise import Problem, describe, worth_of
from planning.summary import weighted_interval
from planning.surface import Surface, evaluate, extrapolated

KEY = ("period_start", "geo", "channel")


@dataclass(frozen=True, slots=True)
class Approval:
    """Somebody's yes or no to one version, with the reason."""

    by: str
    at: datetime
    approved: bool
    reason: str

    def __post_init__(self) -> None:
        if not self.by.strip() or not self.reason.strip():
            raise ContractError("an approval needs a name and a reason, also where the answer is no.")
        _aware("approval", self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One version of a named plan: spend (T, G, C) in `currency` per period."""

    name: str
    author: str
    made: datetime
    note: str
    version: int
    currency: str
    start: date
    period_days: int
    geos: tuple[str, ...]
    channels: tuple[str, ...]
    spend: np.ndarray
    model_version: str  # of the response that it was made on
    locked: tuple[str, ...] = ()  # channels that the optimizer may not move
    copied_from: str = ""  # name and version
    of_record: bool = False
    approvals: tuple[Approval, ...] = ()

    def __post_init__(self) -> None:
        for field in ("name", "author", "currency"):
            if not getattr(self, field).strip():
                raise ContractError(f"a plan needs a {field}.")
        _aware(f"plan {self.name!r}", self.made)
        if self.version < 1 or self.period_days < 1:
            raise ContractError(f"plan {self.name!r}: version and period_days count from 1.")
        shape = (len(self.spend), len(self.geos), len(self.channels))
        if self.spend.ndim != 3 or self.spend.shape != shape or not len(self.spend):
            raise ContractError(
                f"plan {self.name!r} must hold spend by period, geo and channel; got {self.spend.shape}."
            )
        if not np.isfinite(self.spend).all() or (self.spend < 0).any():
            raise ContractError(f"plan {self.name!r}: spend must be finite numbers >= 0.")
        if unknown := sorted(set(self.locked) - set(self.channels)):
            raise ContractError(f"plan {self.name!r} locks channel {unknown[0]!r}; it has {', '.join(self.channels)}.")

    @property
    def id(self) -> str:
        """Name and version."""
        return f"{self.name} v{self.version}"

    @property
    def approved(self) -> bool:
        """True when the last answer to this version was yes."""
        return bool(self.approvals) and self.approvals[-1].approved

    def dates(self) -> tuple[date, ...]:
        """First day of each period."""
        return tuple(self.start + timedelta(days=self.period_days * t) for t in range(len(self.spend)))


def create(surface: Surface, spend: np.ndarray, *, name: str, author: str, at: datetime, note: str = "",
           model_version: str = "") -> Plan:  # fmt: skip
    """First version of a plan made on `surface`."""
    response = surface.response
    plan = Plan(name=name, author=author, made=at, note=note, version=1, currency=surface.currency,
                start=surface.start, period_days=response.period_days, geos=response.geos, channels=response.channels,
                spend=np.array(spend, dtype=float), model_version=model_version)  # fmt: skip
    return fitting(plan, surface)


def duplicate(plan: Plan, *, name: str, author: str, at: datetime) -> Plan:
    """The same money under another name, as a first version without approvals."""
    if name == plan.name:
        raise ContractError(f"a copy needs a name of its own; {name!r} is the name of the plan.")
    return dataclasses.replace(plan, name=name, author=author, made=at, version=1, copied_from=plan.id, of_record=False,
                               approvals=())  # fmt: skip


def revise(plan: Plan, *, author: str, at: datetime, note: str, spend: np.ndarray | None = None,
           locked: Sequence[str] | None = None) -> Plan:  # fmt: skip
    """Next version, with a note that says why. Approvals do not carry over."""
    if not note.strip():
        raise ContractError(f"a new version of plan {plan.name!r} needs a note that says what changed.")
    if at < plan.made:
        raise ContractError(f"plan {plan.id} was made at {plan.made}; a later version cannot be from {at}.")
    new = plan.spend if spend is None else np.array(spend, dtype=float)
    held = plan.locked if locked is None else tuple(locked)
    if spend is not None and new.shape == plan.spend.shape:
        for c, channel in enumerate(plan.channels):
            if channel in plan.locked and channel in held and not np.allclose(new[..., c], plan.spend[..., c]):
                raise ContractError(f"channel {channel!r} of plan {plan.name!r} is locked; unlock it first.")
    return dataclasses.replace(plan, author=author, made=at, note=note, version=plan.version + 1, spend=new,
                               locked=held, of_record=False, approvals=())  # fmt: skip


def decide(plan: Plan, approval: Approval) -> Plan:
    """The plan with one more answer."""
    return dataclasses.replace(plan, approvals=(*plan.approvals, approval))


def record(plans: Sequence[Plan], wanted: str) -> tuple[Plan, ...]:
    """The plans with the one whose id is `wanted` as the only plan of record. It must be approved."""
    found = [p for p in plans if p.id == wanted]
    if not found:
        raise ContractError(f"there is no plan {wanted!r}; there are {', '.join(p.id for p in plans) or 'none'}.")
    if not found[0].approved:
        raise ContractError(f"plan {wanted!r} is not approved; only an approved plan can be the plan of record.")
    return tuple(dataclasses.replace(p, of_record=p.id == wanted) for p in plans)


def fitting(plan: Plan, surface: Surface) -> Plan:
    """The plan, checked against the surface that it is to be valued on. Raises ContractError that names the misfit."""
    response = surface.response
    if plan.currency != surface.currency:
        raise ContractError(
            f"plan {plan.name!r} is in {plan.currency} and this workspace plans in {surface.currency}: convert it, or "
            "give the rate as an assumption."
        )
    for kind, own, known in (("channel", plan.channels, response.channels), ("geo", plan.geos, response.geos)):
        if unknown := [v for v in own if v not in known]:
            raise ContractError(f"plan {plan.name!r} names {kind} {unknown[0]!r}; the model knows {', '.join(known)}.")
        if missing := [v for v in known if v not in own]:
            raise ContractError(f"plan {plan.name!r} has no spend for {kind} {missing[0]!r}; write 0 for none.")
    first = response.last_period + timedelta(days=response.period_days)
    if plan.start < first:
        raise ContractError(
            f"plan {plan.name!r} starts on {plan.start}, before the history ends; the first is {first}."
        )
    if (plan.start, plan.period_days, len(plan.spend)) != (surface.start, response.period_days, surface.periods):
        raise ContractError(
            f"plan {plan.name!r} has {len(plan.spend)} periods of {plan.period_days} days from {plan.start}; it is "
            f"valued over {surface.periods} of {response.period_days} from {surface.start}."
        )
    order = np.ix_(
        range(len(plan.spend)), [plan.geos.index(g) for g in response.geos],
        [plan.channels.index(c) for c in response.channels],
    )  # fmt: skip
    return dataclasses.replace(plan, geos=response.geos, channels=response.channels, spend=plan.spend[order])


def compare(surface: Surface, plans: Sequence[Plan], objective: Objective | None = None) -> pd.DataFrame:
    """The plans side by side on the same draws, the first as the base.

    One row a plan: name, version, spend, worth inside the horizon and after it (mean), mean, sd and p05 to p95 of the
    whole worth, gain over the first plan with its own interval (gain_mean, gain_p10, ...), probability that it is
    better, cvar (mean of the worst tenth), extrapolated channels joined by ', '.
    """
    if not plans:
        raise ContractError("there is no plan to compare.")
    asked = objective or Objective()
    worth, weights, rows = worth_of(surface, asked), surface.weights, []
    base = fitting(plans[0], surface).spend
    for plan in plans:
        spend = fitting(plan, surface).spend
        found = describe(Problem(surface=surface, objective=asked, reference=base), spend)
        path = evaluate(surface, spend).plan.sum(axis=0)
        worst = np.argsort(found.draws)[: max(1, len(weights) // 10)]
        rows.append(
            {
                "plan": plan.name,
                "version": plan.version,
                "spend": float(spend.sum()),
                "within": float(weights @ path[:, : surface.periods] @ worth[: surface.periods]),
                "beyond": float(weights @ path[:, surface.periods :] @ worth[surface.periods :]),
            }
            | weighted_interval(found.draws, weights)
            | {f"gain_{k}": v for k, v in weighted_interval(found.gain, weights).items()}
            | {
                "gain_probability": found.gain_probability,
                "cvar": float(np.average(found.draws[worst], weights=weights[worst])),
                "extrapolated": ", ".join(extrapolated(surface, spend)),
            }
        )
    return pd.DataFrame(rows)


def _aware(what: str, at: datetime) -> None:
    if at.tzinfo is None:
        raise ContractError(f"the time of {what} must name its zone; got {at.isoformat()}.")
