"""What `plumb plan` says beside the plan: which test is worth running next, and what following one source costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from contracts.errors import ContractError
from lift.design import DesignPanel, DesignSpec, market_selection
from mmm.effects import total_draws
from planning.loss import PlanWorth, decision_loss, plan_worth
from planning.next_test import Candidate, plans_to_choose_from, rank, readings
from planning.optimise import Best, Problem, take
from planning.surface import Surface
from workflow.artifacts import Artifact
from workflow.job import Job
from workflow.step_fit import read_posterior, spec_of, uncalibrated_panel, usable_lifts
from workflow.step_lift import only, read_library
from workflow.step_reconcile import read_pool

ADVICE = ("v_next_tests", "v_decision_loss")
WEEKS = (4, 8)
HEAVY_UP = 2.0
MAX_SETS = 20_000  # sets of geos that a designer scores
PLANS = 120  # that a test could lead to
DRAWS = 600  # that tests are valued on


@dataclass(frozen=True, slots=True)
class Advice:
    """Frames of ADVICE without their stamp, and why there is none."""

    next_tests: pd.DataFrame
    loss: pd.DataFrame
    left_out: str  # why no test was designed; '' where some were


def advise(job: Job, problem: Problem, best: Best) -> Advice:
    """Next tests and decision losses on the draws that the plan was chosen on."""
    at = np.linspace(0, problem.surface.response.draws - 1, min(DRAWS, problem.surface.response.draws)).astype(int)
    problem = dataclasses.replace(problem, surface=take(problem.surface, at))
    found = plan_worth(problem, plans_to_choose_from(problem, PLANS, best=best.spend))
    unit, price = money_of(problem)
    loss = decision_loss(problem, found, sources(job, problem.surface))
    if len(loss):
        loss["unit"], loss["money"] = unit, loss["mean"] * (np.nan if price is None else price)
    try:
        tests, designs = candidates(job, problem.surface, None if price is None else kpi_price(problem.surface))
    except ContractError as error:
        return Advice(pd.DataFrame(), loss, str(error))
    return Advice(_ranked(problem, found, tests, designs, unit, price), loss, "")


def _ranked(
    problem: Problem, found: PlanWorth, tests: Sequence[Candidate], designs: pd.DataFrame, unit: str,
    price: float | None,
) -> pd.DataFrame:  # fmt: skip
    table = rank(problem, found, tests, money_per_unit=price).merge(designs, on="test")
    return table.assign(unit=unit)


def money_of(problem: Problem) -> tuple[str, float | None]:
    """Name of the objective's unit and what one of it is worth in plan currency; None where a KPI unit has no value."""
    unit = problem.objective.unit
    if unit == "kpi":
        return problem.surface.response.kpi_name, kpi_price(problem.surface)
    return unit, 1.0 if unit == "margin" else (problem.surface.assumptions.margin or 1.0)


def kpi_price(surface: Surface) -> float | None:
    """Contribution (revenue where no margin is stated) of one KPI unit, plan currency, mean over the period."""
    if surface.response.kpi_name == "revenue":
        return surface.assumptions.margin or 1.0
    if surface.price is None:
        return None
    return float(surface.price[: surface.periods].mean()) * (surface.assumptions.margin or 1.0)


