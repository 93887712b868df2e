"""Rules that are linear in the released channel × position × length counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from attribution.tables import PositionTable
from contracts.checks import share
from contracts.errors import ContractError


@dataclass(frozen=True, slots=True)
class PositionWeights:
    """Relative weights of the first touch, of all touches between (shared equally) and of the last touch.

    A journey of two touches splits by first : last (equally where both are 0), a single touch takes all.
    """

    first: float = 0.4
    middle: float = 0.2
    last: float = 0.4

    def __post_init__(self) -> None:
        share(first=self.first, middle=self.middle, last=self.last)
        if self.first + self.middle + self.last <= 0:
            raise ContractError("position_based has only weights of 0; give first, middle or last a weight above 0.")


def position_weights(table: PositionTable, weights: PositionWeights) -> np.ndarray:
    """Weight (R,) of each row; the weights of one journey sum to 1."""
    first, middle, last = weights.first, weights.middle, weights.last
    pair = (first, last) if first + last > 0 else (0.5, 0.5)
    at_start, at_end = table.position == 1, table.position == table.length
    inner = np.maximum(table.length - 2, 1)
    whole = first + middle + last
    # without a weight at either end, or none between, the rest is taken relative to what there is
    long = np.where(at_start, first, np.where(at_end, last, middle / inner)) / whole
    two = np.where(at_start, pair[0], pair[1]) / sum(pair)
    return np.where(table.length > 2, long, np.where(table.length == 2, two, 1.0))


RULES: dict[str, Callable[[PositionTable, PositionWeights], np.ndarray]] = {
    "last_touch": lambda t, w: (t.position == t.length).astype(float),
    "first_touch": lambda t, w: (t.position == 1).astype(float),
    "linear": lambda t, w: 1 / np.maximum(t.length, 1),
    "position_based": position_weights,
}


def rule_matrix(rule: str, table: PositionTable, channels: int, weights: PositionWeights) -> np.ndarray:
    """Matrix (K, R) that maps the table's cells to credit per channel."""
    weight = RULES[rule](table, weights)
    out = np.zeros((channels, len(table.channel)))
    rows = np.flatnonzero(table.channel >= 0)
    out[table.channel[rows], rows] = weight[rows]
    return out
