"""What `plumb budget plan` answers: what a grant buys, worked out before any row about people is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from contracts.calendar import next_quarter, quarter_start, week_of
from contracts.errors import InputError
from contracts.evidence import Experiment
from contracts.release import NANO
from contracts.trials import TrialDesign
from privacy.room import (
    MEASURES,
    Cell,
    Forecast,
    Lift,
    PlannedTrials,
    PrivacyPolicy,
    Sizes,
    TrialForecast,
    example_trials,
    forecasts,
)
from workflow.budget import PANEL_SENTENCE
from workflow.config import Project
from workflow.job import Job
from workflow.paths import Workspace

RHOS = (0.05, 0.1, 0.2, 0.5, 1.0)
UNDATED = "undated"  # stands for the channel of a test that no experiments table names
TEST_WEEKS = 8  # of such a test: inside one quarter


def planned_trials(job: Job) -> PlannedTrials:
    """User tests of the experiments table and of [experiments.NAME]; those that no table dates share later quarters.

    Raises InputError for a fault in the public tables.
    """
    config = job.config
    known = job.public.experiments if config.inputs.experiments is not None else ()
    dated = tuple(e for e in known if e.kind == "user")
    declared = {name: design.design() for name, design in config.experiments.items()}
    open_ended = {name: d for name, d in declared.items() if name not in {e.name for e in known}}
    first = _free_week(dated, open_ended, config.project)
    undated = tuple(
        Experiment(name, "user", UNDATED, first, first + timedelta(days=7 * max(d.looks, TEST_WEEKS) - 1), (), None,
                   config.experiments[name].control_arm)
        for name, d in open_ended.items()
    )  # fmt: skip
    return PlannedTrials(
        (*dated, *undated),
        {name: tuple(d.arms) for name, d in config.experiments.items() if d.arms},
        declared,
        {name: d.split for name, d in config.experiments.items()},
        config.project.week_start,
        config.project.fiscal_year_start,
    )


def _free_week(dated: tuple[Experiment, ...], undated: Mapping[str, TrialDesign], project: Project) -> date:
    """First week of a quarter so late that no undated test, nor the days before it, shares one with a dated test."""
    last = max((e.end for e in dated), default=date(2024, 1, 1))
    last += timedelta(days=max((d.pre_days for d in undated.values()), default=0))
    quarter = next_quarter(next_quarter(quarter_start(last, project.fiscal_year_start)))
    return week_of(quarter + timedelta(days=6), project.week_start)


def plan_of(
    root: Path, *, rhos: Sequence[float], shares: Mapping[str, float], sizes: Sizes, experiments: int | None
) -> dict[str, Any]:
    """What grants of these sizes buy. Reads plumb.toml where there is one, the table of experiments that it names, and
    nothing about people. `experiments` asks for so many example tests in place of the declared ones.
    """
    declared = Workspace(root).config.is_file()
    policy, planned = PrivacyPolicy(), PlannedTrials()
    if declared:
        job = Job.open(root, quiet=True)
        if job.panel_door:
            return {"door": "panel", "text": PANEL_SENTENCE, "rows": []}
        policy = job.config.privacy.policy()
        planned = planned_trials(job) if experiments is None else planned
    for name in shares:
        if name not in MEASURES:
            raise InputError(f"--share {name} is unknown; use one of {', '.join(MEASURES)}.")
    asked = tuple(rhos) or tuple(sorted({*RHOS, policy.rho_per_user_quarter}))
    tests = planned if planned.experiments else example_trials(1 if experiments is None else experiments)
    rows = forecasts(policy, asked, sizes, shares, tests)
    detail = next((r for r in rows if r.rho == policy.rho_per_user_quarter), rows[0])
    return {
        "door": "events",
        "declared": declared,
        "delta": policy.delta,
        "sizes": list(sizes.cells),
        "assumed": {k: v for k, v in asdict(sizes).items() if k != "cells"} | {"experiments": len(tests.experiments)},
        "rows": [_row(r) for r in rows],
        "rho": detail.rho,
        "cells": [_cell(c) for c in detail.cells],
        "tests": [_test(t) for t in detail.trials] if planned.experiments else [],
    }


def _lift(lift: Lift | None) -> dict[str, float] | None:
    return None if lift is None else {"total": lift.total, "without_noise": lift.without_noise}


def _row(f: Forecast) -> dict[str, Any]:
    kpi = [c.sd for c in f.cells if (c.measure, c.vector) == ("kpi", "conversions")]
    return {
        "rho": f.rho,
        "epsilon_quarter": f.epsilon_quarter,
        "epsilon_year": f.epsilon_year,
        "conversions_sd": max(kpi) if kpi else None,
        "relative_error": list(f.relative_error) if f.relative_error is not None else None,
        "user_lift": _lift(f.user_lift),
        "geo_lift": _lift(f.geo_lift),
    }


def _test(t: TrialForecast) -> dict[str, Any]:
    return {
        "test": t.name,
        "components": t.components,
        "strata": t.strata,
        "looks": t.looks,
        "quarters": t.quarters,
        "rho": t.nano / NANO,
        "sd": t.sd,
        "look_rho": t.look_nano / NANO if t.looks else None,
        "look_sd": t.look_sd if t.looks else None,
        "people": list(t.people),
        "lift": _lift(t.lift),
    }


def _cell(c: Cell) -> dict[str, Any]:
    return {"measure": c.measure, "weeks": c.weeks, "vector": c.vector, "bound": c.bound, "rho": c.nano / NANO,
            "sd": c.sd}  # fmt: skip
