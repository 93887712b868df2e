"""What a plan over channel × period × geo brings, draw by draw: what is in flight, the horizon, what comes after.

    Y[d,t] = demand[t,g] A[d,g,c] H(S[d,t,g,c]),   S[d,t] = sum_l w[d,l] x[t − l],   x = unit · spend / cost index

H is the Hill curve. Beyond anything the model has seen (stock over `observed`, m) the curve is an extrapolation: what
it adds there is multiplied by one factor per draw and channel with mean 1, so the interval widens and the mean stays.

| on paper | here | dims | unit |
|---|---|---|---|
| s | spend | period, geo, channel | plan currency per period |
| x | exposure | geo, period, channel | saturation units |
| w[d,l] | lag_weights | channel, draw, lag | share |
| T, L | periods, lags | | periods; periods T to T + L − 2 are the tail after the horizon |

What earlier spend still brings is what an empty plan brings (`in_flight`); a plan is credited with the difference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np

from contracts.checks import non_negative, positive
from contracts.errors import ContractError
from contracts.response import SteadyResponse
from contracts.surface import DynamicResponse
from mmm.transforms import adstock_weights

EXTRAPOLATION_SD = 0.5  # log-scale sd of what a curve adds beyond observed exposure; an assumption, see decision 0160
TINY = 1e-12  # saturation units; keeps logarithms finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What is taken as given about the planning period. Scalars hold for every period and channel."""

    demand: np.ndarray | float = 1.0  # () or (T,) or (T, G): media effect relative to the panel's average period
    cost_index: np.ndarray | float = 1.0  # () or (T,) or (T, C): cost per exposure relative to the panel (inflation)
    price: np.ndarray | float | None = None  # () or (T,): plan currency per KPI unit; None: the panel's
    margin: float | None = None  # contribution before media as a share of revenue, (0, 1]
    currency: str | None = None  # of the plan; None: the panel's
    rate: float = 1.0  # panel currency per unit of plan currency
    extrapolation_sd: float = EXTRAPOLATION_SD

    def __post_init__(self) -> None:
        for name in ("demand", "cost_index", "price"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value).all() and (np.asarray(value) > 0).all()):
                raise ContractError(f"assumption {name} must hold finite numbers > 0; got {value}.")
        if self.margin is not None and not 0 < self.margin <= 1:
            raise ContractError(f"assumption margin must be a share over 0 and up to 1; got {self.margin}.")
        positive(rate=self.rate)
        non_negative(extrapolation_sd=self.extrapolation_sd)


@dataclass(frozen=True, slots=True)
class Surface:
    """A response laid out over one planning period; build with `build_surface`. Arrays are cached and never written."""

    response: DynamicResponse
    assumptions: Assumptions
    start: date
    periods: int
    currency: str  # of the plan
    per_spend: np.ndarray  # (T, G, C) saturation units per plan currency
    before: np.ndarray  # (G, L − 1, C) exposure of the periods just before the start
    lag_weights: np.ndarray  # (C, D, L)
    amplitude: np.ndarray  # (C, D, G) KPI units per period
    log_half: np.ndarray  # (C, D)
    slope: np.ndarray  # (C, D)
    demand: np.ndarray  # (T + L − 1, G)
    price: np.ndarray | None  # (T + L − 1,) plan currency per KPI unit
    widen: np.ndarray  # (C, D) factor on what lies beyond `seen`, mean 1
    seen: np.ndarray  # (C, G) exposure
    seen_share: np.ndarray  # (C, D, G) Hill share at `seen`
    in_flight: np.ndarray = field(repr=False)  # (C, D, T + L − 1) KPI units that an empty plan brings

    @property
    def weights(self) -> np.ndarray:
        """(D,), sum 1."""
        return self.response.steady.weights

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, G, C) of a plan."""
        return self.per_spend.shape

    def dates(self) -> tuple[date, ...]:
        """First day of each of the T periods."""
        return tuple(self.start + timedelta(days=self.response.period_days * t) for t in range(self.periods))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a plan brings, KPI units; plan = what it adds to what is in flight."""

    plan: np.ndarray  # (C, D, T + L − 1)
    in_flight: np.ndarray  # (C, D, T + L − 1)
    periods: int

    @property
    def within(self) -> np.ndarray:
        """(D, C) inside the horizon."""
        return self.plan[:, :, : self.periods].sum(axis=2).T

    @property
    def beyond(self) -> np.ndarray:
        """(D, C) after the horizon."""
        return self.plan[:, :, self.periods :].sum(axis=2).T

    @property
    def carried_in(self) -> np.ndarray:
        """(D, C) inside the horizon from spend before it."""
        return self.in_flight[:, :, : self.periods].sum(axis=2).T


