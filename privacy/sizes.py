"""Sizes of a business and of its tests, as a marketer declares them to learn what a budget buys."""

from __future__ import annotations

from dataclasses import dataclass

from contracts.checks import positive
from contracts.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a marketer declares about the business; nothing is looked up. Raises ContractError on impossible values."""

    cells: tuple[float, ...] = (10.0, 30.0, 100.0, 300.0, 1000.0)  # conversions per geo and week
    people_per_arm: int = 50_000
    base_rate: float = 0.02  # conversions per person over a user test
    treated_geos: int = 5
    control_geos: int = 5
    test_weeks: int = 8
    weeks_before: int = 52
    geo_conversions: float = 300.0  # per geo and week
    geo_variation: float = 0.05  # sd of a geo's week beyond counting, share of its level
    alpha: float = 0.05  # two-sided
    power: float = 0.8

    def __post_init__(self) -> None:
        positive(
            people_per_arm=self.people_per_arm,
            treated_geos=self.treated_geos,
            control_geos=self.control_geos,
            test_weeks=self.test_weeks,
            weeks_before=self.weeks_before,
            geo_conversions=self.geo_conversions,
            **{f"size {i}": m for i, m in enumerate(self.cells, 1)},
        )
        for name in ("base_rate", "alpha", "power"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ConfigError(f"{name} must lie between 0 and 1; got {value}.")
        if not 0 <= self.geo_variation < 10:
            raise ConfigError(f"geo_variation must be a share of the level, such as 0.05; got {self.geo_variation}.")
        if self.power <= self.alpha / 2:
            raise ConfigError(f"power must be above alpha / 2; got {self.power} and {self.alpha}.")
