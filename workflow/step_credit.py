"""`plumb credit`: last touch, first touch, linear and Markov credit from released journeys."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from attribution.credit import credits
from contracts.errors import ContractError
from contracts.evidence import Credit
from contracts.release import Release
from workflow.artifacts import Artifact, Draft
from workflow.codec import credits_of, frame_of, write_frame
from workflow.job import Job
from workflow.progress import Report
from workflow.step_lift import release_hashes
from workflow.steps import Made, NotApplicable, Step

MODEL = "last_touch"
DRAWS = 2000  # of the released noise, for the models that are not linear in the counts


def _skip(job: Job) -> str:
    if job.panel_door:
        return "the aggregate-only door has no journeys"
    if not any(r.measure == "journeys" for r in job.releases):
        return "no journeys are released"
    return ""


def _build(job: Job, draft: Draft, report: Report) -> Made:
    """Credits of every quarter that can carry them; a quarter with too few conversions is left out and said so."""
    found: list[Credit] = []
    weak: dict[str, str] = {}
    for release in (r for r in job.releases if r.measure == "journeys"):
        try:
            found += credits([release], job.public.channels, draws=DRAWS, seed=job.config.model.seed)
        except ContractError as error:
            weak[release.block] = str(error)
    if not found:
        raise NotApplicable(next(iter(weak.values())))
    write_frame(frame_of(found, Credit), draft.path("credits.parquet"))
    write_frame(credit_gap(job.releases, found), draft.path("gap.parquet"))
    return Made({"credits": len(found), "left_out": weak})


def credit_gap(releases: Sequence[Release], found: Sequence[Credit]) -> pd.DataFrame:
    """Per metric and period: total credit against the kpi table's total, in sd of their difference.

    All models' credits add up to one total, so that one model stands for all. Their noise is taken as independent
    between channels, which it is not quite: the figure is a health check, not a test.
    """
    rows = []
    for metric in ("conversions", "revenue"):
        for release in (r for r in releases if r.measure == "kpi"):
            start, end = release.block_start, release.block_end
            mine = [c for c in found if c.metric == metric and c.model == MODEL and start <= c.period_start <= end]
            table = release.table[release.table["metric"] == metric]
            if not mine or table.empty:
                continue
            total, kpi = sum(c.mean for c in mine), float(table["value"].sum())
            sd = (float(table["variance"].sum()) + sum(c.sd**2 for c in mine)) ** 0.5
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