def build_surface(
    response: DynamicResponse,
    start: date,
    periods: int,
    assumptions: Assumptions | None = None,
    *,
    gap_spend: np.ndarray | None = None,
) -> Surface:
    """Surface for `periods` periods from `start`.

    `gap_spend` (N, G, C), panel currency: spend of the N periods between panel and start; today's mean spend where not
    given. Raises ContractError for a start inside the panel or off its calendar, and for assumptions of a wrong shape.
    """
    given = assumptions or Assumptions()
    if periods < 1:
        raise ContractError(f"a plan needs at least 1 period; got {periods}.")
    steady, tail = response.steady, response.lags - 1
    g, c = len(response.geos), len(response.channels)
    cost = _laid_out("cost_index", given.cost_index, periods, c)
    currency = given.currency or response.currency
    if currency == response.currency and given.rate != 1.0:
        raise ContractError(f"the plan is in {currency}, the panel's currency: its rate must be 1; got {given.rate}.")
    if currency != response.currency and given.rate == 1.0:
        raise ContractError(
            f"the plan is in {currency} and the panel in {response.currency}: give `rate`, {response.currency} per "
            f"{currency}."
        )
    half = np.log(steady.half_saturation).T
    seen = response.observed.T
    empty = Surface(
        response=response,
        assumptions=given,
        start=start,
        periods=periods,
        currency=currency,
        per_spend=steady.unit[None] * given.rate / cost[:, None, :],
        before=_before(response, start, gap_spend),
        lag_weights=_lag_weights(response),
        amplitude=np.ascontiguousarray(steady.amplitude.transpose(2, 0, 1)),
        log_half=half,
        slope=np.ascontiguousarray(steady.slope.T),
        demand=_extend(_laid_out("demand", given.demand, periods, g), tail),
        price=_price(response, given, periods, tail),
        widen=_widen(response, given.extrapolation_sd),
        seen=seen,
        seen_share=hill_share(
            seen[:, None, :] * np.ones((1, response.draws, 1)), half[:, :, None], steady.slope.T[..., None]
        ),
        in_flight=np.zeros((c, response.draws, periods + tail)),
    )
    return _with_in_flight(empty)


def evaluate(surface: Surface, spend: np.ndarray) -> Outcome:
    """What `spend` (T, G, C), plan currency per period, brings. Raises ContractError on a wrong shape or sign."""
    return Outcome(_paths(surface, _checked(surface, spend)) - surface.in_flight, surface.in_flight, surface.periods)


def value_per_kpi(surface: Surface, unit: str) -> np.ndarray:
    """Worth (T + L − 1,) of one KPI unit by period: 1 for 'kpi', price for 'revenue', price × margin for 'margin'."""
    if unit == "kpi":
        return np.ones(surface.periods + surface.response.lags - 1)
    if unit not in ("revenue", "margin"):
        raise ContractError(f"a plan is valued in 'kpi', 'revenue' or 'margin'; got {unit!r}.")
    if surface.price is None:
        raise ContractError(f"{unit} needs a value per {surface.response.kpi_name}: give the assumption `price`.")
    if unit == "revenue":
        return surface.price
    if surface.assumptions.margin is None:
        raise ContractError("margin needs the share of revenue that is contribution: give the assumption `margin`.")
    return surface.price * surface.assumptions.margin


def value_draws(surface: Surface, spend: np.ndarray, unit: str = "kpi", *, tail: bool = True) -> np.ndarray:
    """Worth (D,) of a plan over all channels; 'margin' is after its cost. `tail` counts what comes after the end."""
    worth = value_per_kpi(surface, unit)
    last = None if tail else surface.periods
    draws = evaluate(surface, spend).plan[:, :, :last].sum(axis=0) @ worth[:last]
    return draws - float(spend.sum()) if unit == "margin" else draws


