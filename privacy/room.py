"""The door of the privacy room: everything that `workflow/` calls.

plans = plan_releases(question, policy)              # pure, public
check_people(inputs, policy, question, ...)          # reads and validates, releases nothing
publish_releases(plans, inputs, policy, question, ...)   # the only function that turns people's rows into numbers
read_release(path), read_charges(ledger), verify_ledger(ledger)
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pandas as pd

from contracts.calendar import Block
from contracts.evidence import Experiment
from privacy.cadence import Cadence, Part
from privacy.chain import LedgerPaths
from privacy.files import read_release
from privacy.inputs import FileSet, Fixed, HashOf, PeopleInputs, Question
from privacy.ledger import charge_frame, open_ledger
from privacy.load import LoadSettings, load_people
from privacy.mechanism import epsilon_of
from privacy.plan import plan_releases, release_keys, waiting
from privacy.policy import Bound, JourneyPolicy, PrivacyPolicy, TrialPolicy
from privacy.publish import Job, Progress, publish
from privacy.vectors import ReleasePlan, VectorPlan

__all__ = [
    "Block", "Bound", "Cadence", "CheckFigure", "Experiment", "FileSet", "Fixed", "HashOf", "JourneyPolicy",
    "LedgerPaths", "Part", "PeopleCheck", "PeopleInputs", "PrivacyPolicy", "Progress", "Question",
    "ReleasePlan", "TrialPolicy", "VectorPlan", "check_people", "epsilon_of", "plan_releases",
    "publish_releases", "read_charges", "read_release", "release_keys", "verify_ledger", "waiting",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class CheckFigure:
    """One row for v_checks. It never holds a count of people's rows."""

    check_name: str
    subject: str
    status: Literal["pass", "warn", "fail"]
    threshold: float | None
    text: str


@dataclass(frozen=True, slots=True)
class PeopleCheck:
    """What a check of the inputs about people found; exact counts are in the raw zone's log only."""

    figures: tuple[CheckFigure, ...]

    @property
    def passed(self) -> bool:
        """True when nothing failed."""
        return all(f.status != "fail" for f in self.figures)


def _silent(text: str, done: int, total: int) -> None:
    """Progress for callers that show none."""


def check_people(
    inputs: PeopleInputs, policy: PrivacyPolicy, question: Question, *, now: datetime, raw_dir: Path
) -> PeopleCheck:
    """Reads and validates every row about people; releases and charges nothing.

    Malformed rows go to `raw_dir/quarantine/NAME.csv` with reasons. Raises InputError for file-level faults and when
    more than `inputs.max_rejected` of the rows are malformed, ConfigError when the plan itself is impossible.
    """
    plans = plan_releases(question, policy)
    settings = LoadSettings(now, raw_dir, secrets.token_bytes(32))  # hashes of a check are of no use afterwards
    with load_people(inputs, question, settings):
        pass
    figures = [_rows_figure("events", inputs, raw_dir)]
    if inputs.assignments is not None:
        figures.append(_rows_figure("assignments", inputs, raw_dir))
    consent = "assumed" if inputs.consent_assumed else "column"
    figures.append(
        CheckFigure(
            "consent",
            "events",
            "warn" if inputs.consent_assumed else "pass",
            None,
            "everybody without a statement is assumed to consent"
            if inputs.consent_assumed
            else "only people whose latest statement is consent are counted",
        )
    )
    figures.append(
        CheckFigure("plan", "releases", "pass", None, f"{len(plans)} releases are planned; consent: {consent}")
    )
    for e in waiting(question):
        text = "its window is not over, or not inside released quarters, so it is not released yet"
        figures.append(CheckFigure("experiment", e.name, "warn", None, text))
    return PeopleCheck(tuple(figures))


def _rows_figure(name: str, inputs: PeopleInputs, raw_dir: Path) -> CheckFigure:
    some = (raw_dir / "quarantine" / f"{name}.csv").exists()
    text = (
        f"some rows are malformed, no more than inputs.max_rejected; see raw/quarantine/{name}.csv"
        if some
        else "every row keeps the contract"
    )
    return CheckFigure("malformed rows", name, "warn" if some else "pass", inputs.max_rejected, text)


def publish_releases(
    plans: tuple[ReleasePlan, ...],
    inputs: PeopleInputs,
    policy: PrivacyPolicy,
    question: Question,
    *,
    ledger: LedgerPaths,
    releases_dir: Path,
    raw_dir: Path,
    secret: bytes,
    run_id: str,
    now: datetime,
    actor: str = "",
    progress: Progress = _silent,
) -> tuple[Path, ...]:
    """Publishes every plan and returns the files, in the order of the plans.

    Releases that are out already are verified and returned as they are: neither read again nor charged. `now` must know
    its zone; `actor` is written into the ledger beside each charge; `progress(text, done, total)` is called between
    releases. Raises, before anything is charged: InputError (bad rows), WorkspaceError (no room, or another process is
    publishing), BudgetExceeded, PrivacyError (a grant or setting changed), LedgerError (ledger or file missing, edited
    or restored). Protocol: `privacy.publish`.
    """
    settings = LoadSettings(now, raw_dir, secret)
    job = Job(inputs, policy, question, releases_dir, raw_dir / "staging", run_id, now, actor)
    return publish(plans, job, ledger, settings, progress)


def read_charges(ledger: LedgerPaths) -> pd.DataFrame:
    """Columns of v_charges, one row per release x block; empty before the first release. Raises LedgerError."""
    if _untouched(ledger):
        return charge_frame([])
    with open_ledger(ledger, datetime.now(UTC)) as book:
        return book.charges()


def verify_ledger(ledger: LedgerPaths) -> None:
    """Replays the whole chain and compares it with the head kept outside. Raises LedgerError on any misfit."""
    if not _untouched(ledger):
        with open_ledger(ledger, datetime.now(UTC)):
            pass


def _untouched(ledger: LedgerPaths) -> bool:
    """True before the first release; reading must not create a ledger."""
    return not ledger.db.exists() and not ledger.head.exists()
