"""One synthetic world, written as the files that a team would have, and, apart, the truth.

A customer base of observed people lives in geos of unequal size. Orders come from personal intent, moved by trend,
season, price, promotions and shocks, and from five channels whose spend partly follows demand. High-intent people see
far more search and retargeting, often just before they buy anyway, so credit and cause differ. docs/simulator.md has
the equations, `simulate.params.RANGES` the ranges, truth/world.json what one seed drew.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simulate import files, touches
from simulate.assigned import known_of_people
from simulate.credit import CreditPlan, credit_table, plan_credit
from simulate.demand import Demand, make_demand
from simulate.media import Media, kernel, make_media
from simulate.outcomes import (
    Conversions,
    base_rate,
    effects_table,
    make_conversions,
    totals_table,
    trials_table,
)
from simulate.params import CHANNELS, RANGES, WorldDraw, check_sizes, draw_world
from simulate.people import People, make_people

INVALID_SHARE = 0.01
REPEATED_SHARE = 0.002  # client and server copies of one event
ORGANIC_PER_PERSON_WEEK = 0.09
# Each part of the world has its own random stream, so that a change in one leaves the draws of the others alone.
_STREAMS = ("parameters", "demand", "people", "media", "outcomes", "touches", "files", "assigned")


@dataclass(frozen=True, slots=True)
class World:
    """Everything about one world, with the causes that no file holds."""

    seed: int
    start: date
    weeks: int
    names: tuple[str, ...]
    draw: WorldDraw
    demand: Demand
    people: People
    media: Media
    base: np.ndarray  # (geo, 2, week) baseline conversions per unit of intent
    conversions: Conversions  # of the actual world and of the worlds without an experiment
    credit_plan: CreditPlan

    @property
    def happened(self) -> Conversions:
        """The conversions of the actual world."""
        return self.conversions.take(self.conversions.actual)


@dataclass(frozen=True, slots=True)
class Truth:
    """What the measured estimates are compared with; all counts are realised ones of consenting people."""

    effects: pd.DataFrame  # geo, week, channel, incremental
    totals: pd.DataFrame  # channel, incremental, incremental_revenue, spend
    experiments: pd.DataFrame  # experiment, kind, channel, incremental, spend_delta
    credit: pd.DataFrame  # channel, last_touch_30d, last_touch_90d
    world: dict[str, Any]  # every drawn parameter


def _streams(seed: int) -> dict[str, np.random.Generator]:
    return {name: np.random.default_rng([seed, i]) for i, name in enumerate(_STREAMS)}


def build(*, people: int, geos: int, weeks: int, seed: int, start: date) -> World:
    """Draws a world up to its conversions, without touches and files. Raises ValueError as `simulate` does."""
    check_sizes(people, geos, weeks, seed)
    if start.weekday() != 0:
        raise ValueError(f"start must be a Monday; got {start.isoformat()}, a {start.strftime('%A')}.")
    rng = _streams(seed)
    draw = draw_world(rng["parameters"])
    demand = make_demand(rng["demand"], draw.scalars, start=start, geos=geos, weeks=weeks)
    crowd = make_people(rng["people"], draw.scalars, people=people, geos=geos)
    expected = draw.scalars["conversions_per_person_week"] * people * weeks
    media = make_media(rng["media"], draw, demand, crowd, expected)
    base = base_rate(draw, demand, crowd, expected)
    return World(
        seed=seed,
        start=start,
        weeks=weeks,
        names=tuple(files.geo_names(geos)),
        draw=draw,
        demand=demand,
        people=crowd,
        media=media,
        base=base,
        conversions=make_conversions(rng["outcomes"], draw, base, media, crowd),
        credit_plan=plan_credit(draw, crowd),
    )


def log_events(world: World) -> tuple[touches.Events, np.ndarray]:
    """The event log and a mask of its valid rows; invalid ones come last."""
    rng = _streams(world.seed)["touches"]
    happened = world.happened
    ts = touches.times(rng, happened.week)
    people, media, plan = world.people, world.media, world.credit_plan
    real = touches.concat(
        [
            *touches.around_conversions(rng, media, people, plan, happened, ts),
            touches.background(rng, media, people, plan, world.draw.scalars["touches_per_person_week"]),
            touches.organic(rng, people, world.weeks, ORGANIC_PER_PERSON_WEEK),
        ]
    )
    bots = touches.invalid(rng, real, INVALID_SHARE)
    valid = np.arange(len(real.person) + len(bots.person)) < len(real.person)
    return touches.concat([real, bots]), valid


def describe(world: World) -> dict[str, Any]:
    """Every drawn parameter, the ranges and the expected figures, as plain JSON values."""
    draw, media, people = world.draw, world.media, world.people
    return {
        "seed": world.seed,
        "start": world.start.isoformat(),
        "people": people.size,
        "weeks": world.weeks,
        "geos": dict(zip(world.names, people.per_geo.tolist(), strict=True)),
        "channels": [
            asdict(c)
            | {
                "beta": float(media.beta[i]),
                "kernel": kernel(c).tolist(),
                "geo_effect": dict(zip(world.names, media.geo_effect[i].tolist(), strict=True)),
                "planned_spend": round(float(media.planned[i].sum()), 2),
            }
            for i, c in enumerate(draw.channels)
        ],
        "scalars": draw.scalars,
        "credit": {
            "target_ratio": dict(zip(CHANNELS[:2], draw.credit_targets, strict=True)),
            "addressable": world.credit_plan.addressable,
            "direct": world.credit_plan.direct.tolist(),
            "intercept": world.credit_plan.intercept.tolist(),
            "background": world.credit_plan.background.tolist(),
        },
        "consent_share": float(people.consent.mean()),
        "experiments": [
            asdict(t) | {"channel": CHANNELS[t.channel], "treated": [world.names[g] for g in t.treated]}
            for t in media.tests
        ],
        "ranges": RANGES,
    }


def truth_of(world: World, events: touches.Events, valid: np.ndarray) -> Truth:
    """The truth tables of a world and its log."""
    happened, people = world.happened, world.people
    days = [world.start + timedelta(weeks=t) for t in range(world.weeks)]
    seen = events.take(valid & people.consent[events.person])
    converts = seen.event == touches.CONVERSION
    return Truth(
        effects=effects_table(happened, people, list(world.names), days),
        totals=totals_table(happened, people, world.media.spend),
        experiments=trials_table(world.conversions, people, world.media),
        credit=credit_table(seen.person, seen.ts, seen.channel, converts, touches.DAY),
        world=describe(world),
    )


def _write_inputs(out: Path, world: World, events: touches.Events, valid: np.ndarray, trial_columns: bool) -> None:
    rng = _streams(world.seed)["files"]
    names, start = list(world.names), world.start
    size = len(events.person)
    repeated = rng.choice(size, size=max(1, round(REPEATED_SHARE * size)), replace=False)
    files.write_events(out / "events.parquet", events, valid, world.people, names, start, repeated)
    noise = 0.1 * rng.standard_normal(world.media.spend.shape)
    files.spend_table(world.media, names, start, noise).to_csv(out / "spend.csv", index=False)
    files.controls_table(world.demand, world.people, names, start).to_csv(out / "controls.csv", index=False)
    holdout = next(t for t in world.media.tests if t.kind == "user")
    known = None
    if trial_columns:
        own = _streams(world.seed)["assigned"]
        known = known_of_people(own, world.people, holdout, world.media, world.conversions, start)
    files.assignments_table(world.people, holdout, known).to_csv(out / "assignments.csv", index=False)
    files.experiments_table(world.media, world.people, names, start).to_csv(out / "experiments.csv", index=False)


def _write_truth(folder: Path, truth: Truth) -> None:
    folder.mkdir(exist_ok=True)
    files.write_effects(folder / "effects.parquet", truth.effects)
    truth.totals.to_csv(folder / "effects_total.csv", index=False)
    truth.experiments.to_csv(folder / "experiments.csv", index=False)
    truth.credit.to_csv(folder / "credit.csv", index=False)
    (folder / "world.json").write_text(json.dumps(truth.world, indent=1) + "\n", encoding="utf-8")


def simulate(
    out: Path,
    *,
    people: int = 100_000,
    geos: int = 12,
    weeks: int = 78,
    seed: int = 0,
    start: date = date(2024, 1, 1),
    trial_columns: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> Truth:
    """Writes one world's input files into `out` and its truth into `out/truth`; returns the truth.

    `people` are observed customers (500 or more, 50 or more per geo), `geos` 4 or more, `weeks` 26 or more, `start`
    a Monday. The same arguments write the same tables. `progress`, if given, is called with the name of the part
    that starts and the share already done, and with ('done', 1.0) at the end. `trial_columns` adds to the assignments
    what a declared test can read (`simulate.assigned`); every other file stays the same.

    About 35 events a person over 78 weeks; 12 to 18 % of people without consent, 1 % invalid (bot) rows, 0.2 % exact
    copies. Each channel causes 2 to 12 % of conversions at an ROI between 0.3 and 5; every range is in
    `simulate.params.RANGES` and in truth/world.json. Raises ValueError for sizes that cannot hold the experiments
    or a start that is no Monday, and OSError when `out` cannot be written.
    """
    report = progress or (lambda part, share: None)
    report("people and conversions", 0.0)
    world = build(people=people, geos=geos, weeks=weeks, seed=seed, start=start)
    report("touches", 0.2)
    events, valid = log_events(world)
    report("truth", 0.5)
    truth = truth_of(world, events, valid)
    report("files", 0.6)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    _write_inputs(out, world, events, valid, trial_columns)
    _write_truth(out / "truth", truth)
    report("done", 1.0)
    return truth
