"""A question about one view as one SQL statement: names come from `contracts.tables`, values are bound, never spliced.

| parameter | means |
|---|---|
| from, to | days, inclusive: the row's week lies in them, or its period overlaps them |
| a text column (geo, channel, model, metric, scope, run_id, model_version, ...) | any of the values, joined by ',' |
| confidence | 0.8 or 0.9: only rows whose central interval of that level leaves out 0 |
| latest | the newest row of each key |
| as_of | the rows as they stood at that moment, in UTC (older runs come from the view's history) |
| columns | the columns to return, joined by ',' |
| limit, offset | the page |
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from contracts.columns import View
from contracts.errors import ContractError
from contracts.tables import BY_NAME

MAX_ROWS = 100_000
DEFAULT_ROWS = 1_000
MAX_VALUES = 200  # of one filter
CONFIDENCE = {"0.8": ("p10", "p90"), "0.9": ("p05", "p95")}
FORMATS = ("json", "csv", "parquet", "arrow")
RESERVED = ("from", "to", "confidence", "latest", "as_of", "columns", "limit", "offset", "format")
HISTORY = {"v_effects": "v_effects_history", "v_credit": "v_credit_history"}
_WINDOWS = (("week", "week"), ("period_start", "period_end"), ("period_start", "period_start"), ("start", "end"))
_STAMPS = ("published_at", "charged_at", "written_at", "decided_at", "started_at")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_WHOLE = re.compile(r"\d{1,12}")


class UnknownView(ContractError):
    """No view has that name."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question, already checked."""

    view: View
    source: str  # the view that is read: a history view where `as_of` asks for the past
    columns: tuple[str, ...]
    first: date | None = None
    last: date | None = None
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    confidence: str | None = None
    latest: bool = False
    as_of: datetime | None = None  # UTC, without a zone
    limit: int = DEFAULT_ROWS
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL and its bound values, without and with the page."""

    count: str
    rows: str
    values: tuple[Any, ...]
    page: tuple[int, int]  # limit, offset


def view_named(name: str) -> View:
    """The view, named with or without its 'v_'. Raises UnknownView with the names that there are."""
    found = BY_NAME.get(name) or BY_NAME.get(f"v_{name}")
    if found is None:
        raise UnknownView(f"there is no view {name[:60]!r}; the views are {', '.join(sorted(BY_NAME))}.")
    return found


def filters(view: View) -> tuple[str, ...]:
    """Text columns of a view: each is a filter of its own name."""
    return tuple(c.name for c in view.columns if c.type == "VARCHAR" and c.name not in RESERVED)


def parse(view: View, parameters: Mapping[str, str]) -> Query:
    """Query from the parameters of an address. Raises ContractError that names the parameter, the value and the fix."""
    known = (*RESERVED, *filters(view))
    for name in parameters:
        if name not in known:
            raise ContractError(f"{view.name} knows no parameter {name[:60]!r}; it knows {', '.join(known)}.")
    for name, value in parameters.items():
        if "\x00" in value:
            raise ContractError(f"parameter {name!r} holds a NUL character.")
    as_of = _moment(parameters.get("as_of"))
    confidence = parameters.get("confidence")
    levels = [level for level, ends in CONFIDENCE.items() if set(ends) <= set(view.names)]
    if confidence is not None and confidence not in levels:
        fix = f"use {' or '.join(levels)}" if levels else f"{view.name} has no intervals"
        raise ContractError(f"confidence is {confidence[:20]!r}; {fix}.")
    first, last = _day("from", parameters), _day("to", parameters)
    if (first or last) and _window(view) is None:
        raise ContractError(f"{view.name} has no column of time, so 'from' and 'to' cannot be used.")
    if as_of is not None and "as_of" not in view.names:
        raise ContractError(f"{view.name} has no column as_of; leave the parameter out.")
    return Query(
        view=view,
        source=HISTORY.get(view.name, view.name) if as_of is not None else view.name,
        columns=_columns(view, parameters.get("columns")),
        first=first,
        last=last,
        values={n: _values(n, parameters[n]) for n in filters(view) if n in parameters},
        confidence=confidence,
        latest=_flag("latest", parameters.get("latest")),
        as_of=as_of,
        limit=_number("limit", parameters.get("limit"), DEFAULT_ROWS, 1, MAX_ROWS),
        offset=_number("offset", parameters.get("offset"), 0, 0, 10**12),
    )


def statement(query: Query) -> Statement:
    """The SQL of a query: rows in the order of the view's key, so that pages fit together."""
    bound: list[Any] = []
    conditions = list(_conditions(query, bound))
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    newest = f" QUALIFY row_number() OVER (PARTITION BY {_key(query)} ORDER BY as_of DESC) = 1" if query.latest else ""
    body = f'SELECT * FROM "{query.source}"{where}{newest}'
    order = ", ".join(f'"{c}" NULLS FIRST' for c in (*query.view.key, *_ties(query.view)))
    columns = ", ".join(f'"{c}"' for c in query.columns)
    return Statement(
        count=f"SELECT count(*) FROM ({body})",
        rows=f"SELECT {columns} FROM ({body}) ORDER BY {order} LIMIT ? OFFSET ?",
        values=tuple(bound),
        page=(query.limit, query.offset),
    )


