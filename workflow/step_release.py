"""`plumb release`: publishes what the declared question asks for and is not out yet.

What is out stays out: a quarter whose measure is published keeps its release, even when geos, channels, weeks or bounds
were declared anew since (docs/decisions/0042). A correction is asked for by name, follows what it corrects and is read
in its place (0170). The step is never stale because the code changed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from contracts.errors import MissingStep
from contracts.release import NANO, Release, current
from contracts.tables import BY_NAME
from lift.looks import look_number
from privacy.room import (
    ReleasePlan,
    plan_releases,
    publish_releases,
    published_hashes,
    read_charges,
    read_release,
    read_spending,
    require_published,
    verify_ledger,
)
from privacy.room import epsilon_of as nano_epsilon
from workflow.artifacts import Draft, digest_of, find, utc_now
from workflow.job import PEOPLE, Job, Outcome
from workflow.paths import require_space
from workflow.people_inputs import actor, ledger_paths, people_inputs, question, raw_zone, utc_clock
from workflow.progress import Report, bar

NAME = "release"
SPARE_BYTES = 100_000_000  # for releases, artifacts and the warehouse of one run
Held = dict[str, Release]  # by release id
Caps = Mapping[str, Mapping[str, int]]  # opened block -> measure -> nano-rho granted


def published(job: Job) -> Held:
    """Published releases by id. Raises LedgerError for a file that this ledger never released, or an edited one."""
    files = sorted(job.workspace.releases.glob("*.parquet")) if job.workspace.releases.is_dir() else []
    if not files:
        return {}
    hashes = published_hashes(ledger_paths(job), utc_clock())
    out: Held = {}
    for path in files:
        found = read_release(path)
        require_published(path, found.release_id, hashes)
        found = dataclasses.replace(found, metadata=found.metadata | {"file_hash": hashes[found.release_id]})
        out[found.release_id] = found
    return out


def _answers(release: Release, plan: ReleasePlan) -> bool:
    """True when the published release holds what the plan would ask for again, wholly or in part."""
    if release.measure != plan.measure or release.correction != plan.correction:
        return False
    if plan.measure == "trials":
        return (release.metadata["experiment"], look_number(release)) == (plan.experiment, plan.look)
    if plan.correction:
        return release.block == plan.blocks[0]
    overlap = release.block_start <= plan.period_end and plan.period_start <= release.block_end
    return release.block == plan.blocks[0] and (overlap or plan.measure == "diagnostics")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What plumb.toml asks for today, beside what is out."""

    plans: tuple[ReleasePlan, ...]  # to publish or to verify
    older: tuple[str, ...]  # ids of releases that stand for an older question
    left_out: Mapping[str, str]  # what is not released, and why


def wanted(job: Job, held: Held) -> Wanted:
    """Compares the declared question with the published releases and with the ledger's grants."""
    caps = _caps(job)
    plans, older, left_out = [], [], _unknown_quarters(job)
    for plan in plan_releases(question(job), job.config.privacy.policy()):
        out = [r.release_id for r in held.values() if _answers(r, plan)]
        if plan.release_id in held:
            plans.append(plan)
        elif out:
            older += out
        elif why := _waits(plan, held, caps):
            left_out[_subject(plan)] = why
        else:
            plans.append(plan)
    return Wanted(tuple(plans), tuple(sorted(set(older))), left_out)


def _subject(plan: ReleasePlan) -> str:
    again = f", correction {plan.correction}" if plan.correction else ""
    return f"{plan.experiment or plan.measure} of {';'.join(plan.blocks)}{again}"


def _caps(job: Job) -> Caps:
    if not job.workspace.ledger.exists():
        return {}
    found = read_spending(ledger_paths(job), utc_clock())
    return {q.block: {p.measure: p.cap_nano for p in q.portions} for q in found.quarters} if found else {}


def _waits(plan: ReleasePlan, held: Held, caps: Caps) -> str:
    """Why a plan that is not out is not published now; '' when it is."""
    ungranted = [b for b in plan.blocks if b in caps and not caps[b].get(plan.measure)]
    if not plan.correction:
        return (
            f"{ungranted[0]} was opened without a share for {plan.measure}, which cannot be given to it afterwards; "
            "where its reserve is not spent, [[privacy.corrections]] lets the reserve pay"
            if ungranted
            else ""
        )
    before = [r for r in held.values() if (r.measure, r.block) == (plan.measure, plan.blocks[0])]
    if plan.correction - 1 in {r.correction for r in before} or (plan.correction == 1 and ungranted):
        return ""
    what = f"correction {plan.correction - 1}" if plan.correction > 1 else "first release"
    return f"a correction follows what it corrects, and the {what} is not out; run: plumb release"


