"""`plumb release`: publishes what the declared question asks for and is not out yet.

What is out stays out: a quarter whose measure is published keeps its release, even when geos, channels, weeks or bounds
were declared anew since (docs/decisions/0042). The step is never stale because the code changed.
"""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime

import pandas as pd

from contracts.errors import MissingStep
from contracts.release import NANO, Release
from contracts.tables import BY_NAME
from lift.looks import look_number
from privacy.room import (
    ReleasePlan,
    plan_releases,
    publish_releases,
    published_hashes,
    read_charges,
    read_release,
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
    if release.measure != plan.measure:
        return False
    if plan.measure == "trials":
        return (release.metadata["experiment"], look_number(release)) == (plan.experiment, plan.look)
    overlap = release.block_start <= plan.period_end and plan.period_start <= release.block_end
    return release.block == plan.blocks[0] and (overlap or plan.measure == "diagnostics")


def plans_of(job: Job, held: Held) -> tuple[tuple[ReleasePlan, ...], list[str]]:
    """Plans to publish or to verify, and the ids of releases that stand for an older question."""
    plans, older = [], []
    for plan in plan_releases(question(job), job.config.privacy.policy()):
        out = [r.release_id for r in held.values() if _answers(r, plan)]
        if out and plan.release_id not in held:
            older += out
        else:
            plans.append(plan)
    return tuple(plans), sorted(set(older))


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
    plans, older = plans_of(job, held)
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
    job.releases = _in_order(held)
    return _done(job, _record(job, older, begun, made=bool(missing)))


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


def _record(job: Job, older: list[str], begun: datetime, made: bool) -> Outcome:
    """The step's artifact: which releases there are, with their hashes. It costs nothing to write it again."""
    hashes = {r.release_id: str(r.metadata["file_hash"]) for r in job.releases}
    key = digest_of({"releases": hashes, "older": older})[:32]
    artifact = find(job.workspace.runs, NAME, key)
    if artifact is None:
        draft = Draft(job.workspace.runs, NAME, key, started_at=begun)
        draft.path("releases.json").write_text(json.dumps(hashes, indent=1), encoding="utf-8")
        people = {k: v for k, v in job.input_hashes.items() if k.split(":")[0] in PEOPLE}
        artifact = draft.commit(job.run_id, people, {"older_question": older})
        made = True
    return Outcome(NAME, "done", "", artifact, made=made)


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
