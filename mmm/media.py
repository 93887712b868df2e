"""From exposure to the shape of the media effect: carry-over and curve of every channel, each by its own families.

| order | response of a channel |
|---|---|
| adstock first (default) | h(sum_l w_l x[t − l]) |
| saturate first | sum_l w_l h(x[t − l]) |
| reach and frequency | sum_l w_l reach[t − l] h(frequency[t − l]), the channel's exposure being its reach |

The third is Zhang, Wurm, Li, Wakim, Kelly, Price, Liu (2023), "Media mix model calibration with reach and frequency".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from mmm.adstock import Adstock
from mmm.saturation import Saturation

if TYPE_CHECKING:
    from mmm.design import Design

Order = Literal["adstock_first", "saturate_first", "reach_frequency"]
SLOTS = ("retention", "delay", "half_saturation", "slope")


class Params(NamedTuple):
    """What NUTS sees. Scales are relative to the geo's level."""

    theta: Any  # (C,) total contribution, KPI units, over all geos and periods
    retention: Any  # (C,)
    delay: Any  # (C,)
    half_saturation: Any  # (C,)
    slope: Any  # (C,)
    geo_spread: Any  # (C,)
    sigma: Any  # (G,)
    shock_sd: Any  # ()
    shock_correlation: Any  # () from one period to the next, [0, 1)
    trend_sd: Any  # ()
    geo_trend_sd: Any  # ()
    lift_precision: Any  # (K,) mixing precision of the Student-t, 1 for normal lifts
    control_scale: Any = 1.0  # () factor of the controls' prior sds
    control_spread: Any = np.zeros(0)  # (K,) sd of a geo's own part of a control's coefficient; none where all share it
    cell_precision: Any = 1.0  # (G, T) mixing precision of a Student-t residual, () 1 for a normal one


class Response(NamedTuple):
    """Media response before geo deviations."""

    unit: Any  # (G, T, C) share of the channel's total response in each cell; sums to 1 per channel
    elasticity: Any  # (G, T, C) derivative of the channel's response by log exposure, in the same unit
    norm: Any  # (C,) sum of size × response, turns theta into the amplitude per head
    lift: Any  # (P, G) share of the channel's total response that each part of a lift test adds in each geo


@dataclass(frozen=True, slots=True)
class Group:
    """Channels that share their families and order, so that one array expression serves them all."""

    adstock: type[Adstock]
    saturation: type[Saturation]
    order: Order
    members: np.ndarray  # (n,) positions of the channels


@dataclass(frozen=True, slots=True)
class Curves:
    """Families of all channels, and the priors of their parameters."""

    groups: tuple[Group, ...]
    adstock: tuple[Adstock, ...]  # by channel
    saturation: tuple[Saturation, ...]
    order: tuple[Order, ...]

    def used(self, slot: str) -> np.ndarray:
        """Positions of the channels whose families use the slot."""
        return np.array([i for i, (a, s) in enumerate(zip(self.adstock, self.saturation, strict=True))
                         if slot in a.uses or slot in s.uses], dtype=int)  # fmt: skip

    def prior(self, name: str) -> np.ndarray:
        """One prior setting of every channel (C,), a field of `Adstock` or `Saturation`."""
        owner: Sequence[object] = self.adstock if hasattr(Adstock, name) else self.saturation
        return np.array([getattr(f, name) for f in owner])


def curves_of(adstock: Sequence[Adstock], saturation: Sequence[Saturation], order: Sequence[Order]) -> Curves:
    """Groups the channels by family and order, in the order of their first member."""
    found: dict[tuple[type[Adstock], type[Saturation], Order], list[int]] = {}
    for i, key in enumerate(zip(map(type, adstock), map(type, saturation), order, strict=True)):
        found.setdefault(key, []).append(i)
    groups = tuple(Group(a, s, o, np.array(members)) for (a, s, o), members in found.items())
    return Curves(groups, tuple(adstock), tuple(saturation), tuple(order))


def relagged(exposure: Any, shape: tuple[int, int, int], lags: int, xp: Any = np) -> Any:
    """Series (N, G, T), its `shape`, beside their own past, (N, G, T, lags): lag l holds period t − l, 0 before."""
    n, g, t = shape
    shifted = [
        xp.concatenate([xp.zeros((n, g, min(lag, t))), exposure[:, :, : max(t - lag, 0)]], axis=2)
        for lag in range(lags)
    ]  # fmt: skip
    return xp.stack(shifted, axis=-1)