def held(surface: Surface, totals: np.ndarray | None = None) -> np.ndarray:
    """Plan (T, G, C) that holds channel totals (C,), plan currency per period, geo split as today; None: today's spend
    at today's money."""
    steady = surface.response.steady
    if totals is None:
        totals = steady.current_spend.sum(axis=0) / surface.assumptions.rate
    return np.broadcast_to(geo_shares(steady) * totals, surface.shape).copy()


def geo_shares(response: SteadyResponse) -> np.ndarray:
    """Share (G, C) of a channel's spend by geo: today's. For a channel that is dark today, by expected amplitude over
    the geos where it ever ran; even over all geos for a channel that never ran."""
    current = response.current_spend
    size = np.einsum("d,dgc->gc", response.weights, response.amplitude) * (response.unit > 0)
    mass = np.where(current.sum(axis=0) > 0, current, size)
    mass = np.where(mass.sum(axis=0) > 0, mass, 1.0)
    return mass / mass.sum(axis=0)


def extrapolated(surface: Surface, spend: np.ndarray) -> tuple[str, ...]:
    """Channels that in some geo and period get more exposure than the model has ever seen there, or that never ran."""
    over = (surface.per_spend * spend > surface.seen.T * (1 + 1e-9)).any(axis=(0, 1))
    over |= (surface.response.steady.observed_max <= 0) & (spend > 0).any(axis=(0, 1))
    return tuple(c for c, far in zip(surface.response.channels, over, strict=True) if far)


def lagged_exposure(surface: Surface, exposure: np.ndarray) -> np.ndarray:
    """Exposure (T, G, C) with its past and an empty tail, beside its lags: (C, L, T + L − 1, G)."""
    lags = surface.response.lags
    t, g, c = exposure.shape
    series = np.zeros((c, t + 2 * (lags - 1), g))
    series[:, : lags - 1] = surface.before.transpose(2, 1, 0)
    series[:, lags - 1 : lags - 1 + t] = exposure.transpose(2, 0, 1)
    windows = np.lib.stride_tricks.sliding_window_view(series, lags, axis=1)  # (C, T + L − 1, G, L), oldest first
    return np.ascontiguousarray(windows[..., ::-1].transpose(0, 3, 1, 2))


def by_geo(surface: Surface, spend: np.ndarray, channel: int) -> np.ndarray:
    """KPI units (D, T + L − 1, G) that a plan (T, G, C) adds in one channel, by geo; summed over geos it is that
    channel of `evaluate`."""
    exposure = surface.per_spend * _checked(surface, spend)
    with_plan, without = (lagged_exposure(surface, x)[channel] for x in (exposure, np.zeros_like(exposure)))
    size = surface.amplitude[channel][:, None, :] * surface.demand
    return (_shares(surface, with_plan, channel) - _shares(surface, without, channel)) * size


def _paths(surface: Surface, spend: np.ndarray) -> np.ndarray:
    """KPI units (C, D, T + L − 1) of plan and past together."""
    past = lagged_exposure(surface, surface.per_spend * spend)
    c, _, periods, geos = past.shape
    out = np.empty((c, surface.response.draws, periods))
    for i in range(c):
        share = _shares(surface, past[i], i)
        scaled = surface.amplitude[i][:, None, :] * surface.demand
        out[i] = np.einsum("dtg,dtg->dt", share, scaled) if geos > 1 else (share * scaled)[:, :, 0]
    return out


def _shares(surface: Surface, past: np.ndarray, i: int) -> np.ndarray:
    """Share of saturation (D, T + L − 1, G) of channel i's exposure beside its lags (L, T + L − 1, G), widened where
    it goes beyond what was seen."""
    lags, periods, geos = past.shape
    stock = (surface.lag_weights[i] @ past.reshape(lags, -1)).reshape(-1, periods, geos)
    far = (past[0] > surface.seen[i]).any() or (surface.seen[i] < surface.before[:, :, i].T).any()
    over = stock > surface.seen[i] if far else None  # before the Hill curve takes the stock's memory
    share = hill_share(stock, surface.log_half[i][:, None, None], surface.slope[i][:, None, None])
    if over is None:
        return share
    seen = surface.seen_share[i][:, None, :]
    return np.where(over, seen + surface.widen[i][:, None, None] * (share - seen), share)


