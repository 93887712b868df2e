"""Conversions, each with the cause that made it, and the truth that follows.

Person i converts at rate  base_i · B[g,t] + sum_c susceptibility_ic · pressure[c, g, arm, t].  Each term is a Poisson
process of its own, so taking a channel away takes away exactly the conversions that carry its label.

An experiment's truth needs the same person in two worlds. Conversions of a tested channel are drawn at the larger of
the two rates, each with one uniform mark; it happens in a world when the mark is below that world's share of the
rate. The mark is shared, so that what the experiment did not touch is the same conversion in both worlds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from simulate.demand import Demand
from simulate.media import Media, Trial, treated_spend_delta
from simulate.params import CHANNELS, HISTORY, WorldDraw
from simulate.people import EXPOSED, People, draw_from_groups

BASE = -1  # cause of a conversion that no channel made


@dataclass(frozen=True, slots=True)
class Conversions:
    """One entry a conversion, of the actual world or of a world without one experiment."""

    person: np.ndarray
    week: np.ndarray
    cause: np.ndarray  # channel index, or BASE
    actual: np.ndarray  # bool: it happened
    without: np.ndarray  # bool: it would have happened without the experiment on its channel
    value: np.ndarray  # EUR, cents

    def take(self, keep: np.ndarray) -> Conversions:
        """The conversions selected by a mask or by positions."""
        return Conversions(*(getattr(self, f)[keep] for f in self.__dataclass_fields__))


def base_rate(draw: WorldDraw, demand: Demand, people: People, expected: float) -> np.ndarray:
    """Baseline conversions per unit of intent, (geo, 2, week).

    The expected total is the part of `expected` conversions that no channel causes.
    """
    panel = np.exp(demand.log_base[:, HISTORY:])
    mass = np.add.reduceat(people.intent, people.bounds[:-1:2])
    own = expected * (1 - sum(c.share for c in draw.channels))
    return np.repeat((own / (mass[:, None] * panel).sum() * panel)[:, None, :], 2, axis=1)


def make_conversions(
    rng: np.random.Generator, draw: WorldDraw, base: np.ndarray, media: Media, people: People
) -> Conversions:
    """Draws every conversion of both worlds. `base` is `base_rate`."""
    parts = [(*draw_from_groups(rng, people, people.intent, base), BASE, None, None)]
    for c in range(len(CHANNELS)):
        upper = np.maximum(media.pressure[c], media.without[c])
        person, week = draw_from_groups(rng, people, people.susceptibility[c], upper)
        geo, arm = people.geo[person], people.arm[person]
        mark = rng.random(len(person)) * upper[geo, arm, week]
        parts.append(
            (person, week, c, mark < media.pressure[c][geo, arm, week], mark < media.without[c][geo, arm, week])
        )
    sizes = [len(p[0]) for p in parts]
    size = sum(sizes)
    sd = 0.6
    value = np.exp(np.log(draw.scalars["order_value"]) - sd**2 / 2 + sd * rng.standard_normal(size))
    every = np.ones(sizes[0], dtype=bool)
    return Conversions(
        person=np.concatenate([p[0] for p in parts]),
        week=np.concatenate([p[1] for p in parts]),
        cause=np.repeat([p[2] for p in parts], sizes),
        actual=np.concatenate([every, *(p[3] for p in parts[1:])]),
        without=np.concatenate([every, *(p[4] for p in parts[1:])]),
        value=np.maximum(np.round(value, 2), 0.5),
    )


def effects_table(happened: Conversions, people: People, names: list[str], weeks: list[date]) -> pd.DataFrame:
    """Realised incremental conversions of consenting people: geo, week, channel, incremental; every cell, zeros too."""
    shape = (len(CHANNELS), len(names), len(weeks))
    caused = happened.take((happened.cause != BASE) & people.consent[happened.person])
    cell = np.ravel_multi_index((caused.cause, people.geo[caused.person], caused.week), shape)
    counts = np.bincount(cell, minlength=int(np.prod(shape)))
    channel, geo, week = (a.ravel() for a in np.indices(shape))
    return pd.DataFrame(
        {
            "geo": np.array(names)[geo],
            "week": np.array(weeks, dtype=object)[week],
            "channel": np.array(CHANNELS)[channel],
            "incremental": counts,
        }
    )


def totals_table(happened: Conversions, people: People, spend: np.ndarray) -> pd.DataFrame:
    """Per channel: realised incremental conversions and revenue of consenting people, and all spend in EUR."""
    caused = happened.take((happened.cause != BASE) & people.consent[happened.person])
    return pd.DataFrame(
        {
            "channel": CHANNELS,
            "incremental": np.bincount(caused.cause, minlength=len(CHANNELS)),
            "incremental_revenue": np.round(np.bincount(caused.cause, caused.value, minlength=len(CHANNELS)), 2),
            "spend": np.round(spend.sum(axis=(1, 2)), 2),
        }
    )


def trial_effect(conversions: Conversions, people: People, trial: Trial) -> int:
    """Realised true effect: conversions with the test minus without it, treated scope and window, consenting people.

    For the user test the treated scope is the exposed arm and 'without' is the exposed arm held out as well.
    """
    mine = conversions.take(conversions.cause == trial.channel)
    inside = (mine.week >= trial.begin) & (mine.week < trial.stop) & people.consent[mine.person]
    if trial.kind == "geo":
        inside &= np.isin(people.geo[mine.person], trial.treated)
    else:
        inside &= people.arm[mine.person] == EXPOSED
    return int(mine.actual[inside].sum()) - int(mine.without[inside].sum())


def trials_table(conversions: Conversions, people: People, media: Media) -> pd.DataFrame:
    """Truth per experiment: experiment, kind, channel, incremental (signed), spend_delta (signed, EUR)."""
    return pd.DataFrame(
        [
            {
                "experiment": t.name,
                "kind": t.kind,
                "channel": CHANNELS[t.channel],
                "incremental": trial_effect(conversions, people, t),
                "spend_delta": round(treated_spend_delta(t, media, people), 2),
            }
            for t in media.tests
        ]
    )
