"""How far last touch shall stand from cause: turns intended credit into touch probabilities, and counts credit.

Last touch credits a channel with its own conversions that nothing intercepts, with what it intercepts, and with
baseline conversions of addressable people that one of its touches happens to precede:

  credit_s = own_s (1 - i) + own_r i + h w_s (own_social + own_video) + a (1 - own) (q_s + e m_s)

and the same for r. a is the addressable share of people, q the probability of a touch just before a conversion,
e = 1 - q_s - q_r (drawn), and m the mix of background touches that converting people see; social and video get
own (1 - h) + a (1 - own) e m. Given the intended credits this is solved for a, q and m. It is a plan for expected
values and leaves out what repeat buyers carry over; what comes out is counted, in truth/credit.csv.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from simulate.params import CHANNELS, ONLINE, RETARGETING, SEARCH, SOCIAL, VIDEO, WorldDraw
from simulate.people import People

CROSS = 0.12  # search conversions that retargeting intercepts, and the reverse


@dataclass(frozen=True, slots=True)
class CreditPlan:
    """Probabilities that make credit differ from cause."""

    addressable: float  # share of people whose touches are logged at all
    direct: np.ndarray  # (2,) search, retargeting: touch just before a conversion of an addressable person
    intercept: np.ndarray  # (online channel, 2) the same, after the own click of a caused conversion
    background: np.ndarray  # (online channel,) mix of background touches over all addressable people, sums to 1


def _solve(
    draw: WorldDraw, needed: np.ndarray, prospecting: np.ndarray, intercepted: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Addressable share a, direct touch probabilities q and the mix m of background touches that converters see.

    `needed` is the share of baseline conversions that search and retargeting still have to be credited with,
    `prospecting` the true effects of social and video, both relative to baseline conversions.
    """
    rest = draw.scalars["background_share"]
    wanted = np.maximum(draw.scalars["prospecting_ratio"] - (1 - intercepted), 0.05) * prospecting
    addressable = min(0.9, float(needed.sum() + wanted.sum()))
    low = wanted / (addressable * rest)
    low *= min(1.0, 0.6 / low.sum())
    mix = np.empty(len(ONLINE))
    mix[[SOCIAL, VIDEO]] = low
    mix[[SEARCH, RETARGETING]] = (1 - low.sum()) * needed / needed.sum()
    return addressable, (1 - rest) * needed / needed.sum(), mix


def plan_credit(draw: WorldDraw, people: People) -> CreditPlan:
    """Solves the module's equations for one world."""
    share = np.array([c.share for c in draw.channels])
    pair, prospecting = share[[SEARCH, RETARGETING]], share[[SOCIAL, VIDEO]]
    wanted = pair * np.array(draw.credit_targets)
    split = draw.scalars["intercepted"] * wanted / wanted.sum()
    baseline = 1 - share[: len(ONLINE)].sum()
    needed = (wanted - pair * (1 - CROSS) - pair[::-1] * CROSS - split * prospecting.sum()) / baseline
    addressable, direct, mix = _solve(draw, needed, prospecting / baseline, draw.scalars["intercepted"])
    # Converting people have more intent than others, and intent attracts search and retargeting.
    background = mix / (people.exposure * people.intent).mean(axis=1)
    intercept = np.zeros((len(ONLINE), 2))
    intercept[SEARCH, 1] = intercept[RETARGETING, 0] = CROSS
    intercept[[SOCIAL, VIDEO]] = split
    return CreditPlan(addressable, direct, intercept, background / background.sum())


def last_touch(
    person: np.ndarray, ts: np.ndarray, channel: np.ndarray, converts: np.ndarray, lookback: int
) -> np.ndarray:
    """Channel of each conversion's last earlier touch within `lookback` (units of ts), -1 for none.

    One entry an event; `channel` is -1 where an event is no touch. Conversions in order of (person, ts).
    """
    order = np.lexsort((converts, ts, person))
    person, ts, channel, converts = person[order], ts[order], channel[order], converts[order]
    touched = np.where(channel >= 0, np.arange(len(person)), -1)
    last = np.maximum.accumulate(touched)
    valid = (last >= 0) & (person[last] == person) & (ts - ts[last] <= lookback)
    return np.where(valid, channel[last], -1)[converts]


def credit_table(
    person: np.ndarray, ts: np.ndarray, channel: np.ndarray, converts: np.ndarray, day: int
) -> pd.DataFrame:
    """Exact last-touch counts by channel and 'unattributed', with lookbacks of 30 and of 90 days."""
    out = pd.DataFrame({"channel": [*CHANNELS, "unattributed"]})
    for days in (30, 90):
        found = last_touch(person, ts, channel, converts, days * day)
        counts = np.bincount(np.where(found < 0, len(CHANNELS), found), minlength=len(CHANNELS) + 1)
        out[f"last_touch_{days}d"] = counts
    return out
