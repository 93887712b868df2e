"""`plumb credit`: last touch, first touch, linear and Markov credit from released journeys."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pandas as pd

from attribution.credit import credits
from contracts.errors import ContractError
from contracts.evidence import Credit
from contracts.release import Release
from workflow.artifacts import Artifact, Draft
from workflow.codec import credits_of, frame_of, write_frame
from workflow.job import Job
from workflow.panel_build import WEEK, kpi_rows
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
            weak[f"{release.block_start} to {release.block_end}"] = str(error)
    if not found:
        raise NotApplicable(next(iter(weak.values())))
    write_frame(frame_of(found, Credit), draft.path("credits.parquet"))
    write_frame(credit_gap(job.releases, found), draft.path("gap.parquet"))
    return Made({"credits": len(found), "left_out": weak})


def credit_gap(releases: Sequence[Release], found: Sequence[Credit]) -> pd.DataFrame:
    """Per metric and quarter: total credit against the kpi table's total of the same weeks, in sd of their difference.

    All models' credits add up to one total, so that one model stands for all. Their noise is taken as independent
    between channels, which it is not quite: the figure is a health check, not a test.
    """
    cells = kpi_rows(releases)
    blocks = {r.block_start: r.block for r in releases if r.measure == "journeys"}
    rows = []
    for metric, block in product(("conversions", "revenue"), sorted(set(blocks.values()))):
        mine = [c for c in found if c.metric == metric and c.model == MODEL and blocks[c.period_start] == block]
        periods = {(c.period_start, c.period_end) for c in mine}
        table = cells[cells["metric"] == metric]
        here = table[[any(a <= w <= b for a, b in periods) for w in table["week"]]]
        if not mine or here["week"].nunique() != sum(((b - a).days + 1) // WEEK for a, b in periods):
            continue  # kpi of some of these weeks is not out, so there is nothing to compare with
        total, kpi = sum(c.mean for c in mine), float(here["value"].sum())
        sd = (float(here["variance"].sum()) + sum(c.sd**2 for c in mine)) ** 0.5
        rows.append({"metric": metric, "period": block, "credit": total, "kpi": kpi,
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
