"""The release protocol: plan, room on disk, load and validate, reserve, bound and draw, stage, commit, publish.

A draw is staged sealed (`privacy.vault`): until its hash is committed, nobody without the workspace secret can read it,
also not the draw that a crash left behind. Then the content is written beside its public name, synced and renamed.

A crash at any point leaves one of four states, and each has one way on:

| state found | way on |
|---|---|
| nothing in the ledger | reserve |
| reserved, no whole staged file | wipe, log the attempt, draw again under the same charge |
| reserved, whole staged file | commit its hash, open it under its public name |
| published, file still staged | open it under its public name |
| published, file in place with the committed hash | return it, never draw again |

Anything else (a published file missing or edited, a file that the ledger does not know) is refused.
Rows are loaded and validated before the first reservation, so that bad input costs nothing; nothing is summed before
the charge is committed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from contracts.errors import LedgerError, PrivacyError, WorkspaceError
from privacy import credit, diagnostics, files, journeys, kpi, levels, media, trials
from privacy.bounding import linf_units
from privacy.budget import maps_of, recorded
from privacy.chain import LedgerPaths
from privacy.disk import (
    bytes_hash,
    file_hash,
    full_disk,
    only_one,
    preallocate,
    private_folder,
    sync_folder,
    write_into,
)
from privacy.grants import Grant
from privacy.identity import NO_MAP
from privacy.inputs import PeopleInputs, Question
from privacy.ledger import Ledger, ReleaseState, open_ledger
from privacy.load import LoadSettings, load_people
from privacy.mechanism import add_noise, epsilon_of
from privacy.people import Crowd, People
from privacy.plan import SCHEMA_VERSION, release_keys, trial_part
from privacy.policy import MEASURES, PrivacyPolicy
from privacy.vault import SUFFIX, Vault
from privacy.vectors import ReleasePlan, Span, keyed

Progress = Callable[[str, int, int], None]  # text, done, total
BYTES_PER_CELL, BYTES_PER_FILE = 96, 65_536  # generous: what a file takes at most
QUARTERS_PER_YEAR = 4
LOCK = "publishing.lock"
FIXED_SETTINGS = ("time_zone", "currency", "conversion_is_touch")


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that stays the same while a set of plans is published."""

    inputs: PeopleInputs
    policy: PrivacyPolicy
    question: Question
    releases_dir: Path
    staging: Path
    run_id: str
    now: datetime
    vault: Vault  # seals what is staged
    actor: str = ""  # who is written into the ledger beside each charge
    identity: str = ""  # version of the identity map, known once people are loaded
    other_maps: tuple[str, ...] = ()  # other versions under which releases of the same blocks are out

    def final(self, plan: ReleasePlan) -> Path:
        """Where the published file lies."""
        return self.releases_dir / f"{plan.release_id}.parquet"

    def staged(self, plan: ReleasePlan) -> Path:
        """Where a whole sealed file waits for its commit; it has this name only once it is complete."""
        return self.staging / f"{plan.release_id}{SUFFIX}"

    def part(self, plan: ReleasePlan) -> Path:
        """The sealed file being written."""
        return self.staging / f"{plan.release_id}.part"

    def opening(self, plan: ReleasePlan) -> Path:
        """The committed content being written, not yet under its public name."""
        return self.releases_dir / f".{plan.release_id}.part"


def grant_of(policy: PrivacyPolicy, inputs: PeopleInputs, question: Question) -> Grant:
    """Caps of a block, nano-rho, and what decides which day lies in it."""
    calendar = {"time_zone": inputs.time_zone, "week_start": question.week_start}
    return Grant(policy.cap_nano, {m: policy.share_nano(m) for m in MEASURES}, calendar)


