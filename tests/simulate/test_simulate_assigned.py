"""What the experimenter knows of people: exposure is the same in both arms and holds every caused conversion."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from simulate.assigned import STRATA, known_of_people
from simulate.people import CONTROL, EXPOSED
from simulate.world import build, simulate

START = date(2024, 1, 1)


def test_exposure_does_not_depend_on_the_arm_and_holds_what_the_channel_caused() -> None:
    """Shares of 20,000 people an arm: 4 sd of their difference is 0.02; seeds are fixed."""
    world = build(people=40_000, geos=4, weeks=39, seed=11, start=START)
    trial = next(t for t in world.media.tests if t.kind == "user")
    rng = np.random.default_rng(1)
    known = known_of_people(rng, world.people, trial, world.media, world.conversions, START)
    exposed = known["exposed"].to_numpy()
    share = [exposed[world.people.arm == a].mean() for a in (CONTROL, EXPOSED)]
    assert abs(share[0] - share[1]) < 0.02 and 0.35 < share[0] < 0.6
    c = world.conversions
    mine = c.actual & (c.cause == trial.channel) & (c.week >= trial.begin) & (c.week < trial.stop)
    assert mine.any() and exposed[c.person[mine]].all()
    assert set(known["stratum"]) == set(STRATA)
    assert known["entered"].between(str(trial.start_date(START)), str(trial.end_date(START))).all()
    heavy = known.groupby("stratum")["covariate"].mean()
    assert heavy["heavy"] > 2 * heavy["light"]


def test_only_the_assignments_gain_columns(tmp_path: Path) -> None:
    for name, more in (("plain", False), ("known", True)):
        simulate(tmp_path / name, people=500, geos=4, weeks=26, seed=2, trial_columns=more)
    for path in sorted((tmp_path / "plain").glob("*.*")):
        if path.name != "assignments.csv":
            assert path.read_bytes() == (tmp_path / "known" / path.name).read_bytes(), path.name
    plain, known = (pd.read_csv(tmp_path / n / "assignments.csv") for n in ("plain", "known"))
    pd.testing.assert_frame_equal(plain, known[plain.columns])
    assert list(known.columns[3:]) == ["stratum", "covariate", "exposed", "entered", "consent"]
