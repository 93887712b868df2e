"""`plumb credit`: every credit model of every released quarter, platform claims beside them, and their parity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from itertools import product

import numpy as np
import pandas as pd

from attribution import parity
from attribution.claims import MODEL as CLAIMED
from attribution.claims import claimed_credits, restated
from attribution.claims import within as claims_within
from attribution.costs import cost_columns
from attribution.credit import Estimate, credit_rows, estimates
from attribution.definitions import definition
from attribution.rules import PositionWeights
from contracts.errors import ContractError
from contracts.evidence import Credit
from contracts.release import Release
from workflow.artifacts import Artifact, Draft, digest_of, file_hash
from workflow.codec import credits_of, frame_of, write_frame
from workflow.job import Job
from workflow.panel_build import WEEK, kpi_rows
from workflow.progress import Report
from workflow.step_lift import release_hashes
from workflow.steps import Made, NotApplicable, Step
from workflow.tables_in import Spend

DRAWS = 2000  # of the released noise, for the models that are not linear in the counts
MEASURES = ("journeys", "credit")
METRICS = ("conversions", "revenue")

Span = tuple[date, date]
Totals = dict[tuple[str, Span], tuple[float, float]]  # (metric, period) -> mean, sd


def _skip(job: Job) -> str:
    if job.panel_door:
        return "the aggregate-only door has no journeys"
    if not any(r.measure in MEASURES for r in job.releases) and job.claims is None:
        return "no journeys are released"
    return ""


def _inputs(job: Job) -> dict[str, str]:
    out = release_hashes(job, *MEASURES, "kpi")
    named = {k: v for k, v in job.input_hashes.items() if k.split(":")[0] in ("platform_claims", "billing", "spend")}
    return out | named


def _weights(job: Job) -> PositionWeights:
    found = job.config.attribution.position_based
    return PositionWeights(found.first, found.middle, found.last)


def _build(job: Job, draft: Draft, report: Report) -> Made:
    """Credits of every quarter that can carry them; a quarter with too few conversions is left out and said so."""
    worked: list[Estimate] = []
    weak: dict[str, str] = {}
    mine = [r for r in job.releases if r.measure in MEASURES]
    journeys = [r for r in mine if r.measure == "journeys"]
    models, weights = job.config.attribution.models, _weights(job)
    for i, release in enumerate(mine):
        try:
            worked += estimates(
                [release], job.public.channels, DRAWS, job.config.model.seed,
                models=models, weights=weights, beside=journeys if release.measure == "credit" else (),
            )  # fmt: skip
        except ContractError as error:
            weak[f"{release.measure} {release.block_start} to {release.block_end}"] = str(error)
        report((i + 1) / len(mine), None)
    totals = period_totals(job.releases, worked)
    found = [*credit_rows(worked), *_claimed(job, totals)]
    if not found:
        raise NotApplicable(next(iter(weak.values()), "no quarter is covered by the platform claims"))
    write_frame(credit_frame(found, job.releases, weights, job.public.spend), draft.path("credits.parquet"))
    write_frame(credit_gap(job.releases, found), draft.path("gap.parquet"))
    write_frame(frame_of(findings(job, worked, found, totals), parity.Finding), draft.path("parity.parquet"))
    return Made({"credits": len(found), "left_out": weak})


def period_totals(releases: Sequence[Release], worked: Sequence[Estimate]) -> Totals:
    """Total per metric and period: the credits' own, else that of the kpi tables of the same block."""
    out: Totals = {}
    for e in worked:
        period = (e.release.block_start, e.release.block_end)
        out.setdefault((e.metric, period), (float(e.mean.sum()), float(np.sqrt(e.covariance.sum()))))
    blocks = {period for _, period in out}
    for release in (r for r in releases if r.measure == "kpi"):
        period = (release.block_start, release.block_end)
        if any(a <= period[1] and period[0] <= b for a, b in blocks):
            continue
        for metric in METRICS:
            rows = release.table[release.table["metric"] == metric]
            if not rows.empty:
                out[metric, period] = (float(rows["value"].sum()), float(np.sqrt(rows["variance"].sum())))
    return out


def _claimed(job: Job, totals: Totals) -> tuple[Credit, ...]:
    if job.claims is None:
        return ()
    evidence = "claims:" + digest_of([file_hash(f) for f in job.claims.files])[:16]
    return claimed_credits(job.claims.rows, totals, evidence)


