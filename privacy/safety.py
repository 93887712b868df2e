"""Proof at plan time that no integer of a measure can leave its range, whatever the rows hold.

Two ranges matter: int64 for sums and products, and 2^53 for numbers that pass through a double (a root, and `//`, which
both engines compute on doubles, see `privacy.bounding`). Each intermediate below is evaluated at its worst case in
Python integers, from the plan alone; the tests compare them with hostile rows.

| in the expression | worst case |
|---|---|
| x, one row or one cell | C (or Linf) |
| Σ x of a person and cell, and of a cell over persons | C · rows |
| x² and Σ x² of a person | C², C² · cells, at most 1,024 cells |
| n = ceil(sqrt(Σ x²)) + 1 | its root and 2 |
| x C, over n | C² |
| counts: the norm in steps of 1/f, f <= 1000, and k one | C² of the largest count |
| clipped mass: Σ of events cut at 5 C; 4 C times the step | 5 C · rows; 4 C · step |
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from contracts.errors import ConfigError
from privacy.bounds import CLIPPED_CAP, MAX_CELLS_PER_PERSON, MAX_UNITS

MAX_ROWS = 2**34  # 17 thousand million rows, and as many persons, in one release
INT64, DOUBLE = 2**63 - 1, 2**53


@dataclass(frozen=True, slots=True)
class Intermediate:
    """The largest value that a step can take, and the largest that it may take."""

    step: str
    most: int
    limit: int

    @property
    def fits(self) -> bool:
        """True when no row can break it."""
        return 0 <= self.most <= self.limit


def intermediates(bound_units: int, fixed_step: int, per_person: int, l0: int = 0) -> tuple[Intermediate, ...]:
    """Every intermediate of `privacy.bounding` for one vector.

    `bound_units` is C, `fixed_step` the micro-units of a unit, `per_person` the most cells of one person by the keys.
    """
    c = bound_units
    cell = math.isqrt(c * c // l0) if l0 else c
    cells = min(per_person, l0 or MAX_CELLS_PER_PERSON)
    squares = max(c, MAX_UNITS) ** 2 * min(per_person, MAX_CELLS_PER_PERSON)  # counts take their norm up to 2^26
    return (
        Intermediate("one person's cell, summed over rows", cell * MAX_ROWS, INT64),
        Intermediate("one cell, summed over persons", cell * MAX_ROWS, INT64),
        Intermediate("the square of a cell", max(c, MAX_UNITS) ** 2, DOUBLE),
        Intermediate("one person's sum of squares", squares, INT64),
        Intermediate("one person's sum of kept squares", cell * cell * cells if l0 else c * c, c * c),
        Intermediate("the norm", math.isqrt(squares) + 2, DOUBLE),
        Intermediate("cell times bound", c * c, DOUBLE),
        Intermediate("clipped mass, summed over rows", (CLIPPED_CAP + 1) * c * MAX_ROWS, INT64),
        Intermediate("clipped mass in micro-units", CLIPPED_CAP * c * fixed_step, DOUBLE),
    )


def check_integers(name: str, bound_units: int, fixed_step: int, per_person: int, l0: int = 0) -> None:
    """Raises ConfigError, naming the vector and the step, when an integer could leave its range."""
    if bound_units < 1 or per_person < 1 or fixed_step < 1:
        raise ConfigError(f"vector {name!r} has no cell or no room in it; raise its bound.")
    for found in intermediates(bound_units, fixed_step, per_person, l0):
        if not found.fits:
            raise ConfigError(
                f"vector {name!r} is not safe in 64-bit integers: {found.step} could reach {found.most:,}, and may be "
                f"{found.limit:,} at most. Lower its bound."
            )