def _conditions(query: Query, bound: list[Any]) -> Iterator[str]:
    """Conditions in SQL; their values are appended to `bound` in the same order."""
    window = _window(query.view)
    if query.first is not None and window is not None:
        bound.append(query.first)
        yield f'CAST("{window[1]}" AS DATE) >= ?'
    if query.last is not None and window is not None:
        bound.append(query.last)
        yield f'CAST("{window[0]}" AS DATE) <= ?'
    for column, values in query.values.items():
        bound.extend(values)
        yield f'"{column}" IN ({", ".join("?" * len(values))})'
    if query.confidence is not None:
        low, high = CONFIDENCE[query.confidence]
        yield f'("{low}" > 0 OR "{high}" < 0)'
    if query.as_of is not None:
        bound.append(query.as_of)
        if query.source != query.view.name:  # the run that was the newest then, whole
            newest = f'SELECT run_id FROM "{query.source}" WHERE as_of <= ? ORDER BY as_of DESC, run_id LIMIT 1'
            yield f"run_id = ({newest})"
        else:
            yield "as_of <= ?"


def _window(view: View) -> tuple[str, str] | None:
    for first, last in _WINDOWS:
        if first in view.names and last in view.names:
            return first, last
    stamp = next((name for name in _STAMPS if name in view.names), None)
    return None if stamp is None else (stamp, stamp)


def _key(query: Query) -> str:
    """Key of an entity: the view's key without the run that wrote the row."""
    if "as_of" not in query.view.names:
        raise ContractError(f"{query.view.name} holds one row per key already; leave out 'latest'.")
    return ", ".join(f'"{c}"' for c in query.view.key if c != "run_id")


def _ties(view: View) -> tuple[str, ...]:
    return tuple(c for c in ("run_id", "as_of", "version") if c in view.names and c not in view.key)


def _columns(view: View, text: str | None) -> tuple[str, ...]:
    if text is None:
        return view.names
    wanted = tuple(dict.fromkeys(text.split(",")))
    for name in wanted:
        if name not in view.names:
            raise ContractError(f"{view.name} has no column {name[:60]!r}; it has {', '.join(view.names)}.")
    return wanted


def _values(name: str, text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(text.split(",")))
    if len(found) > MAX_VALUES:
        raise ContractError(f"{name} names {len(found)} values; the most is {MAX_VALUES}.")
    return found


def _day(name: str, parameters: Mapping[str, str]) -> date | None:
    text = parameters.get(name)
    if text is None:
        return None
    try:
        if not _DAY.fullmatch(text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise ContractError(f"{name} is {text[:40]!r}; write a day such as 2026-01-31.") from None


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
    except (ValueError, OverflowError):
        raise ContractError(f"as_of is {text[:40]!r}; write a moment such as 2026-01-31T12:00:00Z.") from None


def _flag(name: str, text: str | None) -> bool:
    if text is not None and text not in ("true", "false"):
        raise ContractError(f"{name} is {text[:20]!r}; write true or false.")
    return text == "true"


def _number(name: str, text: str | None, default: int, low: int, high: int) -> int:
    if text is None:
        return default
    if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
        raise ContractError(f"{name} is {text[:20]!r}; write a whole number from {low} to {high}.")
    return int(text)
