"""People's rows after the gate, as the measures see them: integers only, in an in-memory DuckDB, never on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ibis.expr.types as ir
import numpy as np

from contracts.errors import PrivacyError

KINDS = ("impression", "click", "visit", "conversion")
TOUCH_KINDS = (0, 1, 2)
VISIT, CONVERSION = 2, 3
NO_CHANNEL = -1


@dataclass(frozen=True, slots=True)
class People:
    """Handle on the loaded tables.

    | table | columns |
    |---|---|
    | events | person, block, week (position in the block), day (days since 1970), seq (order within person), kind, |
    |        | channel (position in the declared order, -1 = none), geo (position in cohorts), micros. |
    |        | Consenting people's valid events inside the calendar |
    | presence | person, block, consenting (0/1), invalid (0/1): everybody with a well-formed event in the block |
    | assigned | person, experiment (position), arm (position): consenting people |
    | keys | person, user_key: the keyed hash behind the person number, which is used for equality only |
    """

    backend: Any  # ibis DuckDB backend
    conversion_is_touch: bool

    def table(self, name: str) -> ir.Table:
        """One of the tables above."""
        found: ir.Table = self.backend.table(name)
        return found

    def keep(self, name: str, expression: ir.Table) -> ir.Table:
        """Evaluates an expression once, into memory."""
        # not `create_table`: its overwriting breaks on DuckDB 2.0
        self.backend.raw_sql(f"CREATE OR REPLACE TABLE {name} AS {self.backend.compile(expression)}")
        return self.table(name)

    def drop(self, name: str) -> None:
        """Forgets a kept table."""
        self.backend.raw_sql(f"DROP TABLE IF EXISTS {name}")

    def vector(self, table: ir.Table, cells: int) -> np.ndarray:
        """Runs a (cell, x) expression: int64 totals (cells,), zero where nobody contributed."""
        found = self.backend.to_pyarrow(table)
        out = np.zeros(cells, dtype=np.int64)
        index = found["cell"].to_numpy()
        if len(index) and (index.min() < 0 or index.max() >= cells):
            raise PrivacyError("a measure made a cell that is not among its public keys; nothing was released.")
        out[index] = found["x"].to_numpy()
        return out
