"""The door of the privacy room: everything that `workflow/` calls.

plans = plan_releases(question, policy)              # pure, public
check_people(inputs, policy, question, settings)     # reads and validates, releases nothing
forget_person(user_id, inputs, ...)                  # deletes a person from what the room keeps
publish_releases(plans, inputs, policy, question, ...)   # the only function that turns people's rows into numbers
read_release(path), read_charges(ledger), verify_ledger(ledger)
read_spending(ledger), forecasts(policy, rhos, sizes), void_release(id, proof, ...), audit(names, ...)   # the budget
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from contracts.calendar import Block
from contracts.evidence import Experiment
from privacy.audit import Subject, audit, published_hashes, require_published
from privacy.bounds import Bound
from privacy.budget import Quarter, Recorded, fiscal_years, read_spending, worst_year
from privacy.cadence import Cadence, Part
from privacy.chain import LedgerPaths
from privacy.check import CheckFigure, PeopleCheck, check_people
from privacy.files import read_release
from privacy.forecast import Cell, Forecast, forecasts
from privacy.forget import Forgotten, forget_person, list_beside, read_forgotten
from privacy.hierarchy import consistent
from privacy.inputs import FileSet, Fixed, HashOf, PeopleInputs, Question
from privacy.ledger import open_ledger
from privacy.ledger_store import charge_frame
from privacy.load import PART_ROWS, EngineName, LoadSettings
from privacy.measure_policies import JourneyPolicy, TrialPolicy
from privacy.mechanism import epsilon_of
from privacy.plan import plan_releases, release_keys, waiting
from privacy.policy import MEASURES, PrivacyPolicy
from privacy.publish import Job, Progress, publish
from privacy.quarantine import read_quarantine
from privacy.rawzone import DEFAULT_DAYS, require_private
from privacy.sizes import Sizes
from privacy.trial_forecast import Lift, PlannedTrials, TrialForecast, example_trials
from privacy.vault import Vault
from privacy.vectors import ReleasePlan, VectorPlan
from privacy.void import Voided, void_release

__all__ = [
    "Block", "Bound", "Cadence", "Cell", "CheckFigure", "DEFAULT_DAYS", "Experiment", "FileSet", "Fixed", "Forecast",
    "Forgotten", "HashOf", "JourneyPolicy", "LedgerPaths", "Lift", "LoadSettings", "MEASURES", "Part", "PeopleCheck",
    "PeopleInputs", "PlannedTrials", "PrivacyPolicy", "Progress", "Quarter", "Question", "Recorded",
    "ReleasePlan", "Sizes", "Subject", "TrialForecast", "TrialPolicy", "VectorPlan", "Voided", "audit",
    "check_people", "consistent", "epsilon_of", "example_trials", "fiscal_years", "forecasts", "forget_person",
    "list_beside", "plan_releases", "publish_releases", "published_hashes", "read_charges", "read_forgotten",
    "read_quarantine", "read_release", "read_spending", "release_keys", "require_private", "require_published",
    "verify_ledger", "void_release", "waiting", "worst_year",
]  # fmt: skip


def _silent(text: str, done: int, total: int) -> None:
    """Progress for callers that show none."""


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
    retention_days: int = DEFAULT_DAYS,
    engine: EngineName = "duckdb",
    part_rows: int = PART_ROWS,
    progress: Progress = _silent,
) -> tuple[Path, ...]:
    """Publishes every plan and returns the files, in the order of the plans.

    Releases that are out already are verified and returned as they are: neither read again nor charged. `now` must know
    its zone; `actor` is written into the ledger beside each charge; `progress(text, done, total)` is called between
    releases. Raises, before anything is charged: InputError (bad rows), WorkspaceError (no room, or another process is
    publishing), BudgetExceeded, PrivacyError (a grant or setting changed), LedgerError (ledger or file missing, edited
    or restored). Protocol: `privacy.publish`.
    """
    require_private(raw_dir)
    forgotten = read_forgotten(list_beside(ledger.db), secret)
    settings = LoadSettings(now, raw_dir, secret, retention_days, forgotten, part_rows, engine)
    vault = Vault.of(secret)
    job = Job(inputs, policy, question, releases_dir, raw_dir / "staging", run_id, now, vault, actor)
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