def publish(
    plans: tuple[ReleasePlan, ...], job: Job, paths: LedgerPaths, settings: LoadSettings, progress: Progress
) -> tuple[Path, ...]:
    """Runs the protocol for every plan, in order. See `privacy.room.publish_releases` for the errors."""
    job.releases_dir.mkdir(parents=True, exist_ok=True)
    private_folder(settings.raw_dir)
    private_folder(job.staging)
    with only_one(settings.raw_dir / LOCK), open_ledger(paths, job.now) as ledger, ExitStack() as stack:
        for left in job.releases_dir.glob(".*.part"):  # of a crash; the sealed file is kept until the rename
            left.unlink()
        pending = tuple(p for p in plans if not _finish(p, job, ledger))
        if pending:
            grant = grant_of(job.policy, job.inputs, job.question)
            ledger.check_affordable(tuple(p for p in pending if ledger.state(p.release_id) is None), grant)
            _take_room(pending, job)
            progress("reading events", len(plans) - len(pending), len(plans))
            crowd = stack.enter_context(load_people(job.inputs, job.question, replace(settings, keyed=keyed(pending))))
            job = replace(job, identity=crowd.identity)
            maps = {plan.release_id: _other_maps(plan, job, ledger) for plan in pending}
            for plan in pending:
                progress(f"releasing {plan.measure} {plan.experiment or plan.blocks[0]}", plans.index(plan), len(plans))
                _release(plan, replace(job, other_maps=maps[plan.release_id]), ledger, grant, crowd)
    progress("released", len(plans), len(plans))
    return tuple(job.final(p) for p in plans)


def _finish(plan: ReleasePlan, job: Job, ledger: Ledger) -> bool:
    """True when the release is out without a new draw: verified in place, or moved there from its whole staged file."""
    state = ledger.state(plan.release_id)
    final, staged = job.final(plan), job.staged(plan)
    if (state is None or state.state == "reserved") and final.exists():
        raise LedgerError(
            f"{final} exists, but the ledger does not know that it was published: it is not the ledger that "
            "released it. Put the newest ledger back."
        )
    if state is None:
        return False
    if state.state == "reserved":
        content = _whole(plan, job, state)
        if content is None:
            return False
        _commit(plan, job, ledger, content)
    elif final.exists():
        if final.is_symlink() or file_hash(final) != state.out_hash:
            raise LedgerError(
                f"{final} was edited after publication: it is not the file that the ledger committed. Restore the "
                "published file; it is never drawn again."
            )
    elif (content := _unsealed(staged, job)) is not None and bytes_hash(content) == state.out_hash:
        _reveal(plan, job, content)
    else:
        raise LedgerError(
            f"{final} was published and is missing. Restore it from a copy; it is never drawn again, because a second "
            "draw would spend privacy that the ledger does not hold."
        )
    for path in (job.part(plan), staged):
        path.unlink(missing_ok=True)
    _same_settings(final, job.inputs)
    return True


def _same_settings(path: Path, inputs: PeopleInputs) -> None:
    made = files.read_release(path).metadata["inputs"]
    now = inputs.declared()
    for name in FIXED_SETTINGS:
        if made[name] != now[name]:
            raise PrivacyError(
                f"{path.name} was released with {name} = {made[name]!r} and plumb.toml now says {now[name]!r}; "
                "a published number keeps its meaning. Put it back."
            )


def _other_maps(plan: ReleasePlan, job: Job, ledger: Ledger) -> tuple[str, ...]:
    """Other maps under which releases of the plan's blocks are out. Raises PrivacyError unless that is accepted.

    The grant protects a person of one map; somebody whose k ids were k people before was protected there as k.
    """
    out = recorded(ledger.entries())
    other = {m: block for block in plan.blocks for m in maps_of(out, block) if m != job.identity}
    if other and job.inputs.identity_change == "refuse":
        before, block = next(iter(other.items()))
        told = [
            f"version {m[:12]} of the identity map" if m != NO_MAP else "no identity map"
            for m in (before, job.identity)
        ]
        raise PrivacyError(
            f"{block} was released with {told[0]}, and this load has {told[1]}: {plan.release_id} would count other "
            "people than the releases beside it. Put the map of that quarter back, or set privacy.identity_change = "
            '"accept" (docs/privacy.md, "Who is who"). Nothing was charged.'
        )
    return tuple(sorted(other))


