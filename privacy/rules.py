"""Per-person credit rules and their parameters, as declared before a release. What they do: `privacy.credit`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from contracts.errors import ConfigError


def is_number(value: Any) -> bool:
    """True for a finite int or float that is no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class TimeDecay:
    """A touch weighs half as much for every `half_life_days` (local days) that it lies before the conversion."""

    half_life_days: float = 7.0

    def check(self, key: str) -> None:
        """Raises ConfigError on an unusable half-life."""
        if not (is_number(self.half_life_days) and 0.1 <= self.half_life_days <= 365):
            raise ConfigError(f"{key}.half_life_days must lie between 0.1 and 365; got {self.half_life_days}.")


@dataclass(frozen=True, slots=True)
class LastNonDirect:
    """All credit to the last touch whose channel is not in `direct`; to the last touch where all of them are."""

    direct: tuple[str, ...] = ()

    def check(self, key: str) -> None:
        """Raises ConfigError on a name given twice."""
        if len(set(self.direct)) != len(self.direct):
            raise ConfigError(f"{key}.direct must be unique; got {', '.join(self.direct)}.")


@dataclass(frozen=True, slots=True)
class PositionWeights:
    """Relative weights of the first touch, of all touches between (shared equally) and of the last touch."""

    first: float = 0.4
    middle: float = 0.2
    last: float = 0.4

    def thousandths(self) -> tuple[int, int, int]:
        """The weights as integers."""
        first, middle, last = (round(1000 * w) for w in (self.first, self.middle, self.last))
        return first, middle, last

    def check(self, key: str) -> None:
        """Raises ConfigError unless the weights are thousandths in [0, 1], not all 0."""
        for name in ("first", "middle", "last"):
            value = getattr(self, name)
            if not (is_number(value) and 0 <= value <= 1 and abs(value * 1000 - round(value * 1000)) < 1e-6):
                raise ConfigError(f"{key}.{name} must lie between 0 and 1, in steps of 0.001; got {value}.")
        if not any(self.thousandths()):
            raise ConfigError(f"{key} has only weights of 0; give first, middle or last a weight above 0.")


CreditRule = TimeDecay | LastNonDirect | PositionWeights
