"""What a load asks of each person of a partition, as array arithmetic: persons are numbered from 0, so that the answer
has a place for each, and a place is written by that person's rows alone.

Integers and truth values only; the result does not depend on the order of rows. For each statement there is a line of
SQL that says the same (`tests/privacy/test_privacy_tally.py` compares them).
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

NEVER = np.iinfo(np.int64).min  # a time before every other
OUTSIDE = -1  # instead of a block
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))  # odd, so that each is one to one


def repeated(values: np.ndarray) -> np.ndarray:
    """The values that occur more than once."""
    ordered = np.sort(values)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


@dataclass(frozen=True, slots=True)
class Calendar:
    """Which block and week a day lies in: arrays from the day `first` on, -1 for days between blocks."""

    first: int
    block: np.ndarray  # int16 (days,)
    week: np.ndarray  # int16 (days,)
    blocks: int

    @staticmethod
    def of(con: duckdb.DuckDBPyConnection) -> Calendar:
        """From the table `days` of a load."""
        found = con.execute("SELECT day, block, week FROM days").fetchnumpy()
        day = np.asarray(found["day"], np.int64)
        if not len(day):
            return Calendar(0, np.full(1, OUTSIDE, np.int16), np.full(1, OUTSIDE, np.int16), 0)
        first, size = int(day.min()), int(day.max() - day.min()) + 1
        block, week = (np.full(size, OUTSIDE, np.int16) for _ in range(2))
        block[day - first], week[day - first] = np.asarray(found["block"]), np.asarray(found["week"])
        return Calendar(first, block, week, int(block.max()) + 1)

    def locate(self, day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Block and week of each day, -1 outside the calendar."""
        place = day.astype(np.int64) - self.first
        inside = (place >= 0) & (place < len(self.block))
        place[~inside] = 0
        return np.where(inside, self.block[place], OUTSIDE), np.where(inside, self.week[place], OUTSIDE)


def column(table: pa.Table, name: str, absent: object = None) -> np.ndarray:
    """A column as an array, with `absent` where it is NULL."""
    values = table[name]
    return np.asarray((values if absent is None or not values.null_count else values.fill_null(absent)).to_numpy())


@dataclass(frozen=True, slots=True)
class Rows:
    """Well-formed events of a partition, each once; arrays of one length."""

    person: np.ndarray
    instant: np.ndarray
    day: np.ndarray
    kind: np.ndarray
    channel: np.ndarray  # -1: none
    geo: np.ndarray
    micros: np.ndarray
    agrees: np.ndarray  # true: says yes; a no is told by `refused` of `consent`
    counts: np.ndarray
    block: np.ndarray
    week: np.ndarray

    @staticmethod
    def of(table: pa.Table, calendar: Calendar, elsewhere: int) -> Rows:
        """From the columns of the scan; an undeclared geo becomes `elsewhere`."""
        day = column(table, "day")
        return Rows(
            column(table, "person"), column(table, "instant"), day, column(table, "kind"),
            column(table, "channel", -1), column(table, "geo", elsewhere), column(table, "micros", 0),
            column(table, "agrees", False), column(table, "counts"), *calendar.locate(day),
        )  # fmt: skip

    def tied(self) -> np.ndarray:
        """The persons who may have two events at one time, by a 64-bit hash of person and time."""
        mixed = self.instant.astype(np.uint64) * _MIX[0] ^ self.person.astype(np.uint64) * _MIX[1]
        twice = repeated(mixed)
        return np.unique(self.person[np.isin(mixed, twice)]) if len(twice) else np.zeros(0, self.person.dtype)


def latest(person: np.ndarray, at: np.ndarray, people: int) -> np.ndarray:
    """The latest of each person's times, or `NEVER`; int64 (people,)."""
    out = np.full(people, NEVER)
    np.maximum.at(out, person, at)
    return out


def consent(
    rows: Rows, refused: np.ndarray, group: tuple[np.ndarray, np.ndarray, np.ndarray], assumed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(known, agrees) of each person, both bool (people,).

    `refused` is the time of each person's latest refusal or `NEVER`, (people,); `group` holds the person, whether they
    agree and whether they say so, of each row of the assignments. The latest statement on an event decides and a
    refusal wins a tie; else the assignments do, where one refusal is enough; else what the workspace assumes.
    """
    people = len(refused)
    granted = latest(rows.person[rows.agrees], rows.instant[rows.agrees], people)
    known, once = np.zeros(people, bool), np.full(people, assumed)
    known[rows.person] = True
    person, agrees, says = group
    known[person] = True
    once[person[says & agrees]] = True
    once[person[says & ~agrees]] = False
    stated = (granted > NEVER) | (refused > NEVER)
    return known, known & np.where(stated, granted > refused, once)


def presence(rows: Rows, agrees: np.ndarray, blocks: int) -> dict[str, np.ndarray]:
    """Columns of `presence`: everybody with an event in a block, whether they consent, whether one did not count."""
    inside = rows.block >= 0
    place = rows.person[inside].astype(np.int64) * blocks + rows.block[inside]
    there, invalid = (np.zeros(len(agrees) * blocks, bool) for _ in range(2))
    there[place] = True
    invalid[place[~rows.counts[inside]]] = True
    found = np.flatnonzero(there)
    person = found // max(blocks, 1)
    return {
        "person": person,
        "block": found % max(blocks, 1),
        "consenting": agrees[person],
        "invalid": invalid[found],
    }


def homes(events: dict[str, np.ndarray], people: int, blocks: int) -> dict[str, np.ndarray]:
    """Columns of `homes`: the geo of each person's first event in a block, and the bits of the weeks with events.

    `seq` differs between any two events of one person.
    """
    place = events["person"].astype(np.int64) * blocks + events["block"]
    first = np.full(people * blocks, np.iinfo(np.int64).max)
    np.minimum.at(first, place, events["seq"])
    opening = events["seq"] == first[place]
    geo = np.zeros(people * blocks, np.int16)
    geo[place[opening]] = events["geo"][opening]
    weeks = np.zeros(people * blocks, np.int64)
    np.bitwise_or.at(weeks, place, np.int64(1) << events["week"].astype(np.int64))
    found = np.flatnonzero(weeks)
    return {
        "person": found // max(blocks, 1),
        "block": found % max(blocks, 1),
        "geo": geo[found],
        "weeks": weeks[found],
    }