def _take_room(pending: tuple[ReleasePlan, ...], job: Job) -> None:
    """Takes the disk space of every staged file before anything is charged. Raises WorkspaceError when it is full."""
    taken: list[Path] = []
    try:
        for plan in pending:
            for path in (job.part(plan), job.opening(plan)):
                preallocate(path, plan.cells * BYTES_PER_CELL + BYTES_PER_FILE)
                taken.append(path)
    except WorkspaceError:
        for path in taken:
            path.unlink(missing_ok=True)
        raise


def _release(plan: ReleasePlan, job: Job, ledger: Ledger, grant: Grant, crowd: Crowd) -> None:
    """One plan, from its charge to its file."""
    again = ledger.state(plan.release_id) is not None
    state = ledger.reserve(plan, grant, job.now, job.actor)
    if again:  # a crash came after the charge and before a whole file: what was drawn then has been seen by nobody
        ledger.note_attempt(plan.release_id, job.now)
        job.staged(plan).unlink(missing_ok=True)
    content = _draw(plan, job, ledger, crowd, state)
    _stage(content, plan, job)
    _commit(plan, job, ledger, content)


def _commit(plan: ReleasePlan, job: Job, ledger: Ledger, content: bytes) -> None:
    """Commits the hash of the content that is staged whole, then publishes it."""
    ledger.publish(plan.release_id, bytes_hash(content), job.now)
    _reveal(plan, job, content)


def _unsealed(path: Path, job: Job) -> bytes | None:
    """Content of a staged file; None where there is none, or it does not open."""
    try:
        return b"".join(job.vault.read(path)) if path.exists() else None
    except (PrivacyError, OSError, ValueError):
        return None


def _whole(plan: ReleasePlan, job: Job, state: ReleaseState) -> bytes | None:
    """The staged content when it is complete and belongs to this reservation, else None."""
    content = _unsealed(job.staged(plan), job)
    if content is None:
        return None
    try:
        meta = files.read_release(job.staged(plan), content).metadata
    except PrivacyError:
        return None
    sound = meta["spec_hash"] == plan.spec_hash and meta["ledger_head"] == state.reserve_hash
    return content if sound else None


def _stage(content: bytes, plan: ReleasePlan, job: Job) -> None:
    """Writes the sealed file whole under another name, syncs it, then gives it the name that means complete."""
    write_into(job.part(plan), job.vault.sealed(job.staged(plan).name, content))
    _rename(job.part(plan), job.staged(plan))


def _reveal(plan: ReleasePlan, job: Job, content: bytes) -> None:
    """Puts committed content under its public name at once, then wipes what was staged."""
    write_into(job.opening(plan), content)
    _rename(job.opening(plan), job.final(plan))
    job.staged(plan).unlink(missing_ok=True)


def _rename(source: Path, target: Path) -> None:
    try:
        if target.suffix == ".parquet":
            os.chmod(source, 0o644)
        os.replace(source, target)
    except OSError as error:
        raise full_disk(target, error) from error
    sync_folder(target.parent)


def exact_vectors(
    plan: ReleasePlan, people: People, policy: PrivacyPolicy, question: Question
) -> dict[str, np.ndarray]:
    """Bounded, noise-free integer totals per vector of the people of one partition."""
    if plan.measure == "trials":
        return {"trial": trials.exact(people, trial_part(plan, question), policy.trials, plan.vectors[0])}
    number, block = next((i, b) for i, b in enumerate(question.blocks) if b.id == plan.blocks[0])

    def span(weeks: tuple[date, ...]) -> Span:
        return Span(number, block.weeks.index(weeks[0]), len(weeks))

    here = span(plan.weeks)
    if plan.measure == "kpi":
        return kpi.exact(people, here, plan.vectors)
    if plan.measure == "journeys":
        return journeys.exact(people, here, len(question.channels), policy.journeys, plan.vectors)
    if plan.measure == "media":
        return media.exact(people, here, question, policy.media, plan.vectors)
    if plan.measure == "credit":
        return credit.exact(people, here, question, policy.credit, plan.vectors)
    if plan.measure == "levels":
        return levels.exact(people, here, question, policy, plan.vectors)
    spans = tuple(span(weeks) for weeks in policy.kpi_batches(block, plan.correction))
    return diagnostics.exact(people, here, spans, policy, plan.vectors)


