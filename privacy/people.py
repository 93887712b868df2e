"""People's rows after the gate, as the measures see them: integers only, in an in-memory DuckDB, never on disk.

Measures are Ibis expressions over unbound tables with the schemas below, so that they do not depend on an engine; this
module compiles and runs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import ibis
import ibis.expr.types as ir
import numpy as np

from contracts.errors import PrivacyError
from privacy.spool import Spool

KINDS = ("impression", "click", "visit", "conversion")
TOUCH_KINDS = (0, 1, 2)
IMPRESSION, CLICK, VISIT, CONVERSION = range(4)
NO_CHANNEL = -1

# events: consenting people's valid events inside the calendar. block, week (within the block), channel, geo (among the
#   cohorts), experiment and arm are positions in the question; channel is -1 where there is none; day counts from 1970;
#   seq is the order within the person, ties in time by keyed hash; micros is revenue in micro-units.
# presence: everybody with a well-formed event in the block, consenting or not; consenting and invalid are 0 or 1.
# assigned: consenting people of an experiment.
# journey_*, credit_touches: made by privacy.journeys and privacy.credit from the events of one block.
# keys: the keyed hash behind the person number, which serves for equality only.
SCHEMAS: dict[str, dict[str, str]] = {
    "events": dict.fromkeys(
        ("person", "block", "week", "day", "kind", "channel", "geo", "micros", "seq"), "int64"
    ),
    "presence": dict.fromkeys(("person", "block", "consenting", "invalid"), "int64"),
    "assigned": dict.fromkeys(("person", "experiment", "arm"), "int64"),
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


def sql(expression: ir.Table) -> str:
    """The expression in DuckDB's dialect. A measure's statement depends on its plan alone, never on the data."""
    return str(ibis.to_sql(expression, dialect="duckdb"))


@dataclass(frozen=True, slots=True)
class People:
    """Handle on the loaded tables of `SCHEMAS`, those of one partition."""

    con: duckdb.DuckDBPyConnection
    conversion_is_touch: bool

    def keep(self, name: str, statement: str) -> None:
        """Evaluates a statement once, into memory, under a name in `SCHEMAS`."""
        self.con.execute(f"CREATE OR REPLACE TABLE {name} AS {statement}")

    def drop(self, name: str) -> None:
        """Forgets a kept table."""
        self.con.execute(f"DROP TABLE IF EXISTS {name}")

    def vector(self, statement: str, cells: int) -> np.ndarray:
        """Runs a (cell, x) statement: int64 totals (cells,), zero where nobody contributed."""
        found = self.con.execute(statement).fetchnumpy()
        index, x = np.asarray(found["cell"]), np.asarray(found["x"])
        if index.dtype.kind != "i" or x.dtype.kind != "i":
            raise PrivacyError("a measure left the integers; nothing was released.")
        if len(index) and (index.min() < 0 or index.max() >= cells):
            raise PrivacyError("a measure made a cell that is not among its public keys; nothing was released.")
        out = np.zeros(cells, dtype=np.int64)
        out[index] = x
        return out


LOADED = ("events", "presence", "assigned", "keys")


@dataclass(frozen=True, slots=True)
class Crowd:
    """All people of a load, partition by partition. Every person is in one of them."""

    con: duckdb.DuckDBPyConnection
    spool: Spool
    parts: int
    conversion_is_touch: bool
    identity: str = "none"  # version of the identity map behind the ids

    def each(self) -> Iterator[People]:
        """Hands out one partition at a time; the one before it is gone then."""
        if self.parts == 1:  # the engine holds its tables since they were settled
            yield People(self.con, self.conversion_is_touch)
            return
        for part in range(self.parts):
            for name in LOADED:
                self.con.register(f"t_{name}", self.spool.read(f"t_{name} {part}"))
            show(self.con)
            yield People(self.con, self.conversion_is_touch)
            for name in LOADED:
                self.con.unregister(f"t_{name}")


def show(con: duckdb.DuckDBPyConnection) -> None:
    """Views with the schemas that the measures know, over the narrower columns (`t_...`) in which rows are kept."""
    for name in LOADED:
        columns = ", ".join(f"{c}::{_DUCK[kind]} AS {c}" for c, kind in SCHEMAS[name].items())
        con.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT {columns} FROM t_{name}")


_DUCK = {"int64": "BIGINT", "string": "VARCHAR"}
