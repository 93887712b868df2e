"""Copies of one event: the server decides, clients fill what it left empty, contradictions go, order never matters."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privacy.copies import CONTRADICTION
from privacy.load import LoadSettings, load_people

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = b"a secret of thirty-two bytes, ok"
COLUMNS = ("event_id", "user_id", "ts", "event", "channel", "geo", "value", "currency", "consent", "valid", "source")
KIND, CHANNEL, GEO, MICROS = 4, 5, 6, 7


@pytest.fixture
def here(world, make_question, no_trial):  # type: ignore[no-untyped-def]
    return world(question=make_question(**no_trial), max_rejected=1.0)


def told(source: str, **more: Any) -> dict[str, Any]:
    """One copy of ann's first event."""
    row = {"event_id": "e1", "user_id": "ann", "ts": "2024-01-02T10:00:00", "event": "conversion", "geo": "north"}
    return row | {"consent": "true", "valid": "true", "source": source} | more


def loaded(here, rows: list[dict[str, Any]]) -> list[tuple[int, ...]]:  # type: ignore[no-untyped-def]
    """Rows of `events`: person, block, week, day, kind, channel, geo, micros, order."""
    inputs = here.inputs(here.write(rows, "events.csv", COLUMNS))
    with load_people(inputs, here.question, LoadSettings(NOW, here.root / "raw", SECRET)) as people:
        return list(people.con.execute("SELECT * EXCLUDE (seq) FROM events ORDER BY ALL").fetchall())


def test_the_server_decides_and_a_client_fills(here) -> None:  # type: ignore[no-untyped-def]
    server = told("server", value="20", currency="USD", channel="")
    client = told("client", ts="2024-01-09T10:00:00", value="99", currency="USD", channel="video", geo="south")
    first = loaded(here, [server, client])
    assert len(first) == 1 and here.quarantined() == []
    assert first[0][CHANNEL:] == (2, 0, 20_000_000), "the client's channel, the server's geo and value"
    assert first == loaded(here, [client, server])


def test_a_value_that_only_the_client_knows_counts(here) -> None:  # type: ignore[no-untyped-def]
    rows = [told("server"), told("client", value="7", currency="USD")]
    assert loaded(here, rows)[0][MICROS] == 7_000_000
    rows = [told("server", value="0"), told("client", value="7", currency="USD")]
    assert loaded(here, rows)[0][MICROS] == 0, "a zero of the server is its word, not silence"


def test_clients_that_disagree_fill_nothing(here) -> None:  # type: ignore[no-untyped-def]
    rows = [told("server", geo=""), told("client", channel="video"), told("client", channel="social", geo="south")]
    assert loaded(here, rows)[0][CHANNEL:GEO + 1] == (-1, 2), "no channel, geo 'other'"  # fmt: skip


@pytest.mark.parametrize("sources", [("server", "server"), ("client", "client"), ("", "client"), ("", "")])
def test_contradictions_of_equals_are_out_with_all_copies(here, sources) -> None:  # type: ignore[no-untyped-def]
    rows = [told(sources[0]), told(sources[1], geo="south"), told("client", channel="video")]
    assert loaded(here, rows) == []
    assert [r for _, r in here.quarantined()] == [CONTRADICTION] * 3


def test_a_refusal_in_any_copy_counts(here) -> None:  # type: ignore[no-untyped-def]
    """Even in the client's copy, which loses, and even in a copy that is malformed."""
    for other in (told("client", consent="false"), told("client", consent="false", event="??")):
        assert loaded(here, [told("server"), other]) == []
    later = told("server", event_id="e2", ts="2024-02-01", consent="true")
    assert len(loaded(here, [told("server"), told("client", consent="false"), later])) == 2, "a later yes counts again"


def test_batches_are_idempotent(here, make_event) -> None:  # type: ignore[no-untyped-def]
    """The same batch under another name, and overlapping batches, change nothing."""
    rows = [make_event(f"p{i % 4}", i, "2024-01-02", "conversion", value="3", currency="USD") for i in range(12)]
    once = here.exact(here.inputs(here.write(rows)))
    here.write(rows, "again/a.csv")
    here.write(rows[3:9], "again/b.jsonl")
    twice = here.exact(here.inputs(here.root / "again"))
    assert all((twice[key] == units).all() for key, units in once.items())


COPY = st.fixed_dictionaries(
    {
        "event_id": st.sampled_from(["e1", "e2"]),
        "user_id": st.sampled_from(["ann", "bob"]),
        "ts": st.sampled_from(["2024-01-02", "2024-02-03", "bad"]),
        "event": st.sampled_from(["visit", "conversion"]),
        "channel": st.sampled_from(["", "search", "video"]),
        "geo": st.sampled_from(["", "north"]),
        "value": st.sampled_from(["", "0", "5"]),
        "currency": st.just("USD"),
        "consent": st.sampled_from(["", "true", "false"]),
        "valid": st.sampled_from(["", "false"]),
        "source": st.sampled_from(["", "server", "client"]),
    }
)


@settings(max_examples=8, deadline=timedelta(seconds=20), suppress_health_check=list(HealthCheck))
@given(rows=st.lists(COPY, min_size=2, max_size=6), data=st.data())
def test_order_never_matters_and_people_never_meet(here, rows, data) -> None:  # type: ignore[no-untyped-def]
    def by_person(table: list[dict[str, Any]]) -> list[tuple[int, ...]]:
        return sorted(row[1:] for row in loaded(here, table)) if table else []

    whole = by_person(rows)
    assert whole == by_person(data.draw(st.permutations(rows)))
    alone = [by_person([r for r in rows if r["user_id"] == name]) for name in ("ann", "bob")]
    assert whole == sorted(itertools.chain(*alone)), "nobody's row changes another's"


def test_copies_of_two_people_with_one_event_id_stay_apart(here) -> None:  # type: ignore[no-untyped-def]
    ann, bob = told("client"), told("client", user_id="bob", geo="south")
    found = loaded(here, [ann, bob, ann, bob, told("server", user_id="bob", channel="video")])
    assert here.quarantined() == [] and [row[CHANNEL : GEO + 1] for row in sorted(found, key=lambda r: r[GEO])] == [
        (-1, 0), (2, 0),
    ], "bob's server copy decides over bob's geo and nothing of ann's"  # fmt: skip
