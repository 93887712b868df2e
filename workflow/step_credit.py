"""`plumb credit`: last touch, first touch, linear and Markov credit from released journeys."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from attribution.credit import credits

from contracts.evidence import Credit
from contracts.release import Release
from workflow.artifacts import Artifact, Draft
from workflow.codec import credits_of, frame_of, write_frame
from workflow.job import Job
from workflow.progress import Report
from workflow.step_lift import release_hashes
from workflow.steps import Made, Step

DRAWS = 2000  # of the released noise, for the models that are not linear in the counts


def _skip(job: Job) -> str:
    if job.panel_door:
        return "the aggregate-only door has no journeys"
    if not any(r.measure == "journeys" for r in job.releases):
        return "no journeys are released"
    return ""


def _build(job: Job, draft: Draft, report: Report) -> Made:
    releases = [r for r in job.releases if r.measure == "journeys"]
    found = credits(releases, job.public.channels, DRAWS, job.config.model.seed)
    write_frame(frame_of(found, Credit), draft.path("credits.parquet"))
    write_frame(credit_gap(job.releases, found), draft.path("gap.parquet"))
    return Made({"credits": len(found)})


def credit_gap(releases: Sequence[Release], found: Sequence[Credit]) -> pd.DataFrame:
    """Per metric and period: total credit of one model against the kpi table's total, in sd of their difference."""
    rows = []
    for metric in ("conversions", "revenue"):
        for release in (r for r in releases if r.measure == "kpi"):
            mine = [
                c for c in found if c.metric == metric and release.block_start <= c.period_start <= release.block_end
            ]
            table = release.table[release.table["metric"] == metric]
            if not mine or table.empty:
                continue
            model = mine[0].model
            chosen = [c for c in mine if c.model == model]
            total, kpi = sum(c.mean for c in chosen), float(table["value"].sum())
            sd = (float(table["variance"].sum()) + sum(c.sd**2 for c in chosen)) ** 0.5
            rows.append({"metric": metric, "period": release.block, "credit": total, "kpi": kpi,
                         "gap_sd": (total - kpi) / sd if sd > 0 else 0.0})  # fmt: skip
    return pd.DataFrame(rows, columns=["metric", "period", "credit", "kpi", "gap_sd"])


def read_credits(artifact: Artifact | None) -> tuple[Credit, ...]:
    """Credits of an artifact; none when the step was skipped."""
    return credits_of(pd.read_parquet(artifact.path("credits.parquet"))) if artifact is not None else ()


STEP = Step(
    name="credit",
    command="credit",
    title="Attribution",
    rooms=("contracts", "attribution", "workflow.step_credit", "workflow.codec"),
    skip=_skip,
    inputs=lambda job: release_hashes(job, "journeys", "kpi"),
    settings=lambda job: {"channels": job.public.channels, "seed": job.config.model.seed},
    build=_build,
)
