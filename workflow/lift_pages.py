"""One readout page per test, in `readouts/` beside the report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from app.lift_page import lift_page
from contracts.errors import ContractError
from contracts.evidence import Experiment, LiftEstimate, LiftLibrary
from contracts.readout import LiftReadout
from contracts.release import Release
from lift.geo import geo_fit
from lift.pool import Pooled, pool, returns, typical_scale
from lift.readout import geo_readout, library_lines, user_readout
from lift.rows import select_rows
from lift.spend import spend_delta
from workflow.job import Job

FOLDER = "readouts"
GENERATOR = '<meta name="generator" content="plumb lift">'  # as in the template


def readouts(
    job: Job, chosen: Sequence[Experiment], library: LiftLibrary, trials: Mapping[str, Release]
) -> tuple[LiftReadout, ...]:
    """Finished numbers of every test in the library, in order."""
    families = job.config.families()
    pooled = _pooled(library, job.panel.kpi_name, families)
    out = []
    for e in chosen:
        estimates = [x for x in library.estimates if x.experiment == e.name]
        made = _user(job, e, trials[e.name], estimates) if e.kind == "user" else _geo(job, e, chosen)
        if pooled is not None and made.headline.metric == job.panel.kpi_name:
            made = replace(made, library=library_lines(made.headline, pooled, families))
        out.append(made)
    return tuple(out)


def _geo(job: Job, e: Experiment, chosen: Sequence[Experiment]) -> LiftReadout:
    spend = spend_delta(e, job.panel, exclude=chosen)
    fit = geo_fit(e, job.panel, spend_delta=spend, exclude=chosen)
    return geo_readout(select_rows(e, job.panel, chosen), fit, job.panel.weeks, job.panel.currency)


def _user(job: Job, e: Experiment, release: Release, estimates: Sequence[LiftEstimate]) -> LiftReadout:
    declared = job.config.experiments.get(e.name)
    split = dict(declared.split) if declared is not None and declared.split else None
    return user_readout(e, release, estimates, job.panel.currency, kpi=job.panel.kpi_name, split=split)


def _pooled(library: LiftLibrary, metric: str, families: Mapping[str, str]) -> Pooled | None:
    """Pool of the tests that have a return; None with fewer than two or when all are zero."""
    tests, covariance, _ = returns(library, metric, families)
    if len(tests) < 2 or not any(t.value for t in tests):
        return None
    return pool(tests, covariance, scale=typical_scale(tests), as_of=max(t.end for t in tests))


def pages(made: Sequence[LiftReadout]) -> dict[str, str]:
    """File name -> HTML. Raises ContractError when two tests would share a file name."""
    out: dict[str, str] = {}
    for readout in made:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", readout.name).strip(".-") or "test"
        if f"{name}.html" in out:
            raise ContractError(
                f"two experiments would both write the readout {name}.html; rename {readout.name!r} in the experiments "
                "table."
            )
        out[f"{name}.html"] = lift_page(readout)
    return out


def folder(root: Path) -> Path:
    """Where the pages of a workspace lie."""
    return root / FOLDER
