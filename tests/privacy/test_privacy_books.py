"""Attacks on the books (docs/privacy.md): ledger, head, stored releases, calendar, clock; as an operator could try."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from privacy_crowd import GRANT, plan
from privacy_worlds import NOW, World, event, question

from contracts.calendar import Block, blocks, weeks_between
from contracts.errors import BudgetExceeded, ConfigError, LedgerError, PrivacyError
from contracts.release import NANO
from privacy.audit import audit
from privacy.bounds import MICROS, MIN_UNITS, Bound
from privacy.chain import LedgerPaths
from privacy.ledger import open_ledger
from privacy.measure_policies import JourneyPolicy, TrialPolicy
from privacy.plan import plan_releases
from privacy.policy import PrivacyPolicy
from privacy.room import PeopleInputs, read_charges, read_release, verify_ledger

TEST = replace(question().experiments[0], end=date(2024, 3, 24))
ROWS = [event(f"p{i % 20}", i, f"2024-0{1 + i % 6}-{1 + i % 28:02}", ("visit", "click", "conversion")[i % 3],
              channel="search", value="20", currency="USD") for i in range(90)]  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The first quarter, published, with a user test in it."""
    whole = question()
    made = World(tmp_path_factory.mktemp("published"), replace(whole, blocks=whole.blocks[:1], experiments=(TEST,)))
    made.publish(files_of(made))
    return made


@pytest.fixture
def here(published: World, tmp_path: Path) -> World:
    """A copy that a test may attack."""
    shutil.copytree(published.root, tmp_path / "copy")
    return replace(published, root=tmp_path / "copy")


def files_of(here: World) -> PeopleInputs:
    people = [(f"p{i}", ("control", "treated")[i % 2]) for i in range(20)]
    return here.inputs(here.write(ROWS), here.groups(people) if here.question.experiments else None)


def spent(here: World) -> int:
    return round(float(read_charges(here.ledger)["rho"].sum()) * NANO)


def contents(here: World) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (here.root / "releases").iterdir()}


def refused(here: World, match: str, kind: type[Exception] = PrivacyError, **settings: Any) -> None:
    """A whole publication is refused, and neither a file nor a charge has moved."""
    before = contents(here)
    with pytest.raises(kind, match=match):
        here.publish(files_of(here), **settings)
    assert contents(here) == before


def test_the_same_release_id_again_returns_the_same_bytes(here: World) -> None:
    before, cost = contents(here), spent(here)
    for _ in range(2):
        here.publish(files_of(here), now=NOW + timedelta(days=1), run_id="another", actor="somebody else")
    assert contents(here) == before and spent(here) == cost


def test_an_old_ledger_put_back_under_todays_head_is_refused(here: World) -> None:
    shutil.copytree(here.root / ".plumb", here.root / "backup")
    here.question = question(experiments=(TEST,))
    here.publish(files_of(here))
    shutil.rmtree(here.root / ".plumb")
    (here.root / "backup").rename(here.root / ".plumb")
    refused(here, "is an older or another copy", LedgerError)


def put_back_with_its_head(here: World) -> str:
    """Publishes a second quarter and then puts ledger and head back as they were; returns the lost newest hash."""
    kept = here.root / "backup"
    for name in (".plumb", "config"):
        shutil.copytree(here.root / name, kept / name)
    here.question = question(experiments=(TEST,))
    here.publish(files_of(here))
    lost = str(json.loads(here.ledger.head.read_text())["hash"])
    for name in (".plumb", "config"):
        shutil.rmtree(here.root / name)
        (kept / name).rename(here.root / name)
    return lost


def test_an_old_ledger_put_back_with_its_head_is_met_by_the_releases_it_does_not_know(here: World) -> None:
    put_back_with_its_head(here)
    refused(here, "exists, but the ledger does not know that it was published", LedgerError)


def test_with_the_releases_gone_too_only_those_who_hold_a_copy_or_a_hash_can_tell(here: World, tmp_path: Path) -> None:
    """Not prevented: the operator holds every copy on the machine. A reader outside sees it."""
    lost = put_back_with_its_head(here)
    mine = set(read_charges(here.ledger)["release_id"])
    sent = []
    for path in (here.root / "releases").iterdir():
        if path.stem not in mine:
            sent.append(shutil.move(path, tmp_path / path.name))
    verify_ledger(here.ledger)  # nothing inside the workspace shows it
    settings: dict[str, Any] = {
        "ledger": here.ledger,
        "releases_dir": here.root / "releases",
        "plans": None,
        "now": NOW,
    }
    checks = audit((str(sent[0]),), witness=lost, **settings)
    assert {c.name for s in checks for c in s.checks if c.status == "fails"} == {"witness", "ledger"}


