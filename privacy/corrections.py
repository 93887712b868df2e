"""A quarter looked at again, paid from its reserve: late rows, mended files, or a measure that it was opened without.

A correction is declared, never triggered by data: its position in plumb.toml enters the question and so the release's
id. It is one batch over the whole quarter, bounded to the same C, with noise and a charge of its own; zCDP adds both
up, and the reserve's cap keeps the sum within the grant. What was out before stays out. Readers take the correction
alone: the first figures told of fewer rows, and an average of both would tell of neither (docs/decisions/0170).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from contracts.calendar import Block
from contracts.errors import ConfigError
from privacy.rules import is_number

RESERVE = "reserve"  # the share that pays
CORRECTABLE = ("kpi", "journeys", "diagnostics", "media", "credit", "levels")


@dataclass(frozen=True, slots=True)
class Correction:
    """One measure of one quarter, to be released again. Raises ConfigError naming the key.

    `quarter` is the first day of the fiscal quarter; `share` is the part of its reserve that is paid.
    """

    quarter: date
    measure: str
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.measure not in CORRECTABLE:
            raise ConfigError(
                f"privacy.corrections: measure must be one of {', '.join(CORRECTABLE)}; got {self.measure!r}. A trial "
                "is not corrected: its window may lie in several quarters."
            )
        if not (is_number(self.share) and 0 < self.share <= 1):
            raise ConfigError(f"privacy.corrections: share must be > 0 and at most 1; got {self.share}.")


def check_corrections(corrections: tuple[Correction, ...], shares: Mapping[str, float]) -> None:
    """Raises ConfigError when the corrections of a quarter ask for more than its reserve, or there is no reserve."""
    if corrections and not shares.get(RESERVE, 0.0) > 0:
        raise ConfigError("privacy.corrections are paid by the reserve, and privacy.shares.reserve is 0; remove them.")
    for quarter in {c.quarter for c in corrections}:
        total = sum(c.share for c in corrections if c.quarter == quarter)
        if total > 1 + 1e-9:
            raise ConfigError(
                f"privacy.corrections of {quarter} ask for {total:g} of its reserve; their shares must add up to 1 at "
                "most, those of earlier corrections included."
            )


def corrections_of(block: Block, corrections: Iterable[Correction]) -> tuple[tuple[int, Correction], ...]:
    """(number, correction) of one block, counted from 1 for each measure; none before the quarter is closed."""
    mine = [c for c in corrections if block.closed and c.quarter == block.start]
    seen: dict[str, int] = {}
    out = []
    for c in mine:
        seen[c.measure] = seen.get(c.measure, 0) + 1
        out.append((seen[c.measure], c))
    return tuple(out)
