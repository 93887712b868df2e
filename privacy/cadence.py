"""How the share of a measure is spread over a quarter: in one batch, week by week, or in stated parts.

Every batch is a release of its own: each person's rows of its weeks are bounded to the same C, it draws its own noise
and it pays its own charge; the charges of a quarter add up to at most the measure's share (zCDP composes by addition).
A cadence is declared before the quarter; batches that are out keep the weeks that they cover.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal

from contracts.calendar import LEAST_WEEKS, Block
from contracts.errors import ConfigError

PACED = ("kpi", "journeys")  # trials follow their experiments, diagnostics describe a whole quarter


@dataclass(frozen=True, slots=True)
class Part:
    """A run of weeks of the quarter and its part of the measure's share; `weeks` is None for all that are left."""

    weeks: int | None
    share: float


Cadence = Literal["quarter", "week"] | tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Weeks that are released together, and what every block-member pays for them (nano-rho)."""

    weeks: tuple[date, ...]
    nano: int


def check_cadence(cadences: Mapping[str, Cadence]) -> None:
    """Raises ConfigError naming the key for an unknown measure or word, or a split that does not fill a quarter."""
    for measure, cadence in cadences.items():
        key = f"privacy.cadence.{measure}"
        if measure not in PACED:
            raise ConfigError(f"{key} is unknown; a cadence is declared for {' or '.join(PACED)} only.")
        if isinstance(cadence, str):
            if cadence not in ("quarter", "week"):
                raise ConfigError(f"{key} must be 'quarter', 'week' or a list of parts; got {cadence!r}.")
        else:
            _check_split(key, cadence)


def _check_split(key: str, parts: tuple[Part, ...]) -> None:
    if len(parts) < 2 or parts[-1].weeks is not None or any(p.weeks is None for p in parts[:-1]):
        raise ConfigError(
            f"{key} must list at least two parts: all but the last say how many weeks they cover, the last takes the "
            "rest, as in [{ weeks = 9, share = 0.4 }, { share = 0.6 }]."
        )
    fixed = [p.weeks for p in parts[:-1] if p.weeks is not None]
    if min(fixed) < 1 or sum(fixed) >= LEAST_WEEKS:
        raise ConfigError(
            f"{key}: each part covers at least one week, and together those before the last at most "
            f"{LEAST_WEEKS - 1}, because a quarter may have {LEAST_WEEKS} weeks; got {', '.join(map(str, fixed))}."
        )


def batches(block: Block, cadence: Cadence, grant: int, slices: tuple[int, ...] = ()) -> tuple[Batch, ...]:
    """The batches of one measure and block that are due, oldest first.

    `grant` is the measure's share of the block, nano-rho; `slices` that of each part of a split. A weekly batch pays
    floor(grant ÷ weeks of the whole quarter), whatever the calendar holds of it. A part of a split is due once its
    last week is over; in a closed quarter every part is, with the weeks that the calendar holds.
    """
    if cadence == "quarter":
        return (Batch(block.weeks, grant),)
    whole = block.full_weeks
    if cadence == "week":
        return tuple(Batch((week,), grant // len(whole)) for week in block.weeks)
    out, at = [], 0
    for part, nano in zip(cadence, slices, strict=True):
        mine = whole[at:] if part.weeks is None else whole[at : at + part.weeks]
        at += len(mine)
        held = tuple(w for w in mine if w in block.weeks)
        if held and (block.closed or mine[-1] <= block.weeks[-1]):
            out.append(Batch(held, nano))
    return tuple(out)