def candidates(job: Job, surface: Surface, price: float | None) -> tuple[list[Candidate], pd.DataFrame]:
    """Per channel and length a go-dark and a heavy-up geo test, in the set of geos with the least error for the spend
    that it moves. Raises ContractError where no geo test can be designed.

    The frame has test, treated, noise_share. Costs count what the test forgoes or brings where `price` is known.
    """
    panel, response = job.panel, surface.response
    per_week = max(7 // panel.period_days, 1)
    table = _designs(job, tuple(w * per_week for w in WEEKS))
    members = np.array([[g in row.split(";") for g in panel.geos] for row in table["geos"]], dtype=float)
    order = [response.geos.index(g) for g in panel.geos]
    tests: list[Candidate] = []
    facts = []
    for c, channel in enumerate(response.channels):
        spend = response.steady.current_spend[order, c] / surface.assumptions.rate
        if not spend.sum() > 0:
            continue
        reach = members @ spend / spend.sum()
        for length in sorted(set(table["duration"])):
            rows = np.flatnonzero((table["duration"] == length) & (reach > 0))
            at = rows[(table["std_error_kpi"].to_numpy()[rows] / reach[rows]).argmin()]
            row = table.iloc[int(at)]
            for kind, step in (("go dark", -1.0), ("heavy-up", HEAVY_UP - 1.0)):
                weeks = length / per_week
                test = Candidate(
                    name=f"{channel}: {kind}, {weeks:g} weeks", channel=channel, kind=f"geo, {kind}", weeks=weeks,
                    spend_change=step * float(reach[at] * spend.sum() * length), reach=float(reach[at]),
                    std_error=float(row["std_error_kpi"]), mde=float(row["mde_kpi"]), cost=0.0,
                )  # fmt: skip
                tests.append(test)
                facts.append(
                    {"test": test.name, "treated": row["geos"], "noise_share": float(np.mean(row["noise_share"]))}
                )
    lifts = readings(surface, tests).mean(axis=0)
    worth = 0.0 if price is None else price
    priced = [
        Candidate(**{f: getattr(t, f) for f in Candidate.__dataclass_fields__} | {
            "cost": max(t.spend_change - worth * float(x), 0.0) if price is not None else max(t.spend_change, 0.0)
        })
        for t, x in zip(tests, lifts, strict=True)
    ]  # fmt: skip
    return priced, pd.DataFrame(facts)


def _designs(job: Job, durations: tuple[int, ...]) -> pd.DataFrame:
    """The lift designer's table for added spend: errors and detectable effects of sets of geos, any channel."""
    panel = job.panel
    if len(panel.geos) < 4:
        raise ContractError(f"a geo test needs at least 4 geos; the panel has {len(panel.geos)}.")
    whole = np.isfinite(panel.kpi).all(axis=0)
    kpi, noise = panel.kpi[:, whole], np.nan_to_num(panel.kpi_variance[:, whole])
    geos, most = len(panel.geos), min(4, len(panel.geos) // 2)
    large = np.argsort(-kpi.sum(axis=1))[: 20 if geos > 20 else geos]
    spec = DesignSpec(
        candidates=tuple(panel.geos[i] for i in sorted(large)), sizes=(min(2, most), most), durations=durations,
        rows=MAX_SETS, look_backs=6, read=0,
    )  # fmt: skip
    return market_selection(DesignPanel(panel.geos, kpi, noise, panel.period_days), spec).table


def sources(job: Job, surface: Surface) -> dict[str, dict[str, float]]:
    """How many times the reconciled outcome each source says a channel brought."""
    pooled = _artifact(job, "reconcile")
    channels, incremental = read_pool(pooled)
    total = dict(zip(channels, incremental.mean(axis=0), strict=True))
    known = surface.response.channels
    out: dict[str, dict[str, float]] = {}
    rows = pd.read_parquet(pooled.path("v_incrementality.parquet")).dropna(subset=["credited"])
    for model, part in rows.groupby("model"):
        said = part.groupby("channel")[["credited", "incremental_kpi"]].sum()
        ratio = (said["credited"].clip(lower=0) / said["incremental_kpi"]).replace([np.inf], np.nan).dropna()
        out[f"credit: {model}"] = {str(c): float(x) for c, x in ratio.items() if c in known}
    for step, name in (("fit_calibrated", "mmm"), ("fit_uncalibrated", "mmm without lifts")):
        panel = uncalibrated_panel(job)
        mean = total_draws(panel, read_posterior(_artifact(job, step)), spec_of(job.config).structural_sd).mean(axis=0)
        named = dict(zip(panel.channels, mean, strict=True))
        out[name] = {c: float(named[c] / total[c]) for c in known if c in named and total.get(c, 0.0) > 0}
    out["lift"] = _lift_factors(job, {c: float(x) for c, x in total.items() if c in known})
    return {name: factors for name, factors in out.items() if factors}


def _lift_factors(job: Job, total: Mapping[str, float]) -> dict[str, float]:
    """Return per currency in the lift tests ÷ the reconciled return over the data, by channel; tests are joined by
    precision. A test at another spend than the average one is off by what the curve bends between the two."""
    library, _ = read_library(job.outcomes["lift"].artifact)
    found: dict[str, list[tuple[float, float]]] = {c: [] for c in total}
    panel = job.panel
    for e in only(library, np.array(usable_lifts(job), dtype=int)).estimates:
        if e.channel not in total or not np.isfinite(e.spend_delta) or e.spend_delta == 0:
            continue
        spend = float(panel.spend[:, :, panel.channels.index(e.channel)].sum())
        if spend > 0 and total[e.channel] > 0:
            per_currency = total[e.channel] / spend
            ratio, sd = (x / e.spend_delta / per_currency for x in (e.mean, e.std_error))
            found[e.channel].append((ratio, sd**2))
    return {
        c: max(float(np.average([r for r, _ in pairs], weights=[1 / v for _, v in pairs])), 0.0)
        for c, pairs in found.items()
        if pairs
    }


def _artifact(job: Job, step: str) -> Artifact:
    found = job.outcomes[step].artifact
    assert found is not None
    return found
