"""Weeks and fiscal quarters. A week is named by its first day; a quarter is the weeks whose first day lies in it.

| on paper | here | unit |
|---|---|---|
| t | week | date of the week's first day |
| b | block | fiscal quarter, the unit in which privacy is accounted |
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from contracts.errors import ContractError

LEAST_WEEKS = 12  # of a quarter: 90 days hold 12 or 13 first days of weeks, 92 days 13 or 14
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def week_of(day: date, week_start: str = "monday") -> date:
    """First day of the week that holds `day`. Raises ContractError for an unknown weekday name."""
    if week_start not in WEEKDAYS:
        raise ContractError(f"week_start must be one of {', '.join(WEEKDAYS)}; got {week_start!r}.")
    return day - timedelta(days=(day.weekday() - WEEKDAYS.index(week_start)) % 7)


def weeks_between(first: date, last: date) -> tuple[date, ...]:
    """All week starts from `first` to `last`, both included; both must fall on the same weekday."""
    if (last - first).days % 7:
        raise ContractError(f"weeks must start on the same weekday; got {first} and {last}.")
    return tuple(first + timedelta(weeks=i) for i in range((last - first).days // 7 + 1))


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """One fiscal quarter: the privacy block. `weeks` are those of the calendar whose first day lies in it."""

    start: date
    end: date  # last day, inclusive
    weeks: tuple[date, ...]
    closed: bool = True  # every week that the calendar will give it is over

    @property
    def full_weeks(self) -> tuple[date, ...]:
        """All weeks whose first day lies in the quarter, also those that `weeks` does not hold. 12 to 14 of them."""
        first = self.start + timedelta(days=(self.weeks[0] - self.start).days % 7)
        return tuple(first + timedelta(weeks=i) for i in range((self.end - first).days // 7 + 1))

    @property
    def id(self) -> str:
        """Stable name, used as the ledger's key: the first day of the fiscal quarter."""
        return f"quarter-{self.start.isoformat()}"

    @property
    def first_day(self) -> date:
        """First day of the first week."""
        return self.weeks[0]

    @property
    def last_day(self) -> date:
        """Last day of the last week; it may lie in the next quarter."""
        return self.weeks[-1] + timedelta(days=6)


def quarter_start(day: date, fiscal_year_start: int = 1) -> date:
    """First day of the fiscal quarter that holds `day`; `fiscal_year_start` is a month, 1 to 12."""
    if not 1 <= fiscal_year_start <= 12:
        raise ContractError(f"fiscal_year_start must be a month from 1 to 12; got {fiscal_year_start}.")
    back = (day.month - fiscal_year_start) % 3
    month = day.month - back
    return date(day.year - (month < 1), (month - 1) % 12 + 1, 1)


def next_quarter(start: date) -> date:
    """First day of the quarter after the one that starts on `start`."""
    return date(start.year + (start.month > 9), (start.month + 2) % 12 + 1, 1)


def blocks(weeks: tuple[date, ...], fiscal_year_start: int = 1) -> tuple[Block, ...]:
    """Splits a calendar of weeks into fiscal quarters, oldest first."""
    by_start: dict[date, list[date]] = {}
    for week in sorted(weeks):
        by_start.setdefault(quarter_start(week, fiscal_year_start), []).append(week)
    return tuple(Block(s, next_quarter(s) - timedelta(days=1), tuple(w)) for s, w in sorted(by_start.items()))
