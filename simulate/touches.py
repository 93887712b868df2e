"""What people were seen doing: impressions, clicks, visits and conversions, with times.

A channel's touches exist only in weeks in which its ads ran where the person lives (and, in the user test, only for
people who were not held out). Conversions that carry-over causes in weeks without ads therefore may lack their click.
Times are microseconds since the panel's first midnight (UTC).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulate.credit import CreditPlan
from simulate.media import Media
from simulate.outcomes import Conversions
from simulate.params import ONLINE, RETARGETING, SEARCH, TRAITS, TV
from simulate.people import People, draw_from_groups

SECOND = 1_000_000
HOUR, DAY, WEEK = 3600 * SECOND, 86_400 * SECOND, 7 * 86_400 * SECOND
IMPRESSION, CLICK, VISIT, CONVERSION = range(4)
EVENTS: tuple[str, ...] = ("impression", "click", "visit", "conversion")
NONE = -1  # no channel
# Share of a day's events by hour: quiet nights, an evening peak.
_HOURS = np.array([3, 2, 1, 1, 1, 2, 4, 6, 8, 9, 9, 9, 10, 9, 9, 9, 10, 11, 12, 13, 13, 11, 8, 5], dtype=float)
_DAYS = np.array([1.0, 1.0, 1.0, 1.05, 1.05, 0.95, 0.95])


@dataclass(frozen=True, slots=True)
class Events:
    """One entry an event."""

    person: np.ndarray
    ts: np.ndarray
    event: np.ndarray  # position in EVENTS
    channel: np.ndarray  # channel index, or NONE
    value: np.ndarray  # EUR; NaN where the event has none

    def take(self, keep: np.ndarray) -> Events:
        """The events selected by a mask or by positions."""
        return Events(*(getattr(self, f)[keep] for f in self.__dataclass_fields__))


def concat(parts: list[Events]) -> Events:
    """All events of several parts."""
    return Events(*(np.concatenate([getattr(p, f) for p in parts]) for f in Events.__dataclass_fields__))


def _events(person: np.ndarray, ts: np.ndarray, event: np.ndarray | int, channel: np.ndarray | int) -> Events:
    size = len(person)
    return Events(
        person=person,
        ts=ts,
        event=np.broadcast_to(np.asarray(event, dtype=np.int8), size),
        channel=np.broadcast_to(np.asarray(channel, dtype=np.int8), size),
        value=np.full(size, np.nan),
    )


def times(rng: np.random.Generator, week: np.ndarray) -> np.ndarray:
    """A moment inside each week, to the second."""
    day = np.searchsorted(np.cumsum(_DAYS) / _DAYS.sum(), rng.random(len(week)), side="right")
    hour = np.searchsorted(np.cumsum(_HOURS) / _HOURS.sum(), rng.random(len(week)), side="right")
    return (
        week * WEEK + np.minimum(day, 6) * DAY + np.minimum(hour, 23) * HOUR + rng.integers(0, 3600, len(week)) * SECOND
    )


def _pull(ratio: np.ndarray) -> np.ndarray:
    """How delivery moves touches just before conversions: twice the spend does not double who searches the brand."""
    return np.minimum(np.sqrt(ratio), 1.5)


class _Ads:
    """Where and when ads ran: answers `was channel c shown to person i in the week of ts`."""

    def __init__(self, media: Media, people: People) -> None:
        self.delivery = media.delivery
        self.people = people
        heads = people.per_geo / people.size
        self.typical = np.einsum("cgat,g->c", _pull(media.delivery), heads) / media.delivery[0, 0].size

    def ratio(self, channel: np.ndarray, person: np.ndarray, ts: np.ndarray) -> np.ndarray:
        """Delivery relative to the plan's mean; 0 before the panel."""
        week = ts // WEEK
        found = self.delivery[channel, self.people.geo[person], self.people.arm[person], np.maximum(week, 0)]
        return np.where(week < 0, 0.0, found)


def background(
    rng: np.random.Generator, media: Media, people: People, plan: CreditPlan, per_person_week: float
) -> Events:
    """Touches that precede nothing in particular, of addressable people; proportional to delivery and exposure."""
    addressable = people.reach < plan.addressable
    parts = []
    for c in range(len(ONLINE)):
        weight = people.exposure[c] * addressable
        weight = weight / weight.sum() * people.size * plan.background[c] * per_person_week
        person, week = draw_from_groups(rng, people, weight, media.delivery[c])
        parts.append(_events(person, times(rng, week), _kinds(rng, c, len(person)), c))
    return concat(parts)


def _kinds(rng: np.random.Generator, channel: int, size: int) -> np.ndarray:
    return rng.choice(3, size=size, p=TRAITS[channel].event_mix).astype(np.int8)


def organic(rng: np.random.Generator, people: People, weeks: int, per_person_week: float) -> Events:
    """Visits without a channel, of everybody; they grow with the square root of intent."""
    weight = np.sqrt(people.intent)
    weight = weight / weight.mean() * per_person_week
    person, week = draw_from_groups(rng, people, weight, np.ones((len(people.per_geo), 2, weeks)))
    return _events(person, times(rng, week), VISIT, NONE)


