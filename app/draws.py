"""The response in time as tables of the warehouse, and back: `response_draws`, `response_recent` and a key of `meta`.

The planning period that `plumb plan` worked on lies beside it, so the explorer values a plan as the job does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from contracts.errors import ContractError
from contracts.response import SteadyResponse
from contracts.surface import DynamicResponse
from planning.surface import Assumptions, Surface, build_surface

DRAW_TYPES = {
    "channel": "VARCHAR", "geo": "VARCHAR", "draw": "INTEGER", "weight": "DOUBLE", "amplitude": "DOUBLE",
    "half_saturation": "DOUBLE", "slope": "DOUBLE", "retention": "DOUBLE", "delay": "DOUBLE", "unit": "DOUBLE",
    "current_spend": "DOUBLE", "observed_max": "DOUBLE", "observed": "DOUBLE", "population": "DOUBLE",
}  # fmt: skip
RECENT_TYPES = {"channel": "VARCHAR", "geo": "VARCHAR", "periods_before": "INTEGER", "exposure": "DOUBLE"}
RESPONSE_KEY, PERIOD_KEY = "response", "planning_period"  # in `meta`, JSON
_FACTS = ("lags", "period_days", "currency", "kpi_name", "revenue_per_kpi")
_AXES = {
    "weight": "d", "amplitude": "dgc", "half_saturation": "dc", "slope": "dc", "retention": "dc", "delay": "dc",
    "unit": "gc", "current_spend": "gc", "observed_max": "c", "observed": "gc", "population": "g",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Period:
    """The planning period and what is assumed of it: keyword arguments of `Assumptions`."""

    start: date
    periods: int
    assumptions: Mapping[str, Any]

    def to_json(self) -> str:
        """For `meta`."""
        return json.dumps(
            {"start": self.start.isoformat(), "periods": self.periods, "assumptions": dict(self.assumptions)},
            sort_keys=True,
        )


@dataclass(frozen=True, slots=True)
class Tables:
    """A response in time as the warehouse holds it."""

    draws: pd.DataFrame  # DRAW_TYPES
    recent: pd.DataFrame  # RECENT_TYPES
    facts: str  # JSON, in `meta` under RESPONSE_KEY


def to_tables(response: DynamicResponse) -> Tables:
    """Rows of the tables, one a draw, geo and channel; and one a geo, channel and period before the data's end."""
    steady = response.steady
    d, g, c = steady.amplitude.shape
    values = {name: getattr(response, name, None) for name in _AXES} | {"weight": steady.weights}
    values = {name: getattr(steady, name) if v is None else v for name, v in values.items()}
    index = pd.MultiIndex.from_product([range(d), response.geos, response.channels], names=["draw", "geo", "channel"])
    rows = pd.DataFrame(index=index).reset_index()
    for name, axes in _AXES.items():
        shape = tuple(n if a in axes else 1 for n, a in zip((d, g, c), "dgc", strict=True))
        rows[name] = np.broadcast_to(np.reshape(values[name], shape), (d, g, c)).ravel()
    lags = response.lags - 1
    at = pd.MultiIndex.from_product(
        [response.geos, range(lags, 0, -1), response.channels], names=["geo", "periods_before", "channel"]
    )
    recent = pd.DataFrame({"exposure": response.recent.ravel()}, index=at).reset_index()
    facts = {name: getattr(response, name) for name in _FACTS} | {"last_period": response.last_period.isoformat()}
    return Tables(rows[list(DRAW_TYPES)], recent[list(RECENT_TYPES)], json.dumps(facts, sort_keys=True))


def from_tables(tables: Tables) -> DynamicResponse | None:
    """Inverse of `to_tables`, channels and geos in alphabetical order; None where there are no draws.

    Raises ContractError when a row is missing or double.
    """
    draws = tables.draws
    if draws.empty:
        return None
    channels, geos = (tuple(sorted(draws[k].unique())) for k in ("channel", "geo"))
    order = draws.sort_values(["draw", "geo", "channel"])
    shape = (order["draw"].nunique(), len(geos), len(channels))
    if len(order) != np.prod(shape) or order.duplicated(["draw", "geo", "channel"]).any():
        raise ContractError(f"response_draws must hold one row per draw, geo and channel {shape}; got {len(order)}.")
    cube = {k: order[k].to_numpy(dtype=float).reshape(shape) for k in _AXES}
    cut = {k: v[tuple(slice(None) if a in _AXES[k] else 0 for a in "dgc")] for k, v in cube.items()}
    facts = json.loads(tables.facts)
    past = tables.recent.sort_values(["geo", "periods_before", "channel"], ascending=[True, False, True])
    lagged = (len(geos), int(facts["lags"]) - 1, len(channels))
    if len(past) != np.prod(lagged):
        raise ContractError(f"response_recent must hold one row per geo, period and channel {lagged}; got {len(past)}.")
    return DynamicResponse(
        steady=SteadyResponse(
            channels=channels, geos=geos, amplitude=cut["amplitude"], unit=cut["unit"],
            half_saturation=cut["half_saturation"], slope=cut["slope"], current_spend=cut["current_spend"],
            observed_max=cut["observed_max"], weights=cut["weight"] / cut["weight"].sum(),
        ),
        retention=cut["retention"], delay=cut["delay"], observed=cut["observed"], population=cut["population"],
        recent=past["exposure"].to_numpy(dtype=float).reshape(lagged),
        last_period=date.fromisoformat(facts["last_period"]), **{k: facts[k] for k in _FACTS},
    )  # fmt: skip


def surface_of(response: DynamicResponse, period: str) -> Surface:
    """The surface of the file's planning period (`Period.to_json`). Raises ContractError for '' and for a misfit."""
    if not period:
        raise ContractError("the warehouse does not say which period its plans are for; run `plumb run`.")
    raw = json.loads(period)
    return build_surface(
        response, date.fromisoformat(raw["start"]), int(raw["periods"]), Assumptions(**_arrays(raw["assumptions"]))
    )


def _arrays(assumptions: Mapping[str, Any]) -> dict[str, Any]:
    return {k: np.array(v, dtype=float) if isinstance(v, list) else v for k, v in assumptions.items()}


def response_id(response: DynamicResponse, period: str = "") -> str:
    """Name of one set of posterior draws and planning assumptions: the same have the same name."""
    steady = response.steady
    assumed = json.loads(period)["assumptions"] if period else {}
    head = (response.channels, response.geos, response.lags, response.last_period.isoformat(), sorted(assumed.items()))
    digest = hashlib.sha256(repr(head).encode())
    for part in (
        steady.amplitude, steady.half_saturation, steady.slope, steady.unit, steady.current_spend, steady.weights,
        response.retention, response.delay, response.recent, response.observed,
    ):  # fmt: skip
        digest.update(np.ascontiguousarray(part, dtype="<f8").tobytes())
    return f"draws-{digest.hexdigest()[:16]}"
