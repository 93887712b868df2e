"""One readout page per test, in `readouts/` beside the report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from app.lift_page import lift_page
from contracts.errors import ContractError
from contracts.evidence import Experiment, LiftLibrary
from contracts.readout import LiftReadout
from contracts.release import Release
from lift.geo import geo_fit
from lift.looks import LooksReading
from lift.pool import Pooled, pool, returns, typical_scale
from lift.readout import geo_readout, library_lines, running_readout, user_readout
from lift.rows import select_rows
from lift.spend import spend_delta
from lift.trials import TrialReading
from workflow.job import Job

FOLDER = "readouts"
GENERATOR = '<meta name="generator" content="plumb lift">'  # as in the template


def readouts(
    job: Job,
    chosen: Sequence[Experiment],
    library: LiftLibrary,
    trials: Mapping[str, Release],
    users: Mapping[str, TrialReading],
    looks: Mapping[str, LooksReading],
) -> tuple[LiftReadout, ...]:
    """Finished numbers of every test in the library, in order, then of tests that are looked at while they run."""
    families = job.config.families()
    project, panel = job.config.project, job.panel if job.has_kpi else None
    kpi, currency = (panel.kpi_name, panel.currency) if panel else (project.kpi, project.currency)
    pooled = _pooled(library, kpi, families)
    out = []
    for e in chosen:
        if e.kind == "user":
            made = user_readout(
                e, trials[e.name], users[e.name], currency, kpi=kpi, split=_split(job, e), looks=looks.get(e.name)
            )
        else:
            made = _geo(job, e, chosen)
        if pooled is not None and made.headline.metric == kpi:
            made = replace(made, library=library_lines(made.headline, pooled, families))
        out.append(made)
    running = [e for e in job.experiments if e.name in looks and e.name not in {c.name for c in chosen}]
    out += [running_readout(e, looks[e.name], currency, kpi=kpi, split=_split(job, e)) for e in running]
    return tuple(out)


def _geo(job: Job, e: Experiment, chosen: Sequence[Experiment]) -> LiftReadout:
    spend = spend_delta(e, job.panel, exclude=chosen)
    fit = geo_fit(e, job.panel, spend_delta=spend, exclude=chosen)
    return geo_readout(select_rows(e, job.panel, chosen), fit, job.panel.weeks, job.panel.currency)


def _split(job: Job, e: Experiment) -> dict[str, float] | None:
    """The planned share of each arm, where it is declared."""
    declared = job.config.experiments.get(e.name)
    return dict(declared.split) if declared is not None and declared.split else None


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
