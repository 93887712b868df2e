"""A channel that has never run, from a stated prior: nothing is learned of it, so its interval is the prior's."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from contracts.checks import positive
from contracts.errors import ContractError
from contracts.response import SteadyResponse
from contracts.surface import DynamicResponse
from planning.summary import weighted_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class NewChannel:
    """What is believed of a channel before any data. Money is panel currency.

    return_low to return_high is the 80 % interval of its KPI per currency (lognormal) at `reference_spend` per period,
    all geos. `half_at` is the spend per period at which half of its effect would be reached, likely within a factor of
    `half_factor` (80 %). Carry-over is geometric, drawn from Beta with the mean `retention`.
    """

    name: str
    return_low: float
    return_high: float
    reference_spend: float
    half_at: float
    half_factor: float = 2.0
    slope: float = 1.0
    retention: float = 0.4
    source: str  # where the belief comes from: a benchmark, a sister market, a vendor's claim

    def __post_init__(self) -> None:
        positive(
            return_low=self.return_low, reference_spend=self.reference_spend, half_at=self.half_at, slope=self.slope
        )
        if not (np.isfinite(self.return_high) and self.return_high > self.return_low):
            raise ContractError(
                f"new channel {self.name!r}: return_high must be over {self.return_low}; got {self.return_high}."
            )
        if not self.half_factor > 1:
            raise ContractError(f"new channel {self.name!r}: half_factor must be over 1; got {self.half_factor}.")
        if not 0 < self.retention < 1:
            raise ContractError(f"new channel {self.name!r}: retention must lie between 0 and 1; got {self.retention}.")
        if not self.source.strip():
            raise ContractError(f"new channel {self.name!r} needs a source: say where the belief comes from.")


Z80 = 1.2815515655446004  # normal quantile at 90 %
CARRY_SIZE = 8.0  # of the Beta: as sure as eight observations


def with_new_channel(response: DynamicResponse, new: NewChannel, seed: int = 0) -> DynamicResponse:
    """The response with one more channel, last. Its money lies over geos by population; nothing is in flight,
    and every spend on it is marked as extrapolation. The belief is about spends up to `reference_spend`: beyond it the
    interval widens like that of any channel. Raises ContractError for a name that is there."""
    if new.name in response.channels:
        raise ContractError(f"channel {new.name!r} is in the model already; a new channel needs a name of its own.")
    steady, rng = response.steady, np.random.default_rng(seed)
    d, g = response.draws, len(response.geos)
    share = response.population / response.population.sum()
    centre = 0.5 * (np.log(new.return_low) + np.log(new.return_high))
    spread = 0.5 * (np.log(new.return_high) - np.log(new.return_low)) / Z80
    earned = np.exp(centre + spread * rng.standard_normal(d)) * new.reference_spend  # KPI per period there
    half = np.exp(np.log(new.half_factor) / Z80 * rng.standard_normal(d))  # in units of half_at
    dose = (new.reference_spend / new.half_at) ** new.slope
    height = earned * (dose + half**new.slope) / dose
    more = {
        "amplitude": np.concatenate([steady.amplitude, (height[:, None] * share)[:, :, None]], axis=2),
        "unit": np.concatenate([steady.unit, 1.0 / (share * new.half_at)[:, None]], axis=1),
        "half_saturation": np.concatenate([steady.half_saturation, half[:, None]], axis=1),
        "slope": np.concatenate([steady.slope, np.full((d, 1), new.slope)], axis=1),
        "current_spend": np.concatenate([steady.current_spend, np.zeros((g, 1))], axis=1),
        "observed_max": np.append(steady.observed_max, 0.0),
    }
    carry = rng.beta(CARRY_SIZE * new.retention, CARRY_SIZE * (1 - new.retention), (d, 1))
    return dataclasses.replace(
        response,
        steady=SteadyResponse(
            channels=(*response.channels, new.name), geos=response.geos, weights=steady.weights, **more
        ),
        retention=np.concatenate([response.retention, carry.clip(0.0, 0.999)], axis=1),
        delay=np.concatenate([response.delay, np.zeros((d, 1))], axis=1),
        recent=np.concatenate([response.recent, np.zeros((g, response.lags - 1, 1))], axis=2),
        observed=np.concatenate([response.observed, np.full((g, 1), new.reference_spend / new.half_at)], axis=1),
    )


def stated_return(response: DynamicResponse, channel: str, spend: float) -> dict[str, float]:
    """Interval of the KPI per currency of a channel at a steady `spend` per period, beside what was stated."""
    if channel not in response.channels:
        raise ContractError(f"channel {channel!r} is not there; the model knows {', '.join(response.channels)}.")
    positive(spend=spend)
    c = response.channels.index(channel)
    size = np.einsum("d,dg->g", response.steady.weights, response.steady.amplitude[:, :, c])
    plan = np.zeros_like(response.steady.unit)
    plan[:, c] = spend * size / size.sum()
    brought = response.steady.evaluate(plan)[:, :, c].sum(axis=1)
    return weighted_interval(brought / spend, response.steady.weights)
