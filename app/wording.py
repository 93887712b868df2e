"""How figures are written: two or three significant digits, a unit on every one, intervals in words.

Estimates carry intervals that are wide against their third digit, so more digits would be false precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

MISSING = "–"
INTERVAL_NAME = "90 % interval"


@dataclass(frozen=True, slots=True)
class Units:
    """Names of what is counted and of the money, as they stand on every axis."""

    kpi: str  # 'conversions', 'revenue' or the panel's KPI
    currency: str
    period: str  # 'week', 'day', or 'period' where the spacing is neither

    @property
    def kpi_is_money(self) -> bool:
        """True when the KPI itself is counted in currency."""
        return self.kpi == "revenue"

    @property
    def kpi_title(self) -> str:
        """The KPI with its unit, for an axis title: 'conversions' or 'revenue (EUR)'."""
        return f"revenue ({self.currency})" if self.kpi_is_money else self.kpi

    def kpi_figure(self, value: float | None) -> str:
        """A KPI amount with its unit."""
        if self.kpi_is_money:
            return self.money(value)
        return f"{figure(value)} {self.kpi}" if _known(value) else MISSING

    def money(self, value: float | None) -> str:
        """An amount of money with its currency."""
        if value is None or not _known(value):
            return MISSING
        sign = "−" if value < 0 else ""
        return f"{sign}{self.currency} {figure(abs(value))}".strip()


def figure(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits with thousands separators: 12,300; 1.23 M; 0.0456; −7.1."""
    if value is None or not _known(value):
        return MISSING
    if value == 0:
        return "0"
    sign, size = ("−" if value < 0 else ""), abs(value)
    suffix = ""
    rounded = _significant(size, digits)
    for limit, name in ((1e9, " bn"), (1e6, " M")):
        if rounded >= limit:
            rounded, suffix = _significant(size / limit, digits), name
            break
    decimals = max(0, digits - 1 - math.floor(math.log10(rounded)))
    text = f"{rounded:,.{decimals}f}"
    return f"{sign}{text.rstrip('0').rstrip('.') if '.' in text else text}{suffix}"


def ratio(value: float | None) -> str:
    """Two significant digits, for factors and returns."""
    return figure(value, 2)


def percent(share: float | None, signed: bool = False) -> str:
    """A share as a percentage with two significant digits; `signed` puts a plus before a rise."""
    if share is None or not _known(share):
        return MISSING
    text = figure(100 * share, 2)
    return f"{'+' if signed and share > 0 else ''}{text} %"


def between(low: float | None, high: float | None, write: Callable[[float | None], str] = figure) -> str:
    """'low to high'; a dash when either end is unknown."""
    if low is None or high is None or not (_known(low) and _known(high)):
        return MISSING
    return f"{write(low)} to {write(high)}"


def with_interval(
    mean: float | None, low: float | None, high: float | None, write: Callable[[float | None], str] = figure
) -> str:
    """'mean (low to high)', the cell of a table."""
    return MISSING if mean is None or not _known(mean) else f"{write(mean)} ({between(low, high, write)})"


def listed(names: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    items = list(names)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def title(name: str) -> str:
    """A stored name for display: 'last_touch' becomes 'last touch'."""
    return name.replace("_", " ")


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _significant(value: float, digits: int) -> float:
    return round(value, digits - 1 - math.floor(math.log10(value)))