def exact_totals(plan: ReleasePlan, crowd: Crowd, policy: PrivacyPolicy, question: Question) -> dict[str, np.ndarray]:
    """Bounded, noise-free integer totals per vector over all partitions.

    In memory only: for the mechanism and tests.
    """
    out = {v.name: np.zeros(v.cells, dtype=np.int64) for v in plan.vectors}
    for people in crowd.each():
        for name, units in exact_vectors(plan, people, policy, question).items():
            out[name] += units
    return out


def _draw(plan: ReleasePlan, job: Job, ledger: Ledger, crowd: Crowd, state: ReleaseState) -> bytes:
    keys = release_keys(plan, job.question, job.policy)
    exact = exact_totals(plan, crowd, job.policy, job.question)
    ledger.note_draw(plan.release_id, state.reserve_hash, job.now, job.identity)
    scale = None
    if plan.measure == "trials":
        part = trial_part(plan, job.question)
        bounds = trials.component_bounds(job.policy.trials, part.components, part.design.covariate)
        scale = np.tile(bounds, plan.cells // len(bounds))
    tables = [files.vector_table(keys[v.name], v, add_noise(exact[v.name], v.sigma_units), scale) for v in plan.vectors]
    return files.encode(tables, _metadata(plan, job, state))


def bounding_text(plan: ReleasePlan) -> str:
    """How one person's contribution was bounded, for readers of the release."""
    capped = [f"{v.name}: {v.l0} x {linf_units(v.bound_units, v.l0) * v.unit:.6g}" for v in plan.vectors if v.l0]
    if not capped:
        return "integer L2 scaling"
    rest = "" if len(capped) == len(plan.vectors) else "; other vectors by integer L2 scaling"
    return f"at most L0 cells in keyed-hash order, of at most Linf each ({', '.join(capped)}){rest}"


def _metadata(plan: ReleasePlan, job: Job, state: ReleaseState) -> dict[str, Any]:
    cap, delta = job.policy.cap_nano, job.policy.delta
    return {
        "schema_version": SCHEMA_VERSION,
        "release_id": plan.release_id,
        "spec_hash": plan.spec_hash,
        "measure": plan.measure,
        "experiment": plan.experiment,
        "blocks": list(plan.blocks),
        "period_start": plan.period_start.isoformat(),
        "period_end": plan.period_end.isoformat(),
        "week_start": job.question.week_start,
        "weeks": [w.isoformat() for w in plan.weeks],
        "unit": "user x fiscal quarter",
        "neighbours": "add or remove one user",
        "keys_hash": plan.keys_hash,
        "vectors": [files.vector_metadata(v) for v in plan.vectors],
        "nano_rho": plan.nano,
        "epsilon": epsilon_of(plan.nano, delta),
        "delta": delta,
        "quarter": {"nano_rho": cap, "epsilon": epsilon_of(cap, delta)},
        "year": {
            "nano_rho": QUARTERS_PER_YEAR * cap,
            "epsilon": epsilon_of(QUARTERS_PER_YEAR * cap, delta),
            "meaning": "worst case of one user over four fiscal quarters",
        },
        "bounding": bounding_text(plan),
        "max_touches": job.policy.journeys.max_touches if plan.measure == "journeys" else None,
        "trial_bounds": job.policy.trials.bounds() if plan.measure == "trials" else None,
        "credit": credit.declared(job.policy.credit) if plan.measure == "credit" else None,
        "inputs": job.inputs.declared() | {"identity_map": job.identity, "other_maps": list(job.other_maps)},
        "correction": {"number": plan.correction, "as_of": job.now.isoformat()} if plan.correction else None,
        "ledger_head": state.reserve_hash,
        "run_id": job.run_id,
        "published_at": job.now.isoformat(),
    } | files.provenance(plan)