def hill_share(stock: np.ndarray, log_half: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Share of saturation of `stock`, which is overwritten; 0 where there is none."""
    empty = stock <= TINY
    np.log(np.maximum(stock, TINY, out=stock), out=stock)
    stock = stock - log_half
    stock *= -slope
    np.exp(np.minimum(stock, 700.0, out=stock), out=stock)
    stock += 1.0
    np.reciprocal(stock, out=stock)
    stock[empty] = 0.0
    return stock


def _with_in_flight(surface: Surface) -> Surface:
    surface.in_flight[...] = _paths(surface, np.zeros(surface.shape))
    return surface


def _checked(surface: Surface, spend: np.ndarray) -> np.ndarray:
    spend = np.asarray(spend, dtype=float)
    if spend.shape != surface.shape:
        raise ContractError(f"a plan must have shape {surface.shape} (period, geo, channel); got {spend.shape}.")
    if not np.isfinite(spend).all() or (spend < 0).any():
        raise ContractError("a plan's spend must be finite numbers >= 0 in every period, geo and channel.")
    blocked = (spend > 0) & (surface.per_spend == 0)
    if blocked.any():
        _, g, c = np.argwhere(blocked)[0]
        raise ContractError(
            f"channel {surface.response.channels[c]!r} never ran in geo {surface.response.geos[g]!r}, so nothing is "
            "known of it there: plan 0 there, or enter it as a new channel with a stated prior."
        )
    return spend


def _laid_out(name: str, value: np.ndarray | float, periods: int, columns: int) -> np.ndarray:
    """(periods, columns) of a scalar, one figure per period, or the full table."""
    array = np.asarray(value, dtype=float)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim > 2 or (array.ndim == 2 and (array.shape[0] != periods or array.shape[1] not in (1, columns))):
        raise ContractError(
            f"assumption {name} must be one number, one per period ({periods}) or a table of {periods} × {columns}; "
            f"got shape {np.shape(value)}."
        )
    return np.broadcast_to(array, (periods, columns)).copy()


def _extend(table: np.ndarray, tail: int) -> np.ndarray:
    """The last period's assumption holds for the tail."""
    return np.concatenate([table, np.repeat(table[-1:], tail, axis=0)])


def _price(response: DynamicResponse, given: Assumptions, periods: int, tail: int) -> np.ndarray | None:
    price = given.price
    if price is None:
        if response.revenue_per_kpi is None:
            return None
        price = response.revenue_per_kpi / given.rate
    return _extend(_laid_out("price", price, periods, 1), tail)[:, 0]


def _widen(response: DynamicResponse, sd: float) -> np.ndarray:
    """Lognormal factors (C, D), one normal each, scaled so that the mean response is the same with and without them."""
    steady = response.steady
    factor = np.exp(sd * np.random.default_rng(0).standard_normal(steady.half_saturation.shape))
    size = steady.amplitude.sum(axis=1) * steady.weights[:, None]
    return np.ascontiguousarray((factor * size.sum(axis=0) / (factor * size).sum(axis=0)).T)


def _lag_weights(response: DynamicResponse) -> np.ndarray:
    d, c = response.retention.shape
    flat = adstock_weights(response.retention.ravel(), response.delay.ravel(), response.lags)  # (L, D C)
    return np.ascontiguousarray(flat.T.reshape(d, c, response.lags).transpose(1, 0, 2))


def _before(response: DynamicResponse, start: date, gap_spend: np.ndarray | None) -> np.ndarray:
    """Exposure (G, L − 1, C) of the periods just before `start`."""
    steady, days = response.steady, response.period_days
    first = response.last_period + timedelta(days=days)
    if start < first:
        raise ContractError(f"the plan starts on {start}, before the history ends; start on {first} or later.")
    if (start - first).days % days:
        later = first + timedelta(days=((start - first).days // days + 1) * days)
        raise ContractError(f"the plan starts on {start}, inside a period of the panel; start on {later}.")
    gap = (start - first).days // days
    if gap_spend is None:
        gap_spend = np.broadcast_to(steady.current_spend, (gap, *steady.current_spend.shape))
    if gap_spend.shape != (gap, *steady.unit.shape):
        raise ContractError(
            f"spend between panel and plan must have shape {(gap, *steady.unit.shape)} (period, geo, channel); got "
            f"{gap_spend.shape}."
        )
    series = np.concatenate([response.recent, (gap_spend * steady.unit[None]).transpose(1, 0, 2)], axis=1)
    return series[:, series.shape[1] - (response.lags - 1) :]