def _unknown_quarters(job: Job) -> dict[str, str]:
    """Corrections of quarters that are not closed, or of which the calendar holds nothing."""
    closed = {b.start for b in question(job).blocks if b.closed}
    return {
        f"{c.measure} of quarter-{c.quarter}, a correction": "the quarter is not closed yet, or not in the calendar"
        for c in job.config.privacy.corrections
        if c.quarter not in closed
    }


def _in_order(held: Held) -> tuple[Release, ...]:
    return tuple(sorted(held.values(), key=lambda r: (r.block_start, r.measure, r.release_id)))


def advance_release(job: Job, *, build: bool) -> Outcome:
    """Publishes what is missing, or looks up what is there. Raises MissingStep when something is to be published.

    The room verifies each published file against the ledger; nothing is charged for it.
    """
    if job.panel_door:
        return _done(
            job, Outcome(NAME, "skipped", "the aggregate-only door: no user-level data is used", None, made=False)
        )
    if job.workspace.ledger.exists():
        verify_ledger(ledger_paths(job))
    held = published(job)
    want = wanted(job, held)
    plans = want.plans
    if not plans and not held:
        reason = "no quarter is closed yet; plumb run --as-of DATE also releases the open one"
        return _done(job, Outcome(NAME, "skipped", reason, None, made=False))
    missing = [p for p in plans if p.release_id not in held]
    if missing and not build:
        raise MissingStep(f"{len(missing)} releases are not published yet; run: plumb release")
    begun = utc_now()
    if build:
        _publish(job, plans, bool(missing))
        held = published(job)
    job.published = _in_order(held)
    job.releases = current(job.published)
    return _done(job, _record(job, want, begun, made=bool(missing)))


def _done(job: Job, outcome: Outcome) -> Outcome:
    job.outcomes[NAME] = outcome
    return outcome


def _publish(job: Job, plans: tuple[ReleasePlan, ...], some: bool) -> None:
    if some:
        size = sum(p.stat().st_size for name in ("events", "assignments") for p in job.files(name))
        require_space(job.workspace.root, SPARE_BYTES + size)
    with bar("Releasing", job.quiet or not some) as report:
        publish_releases(
            plans,
            people_inputs(job),
            job.config.privacy.policy(),
            question(job),
            ledger=ledger_paths(job),
            releases_dir=job.workspace.releases,
            raw_dir=raw_zone(job),
            secret=job.secret,
            run_id=job.run_id,
            now=utc_clock(),
            retention_days=job.config.privacy.retention_days,
            engine=job.config.privacy.engine,
            actor=actor(),
            progress=lambda text, done, total: _move(report, done, total),
        )


def _move(report: Report, done: int, total: int) -> None:
    report(done / max(total, 1), None)


def _record(job: Job, want: Wanted, begun: datetime, made: bool) -> Outcome:
    """The step's artifact: which releases there are, with their hashes. It costs nothing to write it again."""
    hashes = {r.release_id: str(r.metadata["file_hash"]) for r in job.published}
    facts = {"older_question": list(want.older)} | ({"left_out": dict(want.left_out)} if want.left_out else {})
    key = digest_of({"releases": hashes} | facts)[:32]
    artifact = find(job.workspace.runs, NAME, key)
    if artifact is None:
        draft = Draft(job.workspace.runs, NAME, key, started_at=begun)
        draft.path("releases.json").write_text(json.dumps(hashes, indent=1), encoding="utf-8")
        people = {k: v for k, v in job.input_hashes.items() if k.split(":")[0] in PEOPLE}
        artifact = draft.commit(job.run_id, people, facts)
        made = True
    why = "; ".join(f"not released: {subject} ({reason})" for subject, reason in want.left_out.items())
    return Outcome(NAME, "done", why, artifact, made=made)


def spent_nano(job: Job) -> int:
    """All charges so far, nano-rho, summed over releases and blocks."""
    if job.panel_door or not job.workspace.ledger.exists():
        return 0
    return round(float(read_charges(ledger_paths(job))["rho"].sum()) * NANO)


def charges_view(job: Job) -> pd.DataFrame:
    """v_charges, charged_at as naive UTC."""
    columns = list(BY_NAME["v_charges"].names)
    if job.panel_door or not job.workspace.ledger.exists():
        return pd.DataFrame(columns=columns)
    charges = read_charges(ledger_paths(job))
    charges["charged_at"] = charges["charged_at"].dt.tz_localize(None)
    return charges[columns]


def epsilon_of(rho: float, delta: float) -> float:
    """epsilon at `delta` of a zCDP budget."""
    return nano_epsilon(round(rho * NANO), delta)
