"""One person's bound on a vector: its limits, its fixed-point integers, its part of a share.

Messages name the key of plumb.toml. DESIGN section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from contracts.errors import ConfigError
from privacy.rules import is_number

CLIPPED = "clipped:"  # prefix of a vector that holds what another one's bound took
CLIPPED_CAP = 4  # a person's clipped mass is itself capped at this many bounds
MICROS = 1_000_000  # micro-units in one metric unit; the loader counts money and events in them
MIN_UNITS, MAX_UNITS = 2**12, 2**26  # the range of a fixed-point bound, DESIGN section 3
MAX_MONEY = 2**50 / MICROS  # keeps every product and quotient exact, see privacy.bounding
MAX_COUNT = float(MAX_UNITS)  # above it one event would be less than one fixed-point unit
MONEY = ("revenue", "position_value")
MAX_CELLS_PER_PERSON = 1024


@dataclass(frozen=True, slots=True)
class Bound:
    """L2 bound C of one person's vector (metric units) and the vector's part of its measure's share.

    With `privacy.bounding = "l0_linf"` a person counts in at most `cells` cells (L0), with at most Linf = C / sqrt(L0)
    in each, so that C is the sensitivity either way.
    """

    bound: float
    share: float
    cells: int = 4


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """A bound in integers: one unit is `step` micro-units of the metric, and `units` of them fit into the bound."""

    step: int
    units: int

    @property
    def micros(self) -> int:
        """The bound in micro-units."""
        return self.step * self.units


def fixed_point(bound: float) -> FixedPoint:
    """Finest step (a power of ten, at least 1 micro-unit) at which the bound is at most 2^26 units."""
    micros = int(Fraction(Decimal(repr(float(bound)))) * MICROS)
    step = 1
    while micros // step > MAX_UNITS:
        step *= 10
    return FixedPoint(step, micros // step)


def check_bound(key: str, value: Any) -> None:
    """Raises ConfigError unless 0 < value, finite, and fit for fixed-point integers."""
    if not (is_number(value) and value > 0):
        raise ConfigError(f"{key} must be > 0; got {value}.")
    most = MAX_MONEY if any(name in key.split(".") for name in MONEY) else MAX_COUNT
    if not MIN_UNITS / MICROS <= value <= most:
        raise ConfigError(f"{key} must lie between {MIN_UNITS / MICROS:g} and {most:.3g}; got {value}.")


def check_shares(key: str, shares: Mapping[str, Any]) -> None:
    """Raises ConfigError unless every share lies in [0, 1] and together they are at most 1."""
    for name, value in shares.items():
        if not (is_number(value) and 0 <= value <= 1):
            raise ConfigError(f"{key.format(name)} must lie between 0 and 1; got {value}.")
    total = sum(Fraction(Decimal(repr(float(v)))) for v in shares.values())
    if total > 1:
        raise ConfigError(
            f"{key.format('*')} must add up to 1 at most; got {float(total):g} "
            f"({', '.join(f'{k} {v:g}' for k, v in shares.items())})."
        )


def check_bounds(key: str, bounds: Mapping[str, Bound]) -> None:
    """Raises ConfigError unless every bound fits fixed-point integers and the shares of all add up to 1 at most."""
    for name, b in bounds.items():
        check_bound(f"{key}.{name}.bound", b.bound)
        if not (isinstance(b.cells, int) and 1 <= b.cells <= MAX_CELLS_PER_PERSON):
            raise ConfigError(f"{key}.{name}.cells must be an integer from 1 to {MAX_CELLS_PER_PERSON}; got {b.cells}.")
    check_shares(f"{key}.{{}}.share", {name: b.share for name, b in bounds.items()})


def with_clipped(bounds: Mapping[str, Bound], part: float) -> dict[str, Bound]:
    """The vectors, and for each the vector of its clipped mass; those share `part` as the vectors share the rest."""
    whole = sum(b.share for b in bounds.values())
    if not (part and whole):
        return dict(bounds)
    lost = {CLIPPED + n: Bound(CLIPPED_CAP * b.bound, part * b.share / whole) for n, b in bounds.items()}
    return {**bounds, **lost}


def check_clipped(key: str, bounds: Mapping[str, Bound], part: Any) -> None:
    """Raises ConfigError unless the shares of the vectors and of their clipped mass add up to 1 at most."""
    check_shares(f"{key}.{{}}", {name: b.share for name, b in bounds.items()} | {"clipped_share": part})


def slice_nano(nano: int, part: float) -> int:
    """floor(nano x part), in exact arithmetic on the number as it was written."""
    return int(nano * Fraction(Decimal(repr(float(part)))))
