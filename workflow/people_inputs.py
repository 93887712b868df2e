"""What the privacy room is asked: people's files, the public question and the ledger's place, from plumb.toml."""

from __future__ import annotations

import getpass
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from contracts.calendar import Block, blocks
from contracts.errors import InputError
from privacy.room import (
    CheckFigure,
    FileSet,
    Fixed,
    Forgotten,
    HashOf,
    LedgerPaths,
    LoadSettings,
    PeopleInputs,
    Question,
    check_people,
    forget_person,
    list_beside,
    read_forgotten,
    read_quarantine,
    require_private,
)
from workflow.config import FixedColumn, HashedColumn, TableInput
from workflow.job import Job
from workflow.paths import make_private, secret_home


def utc_clock() -> datetime:
    """The clock, with its zone."""
    return datetime.now(UTC)


def file_set(job: Job, section: TableInput, name: str) -> FileSet:
    """Files of one input about people, with their column mapping."""
    columns: dict[str, str | Fixed | HashOf] = {}
    for ours, theirs in section.columns.items():
        if isinstance(theirs, FixedColumn):
            value = theirs.value
            columns[ours] = Fixed(str(value).lower() if isinstance(value, bool) else str(value))
        elif isinstance(theirs, HashedColumn):
            columns[ours] = HashOf(tuple(theirs.hash))
        else:
            columns[ours] = theirs
    return FileSet(tuple(job.files(name)), columns)


def people_inputs(job: Job) -> PeopleInputs:
    """Everything that holds rows about people. Raises InputError for a missing file."""
    config = job.config
    events, assignments, identity = config.inputs.events, config.inputs.assignments, config.inputs.identity
    if events is None:
        raise InputError("there is no [inputs.events] in plumb.toml.")
    return PeopleInputs(
        events=file_set(job, events, "events"),
        assignments=file_set(job, assignments, "assignments") if assignments is not None else None,
        consent_assumed=events.consent == "assumed",
        conversion_is_touch=events.conversion_is_touch,
        time_zone=config.project.time_zone,
        currency=config.project.currency,
        rates={k: v for k, v in config.rates.items() if k != config.project.currency},
        max_rejected=config.inputs.max_rejected,
        identity=file_set(job, identity, "identity") if identity is not None else None,
        identity_change=config.privacy.identity_change,
        not_identifiers=frozenset(config.inputs.not_identifiers),
    )


def actor() -> str:
    """Who runs this: the name of the operating system's user; the ledger keeps it beside each charge."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}"


def today(job: Job) -> date:
    """The day taken for today. Raises InputError for a day that has not come: its budget would buy empty weeks."""
    now = utc_clock().date()
    if job.as_of is not None and job.as_of > now + timedelta(days=1):  # somewhere it is tomorrow already
        raise InputError(
            f"--as-of {job.as_of} lies in the future; what is released once is never released again, and the weeks "
            "until then have no events yet. Name a day that has come."
        )
    return job.as_of or now


def closed_blocks(job: Job) -> tuple[Block, ...]:
    """Quarters to release: closed ones; with --as-of also the complete weeks of the quarter open that day.

    A quarter closes `close_lag_days` after it ended, so that late rows are in. Who names a day decides that they are.
    """
    day = today(job)
    late = timedelta(days=job.config.privacy.close_lag_days if job.as_of is None else 0)
    weeks = tuple(w for w in job.public.weeks if w + timedelta(days=6) < day)
    quarters = blocks(weeks, job.config.project.fiscal_year_start)
    found = tuple(replace(b, closed=_closed(b, job, day - late)) for b in quarters)
    return tuple(b for b in found if job.as_of is not None or b.closed)


def running_blocks(job: Job, released: Sequence[Block]) -> tuple[Block, ...]:
    """Open quarters with the weeks that are complete and old enough for late rows: looks at running tests read them."""
    if not any(d.looks for d in job.config.experiments.values()):
        return ()
    late = timedelta(days=job.config.privacy.close_lag_days if job.as_of is None else 0)
    weeks = tuple(w for w in job.public.weeks if w + timedelta(days=6) < today(job) - late)
    found, out = blocks(weeks, job.config.project.fiscal_year_start), {b.id for b in released}
    return tuple(replace(b, closed=False) for b in found if b.id not in out)


def _closed(block: Block, job: Job, day: date) -> bool:
    """All weeks whose first day lies in the quarter have ended."""
    return block.end + timedelta(days=6) < day or (
        block.end < day and all(w + timedelta(days=6) < day for w in job.public.weeks if block.start <= w <= block.end)
    )


def question(job: Job) -> Question:
    """The public question. Raises ContractError for an undeclared arm or geo."""
    tests, declared = tuple(e for e in job.public.experiments if e.kind == "user"), job.config.experiments
    if not job.public.geos:
        raise InputError(
            "no geo is declared: add spend or controls, or geos to [project] of plumb.toml; where nothing is known by "
            'geo, write geos = ["national"] and columns = { geo = { value = "national" } } under [inputs.events].'
        )
    closed = closed_blocks(job)
    return Question(
        blocks=closed,
        running=running_blocks(job, closed),
        week_start=job.config.project.week_start,
        geos=job.public.geos,
        channels=job.public.channels,
        experiments=tests,
        arms={e.name: tuple(declared[e.name].arms) for e in tests if e.name in declared},
        designs={e.name: declared[e.name].design() for e in tests if e.name in declared},
    )


def ledger_paths(job: Job) -> LedgerPaths:
    """The ledger and the head that guards it against older copies."""
    return LedgerPaths(job.workspace.ledger, secret_home(job.config.project.id) / "ledger_head")


def raw_zone(job: Job) -> Path:
    """The raw zone. Raises WorkspaceError when others than its owner may open it."""
    require_private(job.workspace.raw)
    return make_private(job.workspace.raw)


def check_people_files(job: Job) -> tuple[CheckFigure, ...]:
    """Reads every row about people and releases nothing. Raises InputError, ConfigError."""
    policy = job.config.privacy.policy()
    return check_people(people_inputs(job), policy, question(job), load_settings(job)).figures


def load_settings(job: Job) -> LoadSettings:
    """What a load needs besides the inputs. Raises WorkspaceError, PrivacyError."""
    forgotten = read_forgotten(list_beside(job.workspace.ledger), job.secret)
    return LoadSettings(utc_clock(), raw_zone(job), job.secret, job.config.privacy.retention_days, forgotten)


def forget(job: Job, user_id: str) -> Forgotten:
    """Deletes one person from what the room keeps, and from every later load."""
    return forget_person(
        user_id,
        people_inputs(job),
        raw_dir=raw_zone(job),
        secret=job.secret,
        listed=list_beside(job.workspace.ledger),
        now=utc_clock(),
    )


def quarantine_text(job: Job, name: str) -> str:
    """Newest quarantine of one input as CSV; '' when no row is set aside. Raises InputError for an unknown name."""
    if job.panel_door:
        raise InputError("this workspace holds no user-level data; nothing of people is set aside.")
    if name not in ("events", "assignments"):
        raise InputError(f"quarantine: there is none of {name!r}; use events or assignments.")
    return "".join(chunk.decode() for chunk in read_quarantine(raw_zone(job), job.secret, name))
