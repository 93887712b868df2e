"""What planning and the explorer need of a fitted model: the steady response of each channel, draw by draw.

| on paper | here | dims | unit |
|---|---|---|---|
| B[d,g,c] | amplitude | draw, geo, channel | KPI units per period at full saturation |
| u[g,c] | unit | geo, channel | saturation units per currency |
| k[d,c] | half_saturation | draw, channel | saturation units |
| n[d,c] | slope | draw, channel | none |

At a steady spend s the adstock (weights normalised to sum to 1) is s itself, so the response of one period is
`B · (u s)^n / ((u s)^n + k^n)`, the Hill curve of the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contracts.errors import ContractError


@dataclass(frozen=True, slots=True)
class SteadyResponse:
    """Posterior draws of the steady response. Consenting people, scaled back for clipping."""

    channels: tuple[str, ...]
    geos: tuple[str, ...]
    amplitude: np.ndarray  # (D, G, C), KPI units per period
    unit: np.ndarray  # (G, C), saturation units per currency; 0 where a geo never had spend
    half_saturation: np.ndarray  # (D, C)
    slope: np.ndarray  # (D, C)
    current_spend: np.ndarray  # (G, C), currency per period: mean of the last 13 weeks (or all, if fewer)
    observed_max: np.ndarray  # (C,), currency per period: largest observed spend over all geos
    weights: np.ndarray  # (D,), importance weights of the draws, sum 1

    def __post_init__(self) -> None:
        d, g, c = len(self.weights), len(self.geos), len(self.channels)
        shapes = {
            "amplitude": (d, g, c), "unit": (g, c), "half_saturation": (d, c), "slope": (d, c),
            "current_spend": (g, c), "observed_max": (c,),
        }  # fmt: skip
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ContractError(f"response {name} must have shape {shape}; got {getattr(self, name).shape}.")
        if not np.isclose(self.weights.sum(), 1.0):
            raise ContractError(f"response weights must sum to 1; got {self.weights.sum()}.")

    def evaluate(self, spend: np.ndarray) -> np.ndarray:
        """Response (D, G, C) in KPI units per period to a steady spend (G, C) in currency per period."""
        dose = (self.unit * spend)[None] ** self.slope[:, None, :]
        return self.amplitude * dose / (dose + self.half_saturation[:, None, :] ** self.slope[:, None, :])

    def marginal(self, spend: np.ndarray) -> np.ndarray:
        """Derivative (D, G, C) of `evaluate` by spend, KPI units per currency; spend must be > 0."""
        n = self.slope[:, None, :]
        dose = (self.unit * spend)[None] ** n
        half = self.half_saturation[:, None, :] ** n
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(spend > 0, self.amplitude * n * dose * half / (spend * (dose + half) ** 2), 0.0)