def _own_click(
    rng: np.random.Generator, ads: _Ads, cause: np.ndarray, person: np.ndarray, ts: np.ndarray
) -> np.ndarray:
    """Time of the click that led to each caused conversion, 0 to 6 days before it; negative where no ads ran."""
    lag = rng.integers(60 * SECOND, 6 * DAY, len(ts))
    click = ts - lag
    ran = ads.ratio(cause, person, click) > 0
    monday = ts // WEEK * WEEK
    share = rng.random(len(ts))
    here = np.maximum(monday, ts - 6 * DAY)
    here = here + (share * np.maximum(ts - 60 * SECOND - here, 0)).astype(np.int64)
    here = np.where(here < ts, here, -1)  # a conversion at the stroke of midnight on Monday
    earliest = ts - 6 * DAY
    before = earliest + (share * (monday - earliest)).astype(np.int64)
    runs_now = ads.ratio(cause, person, ts) > 0
    ran_before = (earliest < monday) & (ads.ratio(cause, person, monday - WEEK) > 0) & (before >= 0)
    fallback = np.where(runs_now, here, np.where(ran_before, before, -1))
    # Whole seconds like every other event: a finer time would give the cause away.
    return np.where(ran, click, fallback) // SECOND * SECOND


def _pick(rng: np.random.Generator, search: np.ndarray, retargeting: np.ndarray) -> np.ndarray:
    """SEARCH, RETARGETING or NONE with the given probabilities."""
    u = rng.random(len(search))
    return np.where(u < search, SEARCH, np.where(u < search + retargeting, RETARGETING, NONE))


def _last_steps(
    rng: np.random.Generator, ads: _Ads, person: np.ndarray, ts: np.ndarray, lag: np.ndarray, chance: np.ndarray
) -> Events:
    """Search clicks and retargeting impressions `lag` before conversions; `chance` (conversion, 2) is a mean."""
    at = ts - lag
    found = np.stack([ads.ratio(np.full(len(ts), c), person, at) for c in (SEARCH, RETARGETING)], axis=1)
    scaled = chance * _pull(found) / ads.typical[[SEARCH, RETARGETING]]
    scaled /= np.maximum(1.0, scaled.sum(axis=1, keepdims=True) / 0.95)
    channel = _pick(rng, scaled[:, 0], scaled[:, 1])
    keep = channel != NONE
    kind = np.where(channel == SEARCH, CLICK, IMPRESSION)
    return _events(person[keep], at[keep], kind[keep], channel[keep])


def around_conversions(
    rng: np.random.Generator, media: Media, people: People, plan: CreditPlan, happened: Conversions, ts: np.ndarray
) -> list[Events]:
    """The conversions at `ts` and the touches tied to them."""
    ads = _Ads(media, people)
    person, cause = happened.person, happened.cause
    rows = _events(person, ts, CONVERSION, NONE)
    conversions = Events(rows.person, rows.ts, rows.event, rows.channel, happened.value)
    online = (cause >= 0) & (cause < TV)
    own = _own_click(rng, ads, cause[online], person[online], ts[online])
    seen = own >= 0
    clicks = _events(person[online][seen], own[seen], CLICK, cause[online][seen])
    # Interceptions fall between the own click and the conversion; a gap of a second or two has no room for one.
    lag = (ts[online] - own)[seen]
    gap = np.maximum((lag * rng.uniform(0.02, 0.6, len(lag))).astype(np.int64) // SECOND, 1) * SECOND
    room = np.flatnonzero(gap < lag)
    chance = plan.intercept[clicks.channel[room]]
    steps = _last_steps(rng, ads, clicks.person[room], ts[online][seen][room], gap[room], chance)
    rest = ~online & (people.reach[person] < plan.addressable)
    lag = (1 + np.minimum(rng.exponential(6.0, int(rest.sum())), 47.0) * 3600).astype(np.int64) * SECOND
    chance = np.broadcast_to(plan.direct, (len(lag), 2))
    direct = _last_steps(rng, ads, person[rest], ts[rest], lag, chance)
    return [conversions, clicks, steps, direct]


def invalid(rng: np.random.Generator, real: Events, share: float) -> Events:
    """Bot rows, `share` of `real`: repeats of touches of one person in a hundred, and a few made-up conversions."""
    touches = np.flatnonzero(real.channel >= 0)
    people = np.unique(real.person[touches])
    infected = rng.choice(people, size=max(1, len(people) // 100), replace=False)
    pool = touches[np.isin(real.person[touches], infected)]
    copied = real.take(rng.choice(pool, size=max(1, round(share * len(real.person)))))
    ts = copied.ts // WEEK * WEEK + rng.integers(0, 7 * 86_400, len(copied.ts)) * SECOND
    fake = rng.random(len(ts)) < 0.03
    value = np.where(fake, np.round(rng.uniform(5, 500, len(ts)), 2), np.nan)
    kind = np.where(fake, CONVERSION, copied.event).astype(np.int8)
    return Events(copied.person, ts, kind, np.where(fake, NONE, copied.channel).astype(np.int8), value)