def test_without_its_head_or_without_both_nothing_is_released(here: World) -> None:
    head = here.ledger.head.read_text()
    here.ledger.head.unlink()
    refused(here, "which guards the ledger .* is missing", LedgerError)
    for path in here.ledger.db.parent.iterdir():
        path.unlink()
    refused(here, "the ledger does not know that it was published", LedgerError)
    here.ledger.head.write_text(head)
    for path in here.ledger.db.parent.iterdir():
        path.unlink()
    refused(here, "is missing, but .*head says that there was one", LedgerError)


def test_bounds_changed_between_releases_of_a_block_are_charged_or_refused(here: World) -> None:
    """One batch a quarter: refused, the share is spent. In batches: every one pays for the C that it states."""
    wide = dict(PrivacyPolicy().kpi) | {"conversions": Bound(3.0, 0.7)}
    here.policy = replace(here.policy, kpi=wide)
    refused(here, r"kpi has 0 of 0\.1 left", BudgetExceeded)
    fresh = World(here.root / "weekly", replace(here.question, experiments=(), arms={}))
    fresh.root.mkdir()
    weekly = replace(PrivacyPolicy(), cadence={"kpi": "week"}, shares={"kpi": 0.5})
    short = replace(fresh.question.blocks[0], weeks=fresh.question.blocks[0].weeks[:2], closed=False)
    fresh.policy, fresh.question = weekly, replace(fresh.question, blocks=(short,))
    first = fresh.publish(files_of(fresh))
    fresh.policy = replace(weekly, kpi=wide)
    second = fresh.publish(files_of(fresh))
    assert not {p.stem for p in first} & {p.stem for p in second}
    states = [read_release(p) for p in (*first, *second)]
    assert [r.vectors[0].l2_bound for r in states] == [2.0, 2.0, 3.0, 3.0]
    assert spent(fresh) == sum(r.metadata["nano_rho"] for r in states) <= weekly.share_nano("kpi")
    with pytest.raises(BudgetExceeded):
        for bound in np.linspace(3.1, 5.0, 12):
            fresh.policy = replace(weekly, kpi=wide | {"conversions": Bound(float(bound), 0.7)})
            fresh.publish(files_of(fresh))
    assert spent(fresh) <= weekly.share_nano("kpi")


def test_a_bound_too_small_to_count_anybody_is_refused_and_the_smallest_still_counts(here: World) -> None:
    tiny = MIN_UNITS / MICROS
    for make in (
        lambda c: PrivacyPolicy(kpi={"conversions": Bound(c, 0.5)}),
        lambda c: JourneyPolicy(flow=Bound(c, 0.3)),
        lambda c: TrialPolicy(conversions=c),
    ):
        with pytest.raises(ConfigError, match=r"must lie between 0\.004096 and"):
            make(tiny * 0.99)
        make(tiny)
    here.policy = PrivacyPolicy(
        kpi={n: Bound(tiny, b.share) for n, b in PrivacyPolicy().kpi.items()},
        journeys=JourneyPolicy(flow=Bound(tiny, 0.4), position=Bound(tiny, 0.3), position_value=Bound(tiny, 0.1),
                               sets=Bound(tiny, 0.2)),
        trials=TrialPolicy(tiny, tiny, tiny),
    )  # fmt: skip
    one = [event("ann", i, f"2024-02-{1 + i:02}", ("click", "conversion")[i % 2], channel="search", value="20",
                 currency="USD") for i in range(20)]  # fmt: skip
    found = here.exact(here.inputs(here.write(one), here.groups([("ann", "treated")])))
    bounds = {(f"{p.measure} {p.blocks[0]}", v.name): v.bound_units
              for p in plan_releases(here.question, here.policy) for v in p.vectors}  # fmt: skip
    for key, units in found.items():
        if not key[1].startswith("clipped") and not key[0].startswith("trials"):
            assert 0 < np.linalg.norm(units.astype(float)) <= bounds[key], key
            assert np.linalg.norm(units.astype(float)) > 0.5 * bounds[key], "rounding takes little of what C leaves"


def test_two_workspaces_with_one_secret_cannot_both_spend(tmp_path: Path) -> None:
    """One head stands for both: whoever charges first goes on, the other is refused before its charge."""
    head = tmp_path / "config" / "head"
    mine, theirs = LedgerPaths(tmp_path / "a" / "ledger", head), LedgerPaths(tmp_path / "b" / "ledger", head)
    with open_ledger(mine, NOW) as book:
        book.reserve(plan("r"), GRANT, NOW)
        with (
            pytest.raises(LedgerError, match="is missing, but .*head says that there was one"),
            open_ledger(theirs, NOW),
        ):
            pass
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # a copy of the whole workspace, both open at once
    with open_ledger(mine, NOW) as first, open_ledger(theirs, NOW) as second:
        first.reserve(plan("s"), GRANT, NOW)
        with pytest.raises(LedgerError, match="is an older or another copy"):
            second.reserve(plan("t"), GRANT, NOW)
        first.reserve(plan("u"), GRANT, NOW)
    assert list(read_charges(mine)["release_id"]) == ["r", "s", "u"]


