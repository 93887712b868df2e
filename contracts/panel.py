"""The aggregate panel: what every model reads, wherever it came from.

| on paper | here | dims | unit |
|---|---|---|---|
| y*[g,t] | kpi | geo, week | KPI units (conversions, unless the project says otherwise) |
| tau²[g,t] | kpi_variance | geo, week | KPI units², known noise of the release |
| x[g,t,c] | media | geo, week, channel | exposure (impressions) or currency |
| s[g,t,c] | spend | geo, week, channel | currency |
| z[g,t,k] | controls | geo, week, control | as supplied |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

import numpy as np

from contracts.errors import ContractError

NATIONAL = "national"  # the one geo of a panel without a geo column
OTHER_GEO = "other"  # cohort of people whose geo is not declared
UNATTRIBUTED = "unattributed"  # credit row for conversions without a recorded touch


@dataclass(frozen=True, slots=True)
class Panel:
    """Arrays and their labels. Missing KPI cells are NaN, never zero. Raises ContractError on any misfit."""

    geos: tuple[str, ...]
    weeks: tuple[date, ...]
    channels: tuple[str, ...]
    kpi: np.ndarray  # (G, T)
    kpi_variance: np.ndarray  # (G, T), >= 0; 0 where the KPI is exact
    media: np.ndarray  # (G, T, C), >= 0; equal to spend where no exposure is given
    spend: np.ndarray  # (G, T, C), >= 0, currency
    population: np.ndarray  # (G,), > 0, people or any size measure
    controls: np.ndarray  # (G, T, K)
    control_names: tuple[str, ...]
    organic: np.ndarray  # (G, T, O), >= 0, exposure without spend
    organic_names: tuple[str, ...]
    revenue_per_kpi: np.ndarray | None  # (G, T), currency per KPI unit, or None when unknown
    kpi_name: str
    currency: str
    period_days: int  # 7 weekly, 1 daily
    scale_back: tuple[float, float]  # factor (mean, sd) that undoes the clipped mass; (1, 0) when nothing was clipped
    user_level: bool  # False: the aggregate-only door, no user-level data was used
    evidence_ids: tuple[str, ...]  # the release ids (or file hash) behind the KPI
    frequency: np.ndarray | None = None  # (G, T, C) mean exposures per person reached; `media` is then reach; 0: none
    treatments: Mapping[str, float] = field(default_factory=dict)  # controls that are decisions -> value that is none

    def __post_init__(self) -> None:
        g, t, c = len(self.geos), len(self.weeks), len(self.channels)
        shapes = {
            "kpi": (g, t),
            "kpi_variance": (g, t),
            "media": (g, t, c),
            "spend": (g, t, c),
            "population": (g,),
            "controls": (g, t, len(self.control_names)),
            "organic": (g, t, len(self.organic_names)),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ContractError(f"panel {name} must have shape {shape}; got {getattr(self, name).shape}.")
        if self.revenue_per_kpi is not None and self.revenue_per_kpi.shape != (g, t):
            raise ContractError(f"panel revenue_per_kpi must have shape {(g, t)}; got {self.revenue_per_kpi.shape}.")
        for name in ("media", "spend", "organic", "controls", "kpi_variance", "population"):
            if not np.isfinite(getattr(self, name)).all():
                raise ContractError(f"panel {name} holds values that are not finite numbers.")
        for name in ("media", "spend", "organic", "kpi_variance"):
            if (getattr(self, name) < 0).any():
                raise ContractError(f"panel {name} must be >= 0.")
        unknown = sorted(set(self.treatments) - set(self.control_names))
        if unknown:
            raise ContractError(f"panel treatment {unknown[0]!r} is not among its controls.")
        if self.frequency is not None:
            self._check_frequency((g, t, c))
        if not (self.population > 0).all():
            raise ContractError("panel population must be > 0 for every geo.")
        if not np.isfinite(self.kpi).any():
            raise ContractError("the panel holds no KPI value at all.")
        for name in ("geos", "weeks", "channels"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ContractError(f"panel {name} must be unique; got {getattr(self, name)}.")

    def _check_frequency(self, shape: tuple[int, ...]) -> None:
        seen = self.frequency
        assert seen is not None
        if seen.shape != shape or not np.isfinite(seen).all() or (seen < 0).any():
            raise ContractError(f"panel frequency must hold finite numbers >= 0 of shape {shape}; got {seen.shape}.")
        bad = (seen > 0).any(axis=(0, 1)) & ((self.media > 0) & (seen <= 0)).any(axis=(0, 1))
        if bad.any():
            name = self.channels[int(np.flatnonzero(bad)[0])]
            raise ContractError(f"channel {name!r} has reach without a frequency in some period; give both or neither.")

    def geo_index(self, geo: str) -> int:
        """Position of `geo`. Raises ContractError when it is not in the panel."""
        if geo not in self.geos:
            raise ContractError(f"geo {geo!r} is not in the panel; it holds {', '.join(self.geos)}.")
        return self.geos.index(geo)

    def window(self, start: date, end: date) -> np.ndarray:
        """Positions of the weeks that overlap `start`..`end` (inclusive), shape (n,)."""
        span = np.array([(w.toordinal() + self.period_days > start.toordinal()) and w <= end for w in self.weeks])
        return np.flatnonzero(span)
