"""What a view of the warehouse is made of, and the columns that several views share.

Stamp columns stand on every row: which run and release made it, and on what evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.intervals import INTERVAL


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `type` is a DuckDB type, `unit` is in words ('' where it has none)."""

    name: str
    type: str
    unit: str
    text: str


@dataclass(frozen=True, slots=True)
class View:
    """One view: `key` names the columns that make a row unique."""

    name: str
    grain: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(c.name for c in self.columns)


def interval(unit: str, what: str) -> tuple[Column, ...]:
    """The columns of one uncertain figure: mean, sd and quantiles."""
    text = {"mean": f"expected {what}", "sd": f"standard deviation of the {what}"}
    return tuple(
        Column(n, "DOUBLE", unit, text.get(n, f"{n[1:].lstrip('0')} % quantile of the {what}")) for n in INTERVAL
    )


STAMP = (
    Column("run_id", "VARCHAR", "", "run that wrote the row"),
    Column("release_id", "VARCHAR", "", "releases read, joined by ';' ('panel' for the aggregate-only door)"),
    Column("model_version", "VARCHAR", "", "hash of the model's specification and code version"),
    Column("as_of", "TIMESTAMP", "UTC", "when the step that made the row ran"),
    Column("evidence_ids", "VARCHAR", "", "ids of the evidence used, joined by ';'"),
)


def view(
    name: str, grain: str, key: tuple[str, ...], *columns: Column | tuple[Column, ...], stamp: bool = True
) -> View:
    """A view from columns and groups of them, with the stamp before them unless `stamp` is False."""
    flat = [c for group in columns for c in (group if isinstance(group, tuple) else (group,))]
    return View(name, grain, (*(STAMP if stamp else ()), *flat), key)


CHANNEL = Column("channel", "VARCHAR", "", "channel, named as in spend")
PERIOD = (
    Column("period_start", "DATE", "", "first day of the period"),
    Column("period_end", "DATE", "", "last day of the period"),
)
GEO = Column("geo", "VARCHAR", "", "geo; NULL where not in scope")
WEEK = Column("week", "DATE", "", "first day of the week; NULL where not in scope")
SCENARIO_ID = (
    Column("scenario_id", "VARCHAR", "", "id of a scenario that a person saved; '' for one that `plumb plan` made"),
    Column("version", "INTEGER", "", "saved version, counted from 1; 0 for a scenario that `plumb plan` made"),
)
