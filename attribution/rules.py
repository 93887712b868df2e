"""Rules that are linear in the released channel × position × length counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from attribution.tables import PositionTable

RULES: dict[str, Callable[[PositionTable], np.ndarray]] = {
    "last_touch": lambda t: (t.position == t.length).astype(float),
    "first_touch": lambda t: (t.position == 1).astype(float),
    "linear": lambda t: 1 / np.maximum(t.length, 1),
}


def rule_matrix(rule: str, table: PositionTable, channels: int) -> np.ndarray:
    """Matrix (K, R) that maps the table's cells to credit per channel."""
    weight = RULES[rule](table)
    out = np.zeros((channels, len(table.channel)))
    rows = np.flatnonzero(table.channel >= 0)
    out[table.channel[rows], rows] = weight[rows]
    return out
