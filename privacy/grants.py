"""What a block was granted, and whether a charge fits it: the grant, its split and its calendar never change.

The reserve pays corrections (`privacy.corrections`). They may come when plumb.toml splits later quarters otherwise, so
for them the block's own split holds; every other charge needs the split that the block was opened with.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from contracts.errors import BudgetExceeded, LedgerError, PrivacyError
from contracts.release import NANO
from privacy.chain import canonical
from privacy.corrections import RESERVE
from privacy.ledger_store import SPENDERS
from privacy.vectors import ReleasePlan


@dataclass(frozen=True, slots=True)
class Grant:
    """Cap of one block and of each measure in it, nano-rho, and the calendar that says which day is in which block.

    The parts include the reserve. `calendar` holds what decides over the edges of a block (time zone, week start).
    """

    cap_nano: int
    parts: Mapping[str, int]
    calendar: Mapping[str, str]


def same_grant(db: sqlite3.Connection, block: str, grant: Grant, payer: str) -> bool:
    """True when the block exists with this grant, False when it does not exist; else raises PrivacyError.

    What the reserve pays may come when plumb.toml splits later quarters otherwise: the block's own split holds.
    """
    _same_calendar(db, block, grant)
    row = db.execute("SELECT cap_nano FROM block WHERE id = ?", (block,)).fetchone()
    if row is None:
        return False
    if int(row[0]) != grant.cap_nano:
        raise PrivacyError(
            f"{block} was opened with privacy.rho_per_user_quarter = {row[0] / NANO:g} and plumb.toml now says "
            f"{grant.cap_nano / NANO:g}; a grant cannot change after its first release. Put it back."
        )
    if payer == RESERVE:
        return True
    parts = dict(db.execute("SELECT measure, cap_nano FROM allotment WHERE block_id = ?", (block,)).fetchall())
    for name in sorted({*parts, *grant.parts}):
        before, now = parts.get(name, 0), grant.parts.get(name, 0)
        if before != now:
            raise PrivacyError(
                f"{block} was opened with a {name} grant of {before / NANO:g} rho and plumb.toml now gives "
                f"{now / NANO:g}; privacy.shares cannot change after the first release of a quarter. Put it back."
            )
    return True


def _same_calendar(db: sqlite3.Connection, block: str, grant: Grant) -> None:
    """Raises PrivacyError when this block could hold a day that another block was charged for."""
    for other, calendar in db.execute("SELECT id, calendar FROM block"):
        if quarter_phase(other) != quarter_phase(block):
            raise PrivacyError(
                f"{block} overlaps {other}, about which releases are out already; "
                "project.fiscal_year_start of plumb.toml was another one then. Put it back."
            )
        if str(calendar) != canonical(dict(grant.calendar)):
            raise PrivacyError(
                f"{other} was released under the calendar {calendar} and plumb.toml now says "
                f"{canonical(dict(grant.calendar))}; a day at the edge of a quarter would be counted in two. "
                "Put it back."
            )


def share_cap(db: sqlite3.Connection, block: str, share: str, grant: Grant) -> int:
    """Grant of one share: the block's own, or that of a block yet to be opened."""
    row = db.execute("SELECT cap_nano FROM allotment WHERE block_id = ? AND measure = ?", (block, share)).fetchone()
    return int(row[0]) if row else grant.parts.get(share, 0)


def exceeded(db: sqlite3.Connection, plan: ReleasePlan, block: str, nano: int, spent: int, cap: int) -> BudgetExceeded:
    """The refusal of a charge that does not fit, with who spent the share."""
    others = [str(row[0]) for row in db.execute(SPENDERS, (block, plan.payer))]
    if plan.correction:
        return BudgetExceeded(
            f"release {plan.release_id}, correction {plan.correction} of {plan.measure}, costs rho {nano / NANO:g} "
            f"in {block}, where the reserve has {(cap - spent) / NANO:g} of {cap / NANO:g} left"
            f"{f' (spent by {", ".join(others)})' if others else ''}. Nothing else may pay it; take it out of "
            "privacy.corrections, or lower its share."
        )
    reason = (
        f" It was spent by {', '.join(others)}: the declared question (geos, weeks, channels, "
        "experiments, bounds) has changed since. Put it back to read that release; nothing new can be released."
        if others
        else ""
    )
    return BudgetExceeded(
        f"release {plan.release_id} costs rho {nano / NANO:g} in {block}, where {plan.payer} has "
        f"{(cap - spent) / NANO:g} of {cap / NANO:g} left.{reason}"
    )


def quarter_phase(block: str) -> tuple[int, int]:
    """Which of the three monthly grids a block's quarter lies on, and its first day of the month.

    Blocks on one grid are equal or apart; blocks on two grids can overlap. Raises LedgerError for an unknown name.
    """
    try:
        start = date.fromisoformat(block.removeprefix("quarter-"))
    except ValueError:
        raise LedgerError(f"{block!r} is not the name of a quarter; expected quarter-YYYY-MM-DD.") from None
    return (start.month - 1) % 3, start.day
