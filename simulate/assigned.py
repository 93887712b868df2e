"""What an experimenter may know of each person in the holdout beyond the arm: exposure, stratum, covariate, entry.

Exposure is told for both arms alike, as ghost ads log it: a person is exposed when the channel caused, or in the
exposed arm would have caused, at least one conversion of theirs in the window, and else by chance. For the exposed arm
the caused conversions are the world's; for the control arm those that the holdout took away are drawn from the rate
that it took away. So exposure is independent of the arm, and the test does nothing to people who are not exposed.
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd

from simulate.media import Media, Trial
from simulate.outcomes import Conversions
from simulate.people import CONTROL, EXPOSED, People

BY_CHANCE = 0.35  # share of the others who are exposed all the same
STRATA = ("light", "heavy")


def known_of_people(
    rng: np.random.Generator, people: People, trial: Trial, media: Media, conversions: Conversions, start: date
) -> pd.DataFrame:
    """stratum, covariate, exposed, entered, consent: one row a person, in the order of the people."""
    begin, stop = trial.start_date(start), trial.end_date(start)
    days = rng.integers(0, (stop - begin).days + 1, people.size)
    caused = _caused(people, trial, conversions) + _taken_away(rng, people, trial, media)
    return pd.DataFrame(
        {
            "stratum": np.array(STRATA)[(people.intent > np.median(people.intent)).astype(int)],
            "covariate": rng.poisson(1.5 * people.intent),  # orders of the year before, say
            "exposed": (caused > 0) | (rng.random(people.size) < BY_CHANCE),
            "entered": [(begin + timedelta(days=int(d))).isoformat() for d in days],
            "consent": people.consent,
        }
    )


def _caused(people: People, trial: Trial, conversions: Conversions) -> np.ndarray:
    """Conversions in the window that the channel really made, per person."""
    inside = (conversions.week >= trial.begin) & (conversions.week < trial.stop) & conversions.actual
    mine = inside & (conversions.cause == trial.channel)
    return np.bincount(conversions.person[mine], minlength=people.size)


def _taken_away(rng: np.random.Generator, people: People, trial: Trial, media: Media) -> np.ndarray:
    """Conversions that control people would have had from the channel, per person; 0 in the exposed arm."""
    window = slice(trial.begin, trial.stop)
    pressure = media.pressure[trial.channel, :, :, window]
    lost = np.maximum(pressure[:, EXPOSED] - pressure[:, CONTROL], 0.0).sum(axis=-1)
    rate = people.susceptibility[trial.channel] * lost[people.geo] * (people.arm == CONTROL)
    return rng.poisson(rate)