def credit_frame(
    found: Sequence[Credit], releases: Sequence[Release], weights: PositionWeights, spend: Spend | None
) -> pd.DataFrame:
    """Rows of v_credit without their stamp: credit, its meaning, and what the channel cost."""
    frame, by_id = frame_of(found, Credit), {r.release_id: r for r in releases}
    frame["definition"] = [definition(c.model, by_id.get(c.evidence_ids[0]), weights) for c in found]
    paid = {p: spent(spend, *p) for p in {(c.period_start, c.period_end) for c in found}}
    costs = [cost_columns(c, paid[c.period_start, c.period_end].get(c.channel)) for c in found]
    return pd.concat([frame, pd.DataFrame(costs, index=frame.index)], axis=1)


def spent(spend: Spend | None, first: date, last: date) -> dict[str, float]:
    """Channel -> spend (currency) of the rows whose day, or first day of the week, lies in the period.

    Empty where there is no spend table or it does not cover the period.
    """
    if spend is None or spend.first > first or spend.last < last:
        return {}
    rows = spend.rows[(spend.rows["day"] >= first) & (spend.rows["day"] <= last)]
    return {str(c): float(v) for c, v in rows.groupby("channel")["spend"].sum().items()}


def findings(job: Job, worked: Sequence[Estimate], found: Sequence[Credit], totals: Totals) -> list[parity.Finding]:
    """Everything that can be compared inside this version."""
    out = [*parity.agreement(worked), *parity.change(worked), *parity.over_claimed(found, CLAIMED)]
    kpi = _kpi_totals(job.releases, totals)
    both = {key: (mean, math.hypot(sd, kpi[key][1])) for key, (mean, sd) in totals.items() if key in kpi}
    out += parity.totals(both, {key: value for key, (value, _) in kpi.items()}, "credited totals", "the kpi table")
    if job.billing is not None:
        books = {key: v for key in totals for m, v in job.billing.within(*key[1]).items() if m == key[0]}
        out += parity.totals(totals, books, "credited totals", "billing")
    if job.claims is not None:
        out += _claims_findings(job, totals)
    return out


def _kpi_totals(releases: Sequence[Release], totals: Totals) -> Totals:
    """Mean and sd of the KPI in periods that kpi releases cover whole."""
    cells, out = kpi_rows(releases), {}
    for metric, (first, last) in totals:
        rows = cells[(cells["metric"] == metric) & cells["week"].map(lambda w: first <= w <= last)]  # noqa: B023
        if rows["week"].nunique() * WEEK == (last - first).days + 1:
            out[metric, (first, last)] = (float(rows["value"].sum()), float(np.sqrt(rows["variance"].sum())))
    return out


def _claims_findings(job: Job, totals: Totals) -> list[parity.Finding]:
    """Claims as each export saw them, and the cost that platforms report against the spend table."""
    assert job.claims is not None
    out = []
    for metric, period in totals:
        history = restated(job.claims.rows, period, metric)
        for platform, rows in history.groupby("platform"):
            for before, after in zip(rows.itertuples(), list(rows.itertuples())[1:], strict=False):
                out.append(parity.restatement(str(platform), metric, period, before, after))
    for period in {p for _, p in totals}:
        books = spent(job.public.spend, *period)
        sums = claims_within(job.claims.rows, period, ["channel"]).set_index("channel")["spend"].dropna()
        out += parity.costs({str(c): float(v) for c, v in sums.items()}, books, period)
    return out


def credit_gap(releases: Sequence[Release], found: Sequence[Credit]) -> pd.DataFrame:
    """Per metric and quarter: total credit against the kpi table's total of the same weeks, in sd of their difference.

    All models' credits add up to one total, so that one model stands for all. Their noise is taken as independent
    between channels, which it is not quite: the figure is a health check, not a test.
    """
    cells = kpi_rows(releases)
    blocks = {r.block_start: r.block for r in releases if r.measure == "journeys"}
    inside = [c for c in found if c.period_start in blocks and c.model != CLAIMED]
    model = inside[0].model if inside else ""
    rows = []
    for metric, block in product(METRICS, sorted(set(blocks.values()))):
        mine = [c for c in inside if c.metric == metric and c.model == model and blocks[c.period_start] == block]
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
    rooms=(
        "contracts",
        "attribution",
        "workflow.step_credit",
        "workflow.codec",
        "workflow.claims_in",
        "workflow.claims_formats",
    ),
    skip=_skip,
    inputs=_inputs,
    settings=lambda job: {
        "channels": job.public.channels,
        "seed": job.config.model.seed,
        **job.config.part("attribution", "inputs", "rates"),
    },
    build=_build,
)
