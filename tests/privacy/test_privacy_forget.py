"""Deletion of a person: every later load, the quarantine, and an honest answer about what is not ours to delete."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import InputError, PrivacyError
from privacy.forget import forget_person, list_beside, read_forgotten
from privacy.load import LoadSettings, load_people
from privacy.rawzone import RawZone
from privacy.room import FileSet, PeopleInputs, read_quarantine

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = b"a secret of thirty-two bytes, ok"


@pytest.fixture
def here(world, make_question, no_trial):  # type: ignore[no-untyped-def]
    return world(question=make_question(**no_trial), max_rejected=1.0)


def forget(here, inputs: PeopleInputs, name: str):  # type: ignore[no-untyped-def]
    (here.root / ".plumb").mkdir(exist_ok=True)
    return forget_person(name, inputs, raw_dir=here.root / "raw", secret=SECRET, listed=listed(here), now=NOW)


def listed(here) -> Path:  # type: ignore[no-untyped-def]
    return list_beside(here.ledger.db)


def load(here, inputs: PeopleInputs) -> int:  # type: ignore[no-untyped-def]
    """People left after a load that knows the list."""
    where = LoadSettings(NOW, here.root / "raw", SECRET, 35, read_forgotten(listed(here), SECRET))
    with load_people(inputs, here.question, where) as people:
        row = people.con.execute("SELECT count(DISTINCT person) FROM presence").fetchone()
    assert row is not None
    return int(row[0])


def test_a_forgotten_person_is_as_if_never_there(here, make_event) -> None:  # type: ignore[no-untyped-def]
    others = [make_event(f"p{i}", i, "2024-01-02", "conversion", value="3", currency="USD") for i in range(5)]
    mine = [make_event("ann", i, "2024-02-02", "conversion", value="9", currency="USD") for i in range(4)]
    mine.append(make_event("ann", 9, "never"))
    inputs = here.inputs(here.write([*others, *mine]))
    assert load(here, inputs) == 6
    done = forget(here, inputs, "  ann ")
    assert load(here, inputs) == 5
    assert done.still_in == (here.root / "events.csv",) and not done.known_before
    assert done.partitions == ("quarantine/events/2026-01-01.sealed",)
    assert here.quarantined() == [], "and the next load sets nothing of theirs aside"
    again = forget(here, inputs, "ann")
    assert again.known_before and again.partitions == ()
    alone = here.inputs(here.write(others, "others.csv"))
    assert forget(here, alone, "ann").still_in == ()
    exact = {}
    for name, files in (("both", inputs), ("others", alone)):
        here.forgotten = read_forgotten(listed(here), SECRET)
        exact[name] = here.exact(files)
    assert all(np.array_equal(exact["both"][k], v) for k, v in exact["others"].items())


def test_the_release_after_it_does_not_read_them(here, make_event, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    import privacy.publish as module

    inputs = here.inputs(here.write([make_event("ann", 1, "2024-01-02"), make_event("bob", 1, "2024-01-02")]))
    forget(here, inputs, "ann")
    seen: list[frozenset[str]] = []
    real = module.load_people

    def spy(inputs, question, settings):  # type: ignore[no-untyped-def]
        seen.append(settings.forgotten)
        return real(inputs, question, settings)

    monkeypatch.setattr(module, "load_people", spy)
    here.publish(inputs)
    assert len(seen) == 1 and seen[0] == read_forgotten(listed(here), SECRET) and len(seen[0]) == 1


def test_only_their_rows_leave_the_quarantine(here, make_event) -> None:  # type: ignore[no-untyped-def]
    rows = [
        make_event(p, i, "never", channel='odd "text", and, commas\nand lines')
        for i, p in enumerate(("ann", "bob", "annika"))
    ]
    path = here.write([*rows, make_event("x", 1, "2024-01-02")])
    with path.open("ab") as handle:
        handle.write(b"ann,too,few\r\nbob,too,few\r\n")
    inputs = here.inputs(path)
    load(here, inputs)
    assert len(here.quarantined()) == 5
    forget(here, inputs, "ann")
    text = b"".join(read_quarantine(here.root / "raw", SECRET, "events")).decode()
    assert "annika" in text and '""ann""' not in text and "ann,too,few" not in text and "bob,too,few" in text
    assert len(here.quarantined()) == 3
    zone = RawZone.of(here.root / "raw", SECRET)
    assert [e["why"] for e in zone.vault.entries(zone.deletions)] == ["rows of a forgotten person"]
    plain = listed(here).read_bytes() + zone.deletions.read_bytes()
    assert b"ann" not in plain and b"keys" not in plain


def test_a_person_is_forgotten_with_all_devices_even_after_the_map_is_gone(here, make_event) -> None:  # type: ignore[no-untyped-def]
    events = here.write([make_event(p, 1, "2024-01-02") for p in ("phone", "tablet", "ann", "bob")])
    links = here.write([{"device_id": "phone", "person_id": "ann"}, {"device_id": "tablet", "person_id": "ann"}],
                       "map.csv", ("device_id", "person_id"))  # fmt: skip
    inputs = here.inputs(events, identity=FileSet((links,)))
    assert load(here, inputs) == 2
    done = forget(here, inputs, "phone")
    assert load(here, inputs) == 1 and load(here, here.inputs(events)) == 1
    assert done.still_in == (events, links)


def test_faults_are_sentences(here, make_event) -> None:  # type: ignore[no-untyped-def]
    inputs = here.inputs(here.write([make_event("ann", 1, "2024-01-02")]))
    for nobody in ("", "  ", "NaN"):
        with pytest.raises(InputError, match="the user id is empty"):
            forget(here, inputs, nobody)
    forget(here, inputs, "ann")
    with pytest.raises(PrivacyError, match=r"forgotten\.sealed does not open"):
        read_forgotten(listed(here), b"another secret of enough bytes..")
