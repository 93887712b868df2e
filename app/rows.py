"""Rows of a frame by column name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd


def each(frame: pd.DataFrame) -> Iterator[Any]:
    """Rows as named tuples. Their fields are untyped: the types stand in `contracts.tables`."""
    yield from frame.itertuples(index=False)
