"""Scenarios, comments, approvals and tokens in an open transaction; and what a saved plan costs and brings."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import app_sample_warehouse as sample
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import scenario
from app.draws import response_id
from app.saved import database, pricing, remarks, scenarios
from app.saved.scenarios import Pricing
from app.store import Snapshot
from contracts.errors import ContractError
from planning.surface import held

NOW = scenario.current(sample.surface())


@pytest.fixture
def con(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with database.writing(tmp_path / "state.sqlite") as connection:
        yield connection


@pytest.fixture
def priced(snapshot: Callable[[str], Snapshot]) -> Pricing:
    plan = NOW * np.array([1.0, 0.8, 1.2, 1.0, 0.0])
    return pricing.price(snapshot("full"), dict(zip(sample.CHANNELS, plan.tolist(), strict=True)))


def test_a_scenario_comes_back_as_it_was_saved(con: sqlite3.Connection, priced: Pricing) -> None:
    saved = scenarios.create(con, "  Push ", "ana", "why\nand how", priced)
    back = scenarios.get(con, saved.id)
    assert (back.name, back.note, back.author, back.version) == ("Push", "why\nand how", "ana", 1)
    pd.testing.assert_frame_equal(back.pricing.channels, priced.channels)
    pd.testing.assert_frame_equal(back.pricing.cells, priced.cells)
    plain = [f.name for f in dataclasses.fields(Pricing) if f.name not in ("channels", "cells")]
    assert [getattr(back.pricing, n) for n in plain] == [getattr(priced, n) for n in plain]


def test_the_plan_is_that_of_the_page_and_cells_add_up_to_it(priced: Pricing) -> None:
    assert priced.plan == pytest.approx(dict(zip(sample.CHANNELS, NOW * [1.0, 0.8, 1.2, 1.0, 0.0], strict=True)))
    assert (priced.period_start, priced.period_end, priced.periods) == (date(2026, 7, 6), date(2026, 10, 4), 13)
    assert priced.budget == pytest.approx(priced.channels["spend"].sum() / 13)
    assert len(priced.cells) == 13 * len(sample.GEOS) * len(sample.CHANNELS)
    for column, whole in (("spend", "spend"), ("mean", "within")):
        cells = priced.cells.groupby("channel")[column].sum()
        assert cells.tolist() == pytest.approx(priced.channels.set_index("channel")[whole].sort_index().tolist())
    assert (priced.channels["within"] + priced.channels["beyond"]).tolist() == pytest.approx(priced.channels["mean"])
    page = scenario.compare(sample.surface(), NOW * np.array([1.0, 0.8, 1.2, 1.0, 0.0]))
    for name in ("mean", "p05", "p95"):
        assert priced.total[name] == pytest.approx(13 * getattr(page.planned, name))


def test_nothing_is_priced_without_a_model(snapshot: Callable[[str], Snapshot]) -> None:
    with pytest.raises(ContractError, match="needs a published model; there is none, so nothing was saved"):
        pricing.price(snapshot("released_only"), {})


def test_a_saved_plan_is_priced_again_as_it_lies_in_time_and_space(
    con: sqlite3.Connection, priced: Pricing, snapshot: Callable[[str], Snapshot]
) -> None:
    s, here = snapshot("full"), sample.surface()
    spend = held(here, NOW)
    spend[:3] *= 2.0
    spend[:, 0] = 0.0
    flighted = pricing.price(s, spend)
    saved = scenarios.create(con, "Burst", "ana", "", flighted)
    again = pricing.reprice(s, scenarios.get(con, saved.id))
    pd.testing.assert_frame_equal(again.cells, flighted.cells)
    assert again.total == pytest.approx(flighted.total)


def test_a_plan_whose_period_has_begun_is_not_priced_again(
    con: sqlite3.Connection, priced: Pricing, snapshot: Callable[[str], Snapshot]
) -> None:
    past = dataclasses.replace(priced, period_start=date(2026, 1, 5), period_end=date(2026, 4, 5))
    saved = scenarios.create(con, "Old", "ana", "", past)
    with pytest.raises(ContractError, match="starts on 2026-01-05, before the history ends; start on 2026-07-06"):
        pricing.reprice(snapshot("full"), saved)


def test_a_locked_channel_does_not_move(
    con: sqlite3.Connection, priced: Pricing, snapshot: Callable[[str], Snapshot]
) -> None:
    one = scenarios.create(con, "Push", "ana", "", priced)
    two = scenarios.lock(con, one.id, 1, "ana", ["tv"])
    assert scenarios.get(con, one.id).locked == ("tv",) and scenarios.get(con, one.id, 1).locked == ()
    plan = dict(priced.plan)
    more_search = pricing.price(snapshot("full"), plan | {"search": 2 * plan["search"]})
    three = scenarios.save(con, one.id, two.version, "ana", "", more_search)
    assert three.locked == ("tv",)
    with pytest.raises(ContractError, match="channel 'tv' of scenario 'Push' is locked"):
        scenarios.save(con, one.id, 3, "ana", "", pricing.price(snapshot("full"), plan | {"tv": 1.0}))
    with pytest.raises(ContractError, match="has no channel 'radio' to lock"):
        scenarios.lock(con, one.id, 3, "ana", ["radio"])
    assert scenarios.by_name(con, " push ").version == 3
    with pytest.raises(ContractError, match="there is no saved scenario 'Pull'; there are 'Push'"):
        scenarios.by_name(con, "Pull")


def test_only_an_approved_newest_version_is_the_plan_of_record(con: sqlite3.Connection, priced: Pricing) -> None:
    one = scenarios.create(con, "Push", "ana", "", priced)
    with pytest.raises(ContractError, match="version 1 of scenario 'Push' is not approved"):
        remarks.record(con, one.id, 1, "it is time", "cfo")
    remarks.decide(con, one.id, 1, "approved", "fits the quarter", "cfo")
    remarks.record(con, one.id, 1, "it is time", "cfo")
    found = remarks.of_record(con)
    assert found is not None and (found.scenario_id, found.version, found.author) == (one.id, 1, "cfo")
    scenarios.rename(con, one.id, 1, "ana", "Push more")
    with pytest.raises(ContractError, match="not the newest \\(2\\)"):
        remarks.record(con, one.id, 1, "again", "cfo")


def test_every_change_is_a_version_and_old_ones_stay(con: sqlite3.Connection, priced: Pricing) -> None:
    one = scenarios.create(con, "Push", "ana", "", priced)
    two = scenarios.rename(con, one.id, 1, "bo", "Push more")
    more = dataclasses.replace(priced, budget=priced.budget + 1)
    three = scenarios.save(con, one.id, two.version, "cy", "note", more)
    assert [(s.name, s.version, s.author) for s in (two, three)] == [("Push more", 2, "bo"), ("Push more", 3, "cy")]
    assert scenarios.get(con, one.id, 1).name == "Push"
    assert scenarios.get(con, one.id, 1).pricing.budget == priced.budget
    assert len(scenarios.get(con, one.id, 2).pricing.cells) == len(priced.cells)
    with pytest.raises(ContractError, match="has no version 4; its newest is 3"):
        scenarios.get(con, one.id, 4)
    scenarios.create(con, "Push", "bo", "", priced)  # the old name is free again
    assert [e.name for e in scenarios.entries(con)] == ["Push", "Push more"]


@pytest.mark.parametrize("change", ["save", "rename", "archive"])
def test_a_stale_version_is_refused(con: sqlite3.Connection, priced: Pricing, change: str) -> None:
    one = scenarios.create(con, "Push", "ana", "", priced)
    scenarios.rename(con, one.id, 1, "bo", "Push more")
    calls = {
        "save": lambda: scenarios.save(con, one.id, 1, "ana", "", priced),
        "rename": lambda: scenarios.rename(con, one.id, 1, "ana", "Mine"),
        "archive": lambda: scenarios.archive(con, one.id, 1, "ana"),
    }
    with pytest.raises(ContractError, match="changed meanwhile by bo \\(version 2, you saw 1\\)"):
        calls[change]()
    assert scenarios.get(con, one.id).version == 2


def test_the_deleted_are_off_the_list_and_can_be_read_by_version(con: sqlite3.Connection, priced: Pricing) -> None:
    one = scenarios.create(con, "Push", "ana", "", priced)
    scenarios.archive(con, one.id, 1, "bo")
    assert scenarios.entries(con) == scenarios.every(con) == ()
    with pytest.raises(ContractError, match="has been deleted meanwhile"):
        scenarios.rename(con, one.id, 2, "ana", "Back")
    assert scenarios.get(con, one.id, 1).status == "saved"
    assert scenarios.get(con, one.id, 2).status == "archived"
    assert scenarios.create(con, "push", "bo", "", priced).version == 1, "the name is free again"
    with pytest.raises(sqlite3.IntegrityError, match="never deleted"):
        con.execute("DELETE FROM scenarios")


def test_other_money_or_another_kpi_is_refused(con: sqlite3.Connection, priced: Pricing) -> None:
    one = scenarios.create(con, "Push", "ana", "", priced)
    for change, sentence in (({"currency": "USD"}, "counted in EUR"), ({"kpi": "sales"}, "counted in conversions")):
        with pytest.raises(ContractError, match=sentence):
            scenarios.save(con, one.id, 1, "ana", "", dataclasses.replace(priced, **change))


def test_copies_never_collide(con: sqlite3.Connection, priced: Pricing) -> None:
    one = scenarios.create(con, "x" * scenarios.MAX_NAME, "ana", "", priced)
    made = [scenarios.duplicate(con, one.id, "bo").name for _ in range(3)]
    assert len({*made}) == 3 and all(len(name) <= scenarios.MAX_NAME for name in made)
    assert made[1].endswith(" (copy 2)")


@given(st.text(max_size=90))
def test_a_name_is_stored_clean_or_refused_in_words(text: str) -> None:
    try:
        name = scenarios.clean_name(text)
    except ContractError as error:
        assert str(error).endswith((".", "text."))
    else:
        assert name == name.strip() and 1 <= len(name) <= scenarios.MAX_NAME
        assert name.casefold() not in ("current", "recommended")
        assert "\n" not in name


def test_the_same_draws_have_the_same_name_and_others_another(snapshot: Callable[[str], Snapshot]) -> None:
    s, response = snapshot("full"), sample.surface().response
    name = response_id(response, s.period)
    assert pricing.fit_id(s) == name and pricing.fit_id(snapshot("released_only")) == ""
    other = response.retention.copy()
    other[0, 0] = np.nextafter(other[0, 0], np.inf)
    assert response_id(dataclasses.replace(response, retention=other), s.period) != name
    assert response_id(response, dataclasses.replace(sample.PERIOD, assumptions={"demand": 1.1}).to_json()) != name


def test_a_plan_opens_beside_another_fit_only_where_its_channels_are_known(
    con: sqlite3.Connection, priced: Pricing, snapshot: Callable[[str], Snapshot]
) -> None:
    s = snapshot("full")
    saved = scenarios.create(con, "Push", "ana", "", priced)
    plan, lacking = pricing.plan_for(s, saved)
    assert plan == pytest.approx(NOW * [1.0, 0.8, 1.2, 1.0, 0.0]) and lacking == ()

    def renamed(channel: str, to: str) -> scenarios.Saved:
        frame = priced.channels.replace({"channel": {channel: to}})
        return dataclasses.replace(saved, pricing=dataclasses.replace(priced, channels=frame))

    with pytest.raises(ContractError, match="spends on 'radio', which the model no longer knows"):
        pricing.plan_for(s, renamed("tv", "radio"))
    plan, lacking = pricing.plan_for(s, renamed("video", "radio"))  # nothing was planned for it
    assert lacking == ("video",) and plan[4] == pytest.approx(NOW[4])
    with pytest.raises(ContractError, match="a spend for 'radio', unknown now"):
        pricing.reprice(s, renamed("video", "radio"))


def test_comments_are_kept_in_order_and_need_a_subject(con: sqlite3.Connection, priced: Pricing) -> None:
    one = scenarios.create(con, "Push", "ana", "", priced)
    for text in ("first", "second\nline"):
        remarks.comment(con, "scenario", one.id, "bo", text)
    remarks.comment(con, "channel", "tv", "bo", "odd")
    assert [c.text for c in remarks.comments(con, "scenario", one.id)] == ["first", "second\nline"]
    assert len(remarks.comments(con)) == 3
    assert [e.comments for e in scenarios.entries(con)] == [2]
    with pytest.raises(ContractError, match="there is no scenario 'sc-0'"):
        remarks.comment(con, "scenario", "sc-0", "bo", "x")
    with pytest.raises(ContractError, match="must be one of scenario, channel, experiment, run; got 'person'"):
        remarks.comment(con, "person", "7", "bo", "x")
    with pytest.raises(ContractError, match="a comment is empty"):
        remarks.comment(con, "channel", "tv", "bo", " ")


def test_a_decision_is_on_one_version_with_a_reason(con: sqlite3.Connection, priced: Pricing) -> None:
    one = scenarios.create(con, "Push", "ana", "", priced)
    made = remarks.decide(con, one.id, 1, "approved", "within budget", "cfo")
    assert remarks.approvals(con, one.id) == (made,)
    with pytest.raises(ContractError, match="the reason of a decision is empty"):
        remarks.decide(con, one.id, 1, "rejected", " ", "cfo")
    with pytest.raises(ContractError, match="must be one of approved, rejected; got 'maybe'"):
        remarks.decide(con, one.id, 1, "maybe", "x", "cfo")
    scenarios.rename(con, one.id, 1, "ana", "Push more")
    with pytest.raises(ContractError, match="was changed meanwhile \\(version 2, you saw 1\\)"):
        remarks.decide(con, one.id, 1, "approved", "x", "cfo")
    assert remarks.approvals(con) == (made,)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        con.execute("UPDATE approvals SET decision = 'rejected'")


def test_of_a_token_only_the_hash_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with database.writing(path) as con:
        token, secret = remarks.create_token(con, "ci", ["read", "read"])
        assert remarks.find_token(con, secret) == token and token.scopes == ("read",)
        assert remarks.find_token(con, secret + "x") is None
        with pytest.raises(ContractError, match="there is a token 'ci' already"):
            remarks.create_token(con, "ci", ["read"])
        with pytest.raises(ContractError, match="must be one of read, comment, plan, approve; got 'admin'"):
            remarks.create_token(con, "other", ["admin"])
        with pytest.raises(ContractError, match="at least one scope"):
            remarks.create_token(con, "other", [])
    shutil.copyfile(path, tmp_path / "copy")
    assert secret.encode() not in (tmp_path / "copy").read_bytes()
    with database.writing(path) as con:
        remarks.revoke_token(con, "ci")
        assert remarks.find_token(con, secret) is None
        assert [t.revoked_at is None for t in remarks.tokens(con)] == [False]
        _, again = remarks.create_token(con, "ci", ["plan"])
        assert again != secret
        with pytest.raises(ContractError, match="there is no token 'old' to revoke"):
            remarks.revoke_token(con, "old")