def test_links_among_the_releases_are_refused(here: World, tmp_path: Path) -> None:
    path = next((here.root / "releases").iterdir())
    away = tmp_path / "elsewhere.parquet"
    path.rename(away)
    path.symlink_to(away)
    refused(here, "is not the file that the ledger committed", LedgerError)


def test_a_link_planted_before_a_release_is_replaced_and_its_target_untouched(here: World, tmp_path: Path) -> None:
    here.question = question(experiments=(TEST,))
    target = tmp_path / "precious"
    name = plan_releases(here.question, here.policy)[-2].release_id
    (here.root / "releases" / f"{name}.parquet").symlink_to(target)
    here.publish(files_of(here))
    made = here.root / "releases" / f"{name}.parquet"
    assert not target.exists() and not made.is_symlink() and read_release(made).release_id == name


def shrunk(here: World) -> dict[str, Any]:
    block = here.question.blocks[0]
    return {"blocks": (replace(block, weeks=block.weeks[:6]),)}


def cut_at_the_start(here: World) -> dict[str, Any]:
    block = here.question.blocks[0]
    return {"blocks": (replace(block, weeks=block.weeks[6:]),)}


def renamed_geo(here: World) -> dict[str, Any]:
    return {"geos": ("north", "sued")}


def renamed_channel(here: World) -> dict[str, Any]:
    return {"channels": ("search", "social", "tv")}


def renamed_test(here: World) -> dict[str, Any]:
    again = replace(here.question.experiments[0], name="holdout")
    return {"experiments": (replace(again, start=date(2024, 2, 6)),)}


@pytest.mark.parametrize("change", [shrunk, cut_at_the_start, renamed_geo, renamed_channel, renamed_test])
def test_a_question_put_in_other_words_finds_its_share_spent(here: World, change: Any) -> None:
    here.question = replace(here.question, experiments=(), **{"arms": {}} | change(here)) if change in (
        shrunk, cut_at_the_start) else replace(here.question, **change(here))  # fmt: skip
    refused(here, r"has 0 of .* left\. It was spent by", BudgetExceeded)


def other_quarters(first_month: int) -> tuple[Block, ...]:
    return blocks(weeks_between(date(2024, 1, 1), date(2024, 6, 24)), first_month)


@pytest.mark.parametrize("first_month", [2, 3])
def test_another_fiscal_year_gives_no_fresh_quarters(here: World, first_month: int) -> None:
    """The hole that this list found: quarters shifted by a month had names of their own, and grants of their own."""
    here.question = replace(here.question, blocks=other_quarters(first_month), experiments=(), arms={})
    refused(here, r"overlaps quarter-2024-01-01, .* project\.fiscal_year_start of plumb\.toml was another one then")
    assert spent(here) == 190_000_000


def test_another_week_or_time_zone_cannot_count_a_day_in_two_quarters(here: World) -> None:
    weeks = weeks_between(date(2023, 12, 31), date(2024, 6, 23))
    sundays = replace(here.question, week_start="sunday", blocks=blocks(weeks)[-1:], experiments=(), arms={})
    here.question, before = sundays, here.question
    refused(here, "a day at the edge of a quarter would be counted in two. Put it back")
    here.question = replace(before, blocks=question().blocks[1:], experiments=(), arms={})
    here.zone = "Asia/Tokyo"
    refused(here, "Asia/Tokyo.*a day at the edge of a quarter would be counted in two")
    here.zone = "UTC"
    here.publish(files_of(here))


def test_a_clock_set_back_frees_nothing_and_is_seen(here: World) -> None:
    cost, earlier = spent(here), NOW - timedelta(days=400)
    here.publish(files_of(here), now=earlier)
    assert spent(here) == cost
    here.question = question(experiments=(TEST,))
    here.publish(files_of(here), now=datetime(2025, 1, 1, tzinfo=NOW.tzinfo))
    verify_ledger(here.ledger)
    checks = audit((), ledger=here.ledger, releases_dir=here.root / "releases", plans=None, now=NOW)
    assert not any(s.failed for s in checks)
    assert [c.status for c in checks[0].checks if c.name == "clock"] == ["differs"]
