"""Levels of one block: the same bounded vectors summed over geos, a quarter total with a bound of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from contracts.errors import ConfigError, ContractError
from privacy.bounds import Bound
from privacy.hierarchy import consistent
from privacy.measure_policies import LevelPolicy
from privacy.plan import plan_releases, release_keys
from privacy.policy import PrivacyPolicy
from privacy.room import read_release

Q1 = "quarter-2024-01-01"
REGIONS = {"main": ("north", "south")}
TIGHT = PrivacyPolicy(
    shares={"kpi": 0.4, "levels": 0.4},
    kpi={"conversions": Bound(1.5, 0.6), "revenue": Bound(20, 0.3), "active_users": Bound(2, 0.1)},
    levels=LevelPolicy(REGIONS),
)


def crowd(make_event):  # type: ignore[no-untyped-def]
    """People in three cohorts, some far beyond the bounds."""
    rng = np.random.default_rng(2)
    rows = []
    for person in range(40):
        geo = ("north", "south", "atlantis")[person % 3]
        for i in range(1 + person % 7 * 3):
            when = f"2024-0{rng.integers(1, 4)}-{rng.integers(1, 28):02}T{i:02}:00:00Z"
            rows.append(make_event(f"p{person}", i, when, "conversion", geo=geo, value="7.5", currency="USD"))
    return rows


def cube(world, inputs):  # type: ignore[no-untyped-def]
    """Vector -> units of the first quarter, of kpi and of levels."""
    exact = world.exact(inputs)
    return {n: u for (m, n), u in exact.items() if m in (f"kpi {Q1}", f"levels {Q1}")}


def test_areas_are_sums_of_the_same_bounded_vectors(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    policy = replace(TIGHT, levels=LevelPolicy({"lower": ("south",), "upper": ("north",)}))
    here = world(policy=policy, question=make_question(**no_trial))
    found = cube(here, here.inputs(here.write(crowd(make_event))))
    for metric in ("conversions", "revenue", "active_users"):
        geos = found[metric].reshape(3, 13)  # north, south, other
        assert geos[2].sum() > 0
        assert np.array_equal(found[f"nation:{metric}"], geos.sum(axis=0)), "to the unit: one bounding, another sum"
        assert np.array_equal(found[f"region:{metric}"].reshape(2, 13), geos[[1, 0]]), "'other' is in no region"


def test_a_quarter_total_has_a_bound_of_its_own(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    """Ann buys once in each of five weeks: the weekly vector has norm sqrt(5) > 1.5, her total is clipped to 3."""
    rows = [make_event("ann", i, f"2024-0{1 + i // 4}-{1 + 7 * (i % 4):02}", "conversion") for i in range(5)]
    rows.append(make_event("bob", 1, "2024-01-02", "conversion", geo="south"))
    here = world(policy=TIGHT, question=make_question(**no_trial))
    inputs = here.inputs(here.write(rows))
    plan = next(p for p in plan_releases(here.question, TIGHT) if p.measure == "levels" and p.blocks[0] == Q1)
    keys = release_keys(plan, here.question, TIGHT)["quarter:conversions"]
    units = dict(zip(keys["area"], cube(here, inputs)["quarter:conversions"], strict=True))
    assert units == {"north": 3_000_000, "south": 1_000_000, "other": 0}
    assert keys["week"].tolist() == [None] * 3
    assert "quarter:active_users" not in {v.name for v in plan.vectors}


def test_every_level_has_the_sensitivity_of_kpi_and_its_own_price(make_question, no_trial) -> None:  # type: ignore[no-untyped-def]
    plans = {p.measure: p for p in plan_releases(make_question(**no_trial), TIGHT) if p.blocks[0] == Q1}
    kpi = {v.name: v.bound_units for v in plans["kpi"].vectors}
    for v in plans["levels"].vectors:
        level, metric = v.name.split(":")
        assert v.bound_units == kpi[metric] * (2 if level == "quarter" else 1)
        assert v.cells == {"region": 13, "nation": 13, "quarter": 3}[level]
    assert plans["levels"].nano <= TIGHT.share_nano("levels")


def test_released_levels_can_be_made_to_agree(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    """From two release files to one consistent table per week, with smaller variances than either."""
    regions = {"south": ("south",), "main": ("north", "other")}  # not in the order of the alphabet; one named as a geo
    policy = replace(TIGHT, levels=LevelPolicy(regions))
    here = world(policy=policy, question=make_question(**no_trial))
    paths = here.publish(here.inputs(here.write(crowd(make_event))))
    releases = {(r.measure, r.block): r for r in map(read_release, paths)}
    kpi, levels = releases["kpi", Q1], releases["levels", Q1]
    table = consistent(kpi, levels)
    assert len(table) == 3 * (3 + 2 + 1) * 13 and (table["consistent_variance"] < table["variance"]).all()
    for _, week in table.groupby(["metric", "week"]):
        found = week.set_index(["level", "area"])["consistent"]
        assert found["nation", "nation"] == pytest.approx(found["geo"].sum(), abs=1e-6)
        assert found["region", "main"] == pytest.approx(found["geo"][["north", "other"]].sum(), abs=1e-6)
        assert found["region", "south"] == pytest.approx(found["geo", "south"], abs=1e-6)
    raw = table[(table["level"] == "nation") & (table["metric"] == "revenue")]
    assert raw["value"].tolist() == levels.vector("nation:revenue")["value"].tolist(), "raw figures stay"
    with pytest.raises(ContractError, match=r"of one block are needed; got 'kpi' of .*04-01 and 'levels' of .*01-01"):
        consistent(releases["kpi", "quarter-2024-04-01"], levels)


def test_the_members_of_a_region_are_part_of_the_id(make_question, no_trial) -> None:  # type: ignore[no-untyped-def]
    question = make_question(**no_trial)
    other = replace(TIGHT, levels=LevelPolicy({"main": ("north",)}))
    ids = [{p.release_id for p in plan_releases(question, x) if p.measure == "levels"} for x in (TIGHT, other)]
    assert not ids[0] & ids[1]


def test_kpi_in_batches_is_refused(make_question, no_trial) -> None:  # type: ignore[no-untyped-def]
    weekly = replace(TIGHT, cadence={"kpi": "week", "journeys": "quarter"})
    question = make_question(**no_trial)
    with pytest.raises(ConfigError, match=r"privacy.shares.levels needs kpi in one batch a quarter"):
        plan_releases(question, weekly)


def test_an_unknown_geo_is_refused(make_question, no_trial) -> None:  # type: ignore[no-untyped-def]
    policy = replace(TIGHT, levels=LevelPolicy({"sea": ("atlantis",)}))
    with pytest.raises(ConfigError, match=r"levels.regions.sea names the geo 'atlantis', .* are north, south, other"):
        plan_releases(make_question(**no_trial), policy)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"regions": {"a": ("x",), "b": ("x",)}}, r"'x' is in 'a' and again in 'b'; a person counts in one region"),
        ({"regions": {"a": ()}}, r"privacy.levels.regions.a names no geo"),
        ({"nation": 0.9}, r"privacy.levels.\* must add up to 1 at most; got 1.5"),
        ({"quarter_bounds": 0}, r"privacy.levels.quarter_bounds must lie between 1 and 14; got 0"),
    ],
)
def test_a_fault_of_the_policy_names_its_key(changes, sentence) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=sentence):
        LevelPolicy(**changes)
