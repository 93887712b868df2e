"""People's rows after the gate, as the measures see them: integers only, never readable on disk.

Measures are Ibis expressions over unbound tables with the schemas below, so that they do not depend on an engine:
DuckDB in memory (here) or Spark (`privacy.spark`) compile and run the same expression and return the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import duckdb
import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from contracts.errors import PrivacyError
from privacy.spool import Spool

KINDS = ("impression", "click", "visit", "conversion")
TOUCH_KINDS = (0, 1, 2)
IMPRESSION, CLICK, VISIT, CONVERSION = range(4)
NO_CHANNEL = -1

# events: consenting people's valid events inside the calendar. block, week (within the block), channel, geo (among the
#   cohorts), experiment and arm are positions in the question; channel is -1 where there is none; day counts from 1970;
#   seq is the order within the person, ties in time by keyed hash; micros is revenue in micro-units.
# homes: the cohort of each person of `events` in a block: the geo of their first event in it; bit w of `weeks` says
# that   they were active in week w.
# presence: everybody with a well-formed event in the block, consenting or not; consenting and invalid are 0 or 1.
# assigned: consenting people of an experiment; stratum is a position in its design, entered a day, exposed 0 or 1,
#   covariate is in micro-units. What its design does not declare is 0.
# journey_*, credit_touches: made by privacy.journeys and privacy.credit from the events of one block.
# keys: the keyed hash behind the person number, which serves for equality only.
SCHEMAS: dict[str, dict[str, str]] = {
    "events": dict.fromkeys(
        ("person", "block", "week", "day", "kind", "channel", "geo", "micros", "seq"), "int64"
    ),
    "homes": dict.fromkeys(("person", "block", "geo", "weeks"), "int64"),
    "presence": dict.fromkeys(("person", "block", "consenting", "invalid"), "int64"),
    "assigned": dict.fromkeys(
        ("person", "experiment", "arm", "stratum", "entered", "exposed", "covariate"), "int64"
    ),
    "keys": {"person": "int64", "user_key": "string"},
    "journey_touches": dict.fromkeys(
        ("person", "journey", "channel", "position", "length", "converted", "micros", "following"), "int64"
    ),
    "journey_bare": dict.fromkeys(("person", "journey", "micros"), "int64"),
    "credit_touches": dict.fromkeys(
        ("person", "journey", "micros", "channel", "position", "length", "age"), "int64"
    ),
}  # fmt: skip


def loaded(name: str) -> ir.Table:
    """One of the tables of `SCHEMAS`, unbound."""
    return ibis.table(SCHEMAS[name], name=name)


@dataclass(frozen=True)
class Statement:
    """An expression in the dialect of each engine. It depends on a measure's plan alone, never on the data."""

    expression: ir.Table

    @cached_property
    def duckdb(self) -> str:
        """SQL of DuckDB."""
        return str(ibis.to_sql(self.expression, dialect="duckdb"))

    @cached_property
    def spark(self) -> str:
        """SQL of Spark."""
        return str(ibis.to_sql(self.expression, dialect="pyspark"))


def sql(expression: ir.Table) -> Statement:
    """The statement of an expression."""
    return Statement(expression)


class Engine(Protocol):
    """What runs the statements over one partition after the other."""

    def show(self, tables: Mapping[str, pa.Table]) -> None:
        """Puts the tables of a partition in the place of those before it, with the schemas of `SCHEMAS`."""

    def keep(self, name: str, statement: Statement) -> None:
        """Evaluates a statement once, into memory, under a name in `SCHEMAS`."""

    def drop(self, name: str) -> None:
        """Forgets a kept table."""

    def rows(self, statement: Statement) -> Mapping[str, np.ndarray]:
        """The columns of a result."""


@dataclass(frozen=True, slots=True)
class DuckEngine:
    """DuckDB in the memory of this process."""

    con: duckdb.DuckDBPyConnection

    def show(self, tables: Mapping[str, pa.Table]) -> None:
        """See `Engine`."""
        for name, table in tables.items():
            self.con.register(f"t_{name}", table)
            columns = ", ".join(f"{c}::{_DUCK[kind]} AS {c}" for c, kind in SCHEMAS[name].items())
            self.con.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT {columns} FROM t_{name}")

    def keep(self, name: str, statement: Statement) -> None:
        """See `Engine`."""
        self.con.execute(f"CREATE OR REPLACE TABLE {name} AS {statement.duckdb}")

    def drop(self, name: str) -> None:
        """See `Engine`."""
        self.con.execute(f"DROP TABLE IF EXISTS {name}")

    def rows(self, statement: Statement) -> Mapping[str, np.ndarray]:
        """See `Engine`."""
        found = self.con.execute(statement.duckdb).fetchnumpy()
        return {name: np.asarray(column) for name, column in found.items()}


@dataclass(frozen=True, slots=True)
class People:
    """The loaded tables of `SCHEMAS`, those of one partition."""

    engine: Engine
    conversion_is_touch: bool

    def keep(self, name: str, statement: Statement) -> None:
        """Evaluates a statement once, into memory, under a name in `SCHEMAS`."""
        self.engine.keep(name, statement)

    def drop(self, name: str) -> None:
        """Forgets a kept table."""
        self.engine.drop(name)

    def vector(self, statement: Statement, cells: int) -> np.ndarray:
        """Runs a (cell, x) statement: int64 totals (cells,), zero where nobody contributed."""
        found = self.engine.rows(statement)
        index, x = np.asarray(found["cell"]), np.asarray(found["x"])
        if index.dtype.kind != "i" or x.dtype.kind != "i":
            raise PrivacyError("a measure left the integers; nothing was released.")
        if len(index) and (index.min() < 0 or index.max() >= cells):
            raise PrivacyError("a measure made a cell that is not among its public keys; nothing was released.")
        out = np.zeros(cells, dtype=np.int64)
        out[index] = x
        return out


_DUCK = {"int64": "BIGINT", "string": "VARCHAR"}
LOADED = ("events", "homes", "presence", "assigned")


@dataclass(frozen=True, slots=True)
class Crowd:
    """All people of a load, partition by partition. Every person is in one of them."""

    con: duckdb.DuckDBPyConnection
    engine: Engine
    spool: Spool
    parts: int
    conversion_is_touch: bool
    identity: str = "none"  # version of the identity map behind the ids
    keyed: bool = True  # is there a table `keys`?

    def each(self) -> Iterator[People]:
        """Hands out one partition at a time; the one before it is gone then."""
        for part in range(self.parts):
            if self.parts > 1:  # else the engine has shown the only partition since it was settled
                self.show(part)
            yield People(self.engine, self.conversion_is_touch)

    def show(self, part: int) -> None:
        """Puts a partition before the engine."""
        self.engine.show({name: self._kept(name, part) for name in (*LOADED, *(["keys"] if self.keyed else []))})

    def _kept(self, name: str, part: int) -> pa.Table:
        table = self.spool.read(f"t_{name} {part}")
        if table is None:
            raise PrivacyError(f"partition {part} was not settled; nothing was released.")
        return table