def respond(
    group: Group, past: Any, frequency: np.ndarray | None, slots: Sequence[Any], periods: int, xp: Any = np
) -> tuple[Any, Any]:
    """Response (N, n) of n channels of one group and its derivative by log exposure; N is geo × period.

    `past` (n, N, lags) is each channel's exposure beside its past, `frequency` (n, N) for reach and frequency only,
    `slots` the four parameters (n,) in the order of `SLOTS`.
    """
    retention, delay, half, slope = slots
    n, cells, lags = past.shape
    weights = xp.transpose(group.adstock.weights(retention, delay, lags, xp))[:, :, None]  # (n, lags, 1)
    if group.order == "adstock_first":
        stock = xp.transpose(xp.matmul(past, weights)[:, :, 0])
        value = group.saturation.share(stock, half, slope, xp)
        return value, value * group.saturation.elasticity(stock, half, slope, xp)

    def carried(inner: Any) -> Any:
        shape = (n, cells // periods, periods)
        past_of_inner = relagged(xp.transpose(inner).reshape(shape), shape, lags, xp).reshape((n, cells, lags))
        return xp.transpose(xp.matmul(past_of_inner, weights)[:, :, 0])

    now = np.transpose(past[:, :, 0])
    if group.order == "reach_frequency":
        assert frequency is not None
        value = carried(now * group.saturation.share(np.transpose(frequency), half, slope, xp))
        return value, value  # more spend buys more reach at the same frequency
    inner = group.saturation.share(now, half, slope, xp)
    return carried(inner), carried(inner * group.saturation.elasticity(now, half, slope, xp))


def _by_group(
    design: Design, p: Params, channel: np.ndarray, past: np.ndarray, frequency: np.ndarray, xp: Any
) -> tuple[Any, Any]:
    """`respond` for series n of channel `channel[n]`, columns back in their order: (N, n) twice."""
    values, slopes, order = [], [], []
    for group in design.curves.groups:
        at = np.flatnonzero(np.isin(channel, group.members))
        if len(at) == 0:
            continue
        everything = len(at) == len(channel)
        mine = channel[at]
        identity = everything and len(mine) == len(design.channels) and (mine == np.arange(len(mine))).all()
        slots = [v if identity else v[mine] for v in (p.retention, p.delay, p.half_saturation, p.slope)]
        seen = frequency[at] if group.order == "reach_frequency" else None
        value, slope = respond(group, past if everything else past[at], seen, slots, design.shape[1], xp)
        values.append(value)
        slopes.append(slope)
        order.append(at)
    if len(values) == 1:
        return values[0], slopes[0]
    back = np.argsort(np.concatenate(order))
    return xp.concatenate(values, axis=1)[:, back], xp.concatenate(slopes, axis=1)[:, back]


def response_shape(design: Design, p: Params, xp: Any = jnp) -> tuple[Any, Any]:
    """Response per head (G, T, C), not normalised, and its derivative by log exposure."""
    g, t, c = design.shape
    frequency = np.moveaxis(design.frequency, 2, 0).reshape(c, g * t)
    value, slope = _by_group(design, p, np.arange(c), design.past, frequency, xp)
    return value.reshape((g, t, c)), slope.reshape((g, t, c))


def lift_shape(design: Design, p: Params, norm: Any, xp: Any = jnp) -> Any:
    """Share of its channel's total response that each part of a lift test adds in each geo, (P, G)."""
    rows, c = design.lifts, design.lifts.channel
    g, t, _ = design.shape
    if len(c) == 0:
        return xp.zeros((0, g))
    frequency = np.moveaxis(design.frequency, 2, 0).reshape(design.shape[2], g * t)[c]
    factual, without = (_by_group(design, p, c, past, frequency, xp)[0] for past in rows.past)
    gap = xp.transpose(factual - without).reshape((len(c), g, t)) * rows.weight
    return gap.sum(axis=2) * design.size / norm[c][:, None]


def media_response(design: Design, p: Params) -> Response:
    """Share of each channel's total response per cell and per part of a lift, given carry-over and curve."""
    share, slope = response_shape(design, p)
    sized = design.size[:, None, None] * share
    norm = sized.sum(axis=(0, 1))
    elasticity = design.size[:, None, None] * slope / norm
    return Response(sized / norm, elasticity, norm, lift_shape(design, p, norm))
