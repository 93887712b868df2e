"""Ids: one HMAC per id, a deterministic map, versioned by content, reversible, refused where it is not one answer."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.calendar import Block
from contracts.errors import InputError, PrivacyError, UserError
from privacy import event, identity
from privacy.identity import IdKey
from privacy.load import LoadSettings, load_people
from privacy.policy import PrivacyPolicy
from privacy.room import FileSet, PeopleInputs, read_charges, read_release
from privacy.sources import engine

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = b"a secret of thirty-two bytes, ok"
PAIRS = ("device_id", "person_id")


@pytest.fixture
def here(world, make_question, no_trial):  # type: ignore[no-untyped-def]
    return world(question=make_question(**no_trial), max_rejected=1.0)


def mapped(here, events: Path, pairs: list[tuple[str, str]], name: str = "map.csv") -> PeopleInputs:  # type: ignore[no-untyped-def]
    path = here.write([dict(zip(PAIRS, p, strict=True)) for p in pairs], name, PAIRS)
    return here.inputs(events, identity=FileSet((path,)))


def people_of(here, inputs: PeopleInputs) -> tuple[int, str, int]:  # type: ignore[no-untyped-def]
    """People, version of the map, events."""
    with load_people(inputs, here.question, LoadSettings(NOW, here.root / "raw", SECRET)) as people:
        row = people.con.execute("SELECT count(DISTINCT person), count(*) FROM events").fetchone()
        assert row is not None
        return row[0], people.identity, row[1]


@given(st.lists(st.text(min_size=1, max_size=200), min_size=1, max_size=20, unique=True))
@settings(max_examples=20, deadline=timedelta(seconds=20))
def test_the_engine_computes_hmac_sha256(ids: list[str]) -> None:
    con, key = engine(), IdKey.of(SECRET)
    identity.create_tables(con, key, frozenset())
    con.execute("CREATE TABLE seen AS SELECT unnest(?::VARCHAR[]) AS user_id", [ids])
    identity.learn(con, "seen", "user_id")
    found = dict(con.execute("SELECT user_id, user_key FROM ids").fetchall())
    label = hmac.digest(SECRET, b"plumbline: user ids", "sha256")
    assert found == {i: hmac.new(label, i.encode(), hashlib.sha256).hexdigest()[:32] for i in ids}
    assert found == {i: key.digest(i) for i in ids}


def test_devices_of_one_person_count_once(here, make_event) -> None:  # type: ignore[no-untyped-def]
    rows = [make_event(p, 1, "2024-01-02") for p in ("phone", "tablet", "ann", "bob")]
    events = here.write(rows)
    assert people_of(here, here.inputs(events)) == (4, "none", 4)
    pairs = [("phone", "ann"), ("tablet", "ann")]
    people, version, count = people_of(here, mapped(here, events, pairs))
    assert (people, count) == (2, 4) and len(version) == 32
    assert people_of(here, here.inputs(events)) == (4, "none", 4), "taking the map away gives the devices back"


def test_the_version_is_the_content_and_keyed(here, make_event) -> None:  # type: ignore[no-untyped-def]
    events = here.write([make_event("phone", 1, "2024-01-02")])
    pairs = [("phone", "ann"), ("tablet", "ann"), ("laptop", "bob")]
    versions = {
        people_of(here, mapped(here, events, change, name))[1]
        for change, name in ((pairs, "a.csv"), (pairs[::-1], "b.csv"), ([*pairs, pairs[0]], "c.jsonl"))
    }
    assert len(versions) == 1, "neither order, nor copies, nor the format of the file matter"
    for other in (pairs[:2], [*pairs[:2], ("laptop", "ann")], [("ann", "phone")]):
        assert people_of(here, mapped(here, events, other))[1] not in versions
    with load_people(mapped(here, events, pairs), here.question,
                     LoadSettings(NOW, here.root / "raw2", b"another secret of enough bytes..")) as people:  # fmt: skip
        assert people.identity not in versions, "nobody without the secret can tell two maps apart"


def test_consent_and_copies_follow_the_person(here, make_event) -> None:  # type: ignore[no-untyped-def]
    rows = [
        make_event("phone", 1, "2024-01-02"),
        make_event("tablet", 1, "2024-01-03", consent="false"),
        make_event("laptop", 1, "2024-01-02") | {"event_id": "same"},
        make_event("bob", 1, "2024-01-02") | {"event_id": "same"},
    ]
    inputs = mapped(here, here.write(rows), [("phone", "ann"), ("tablet", "ann"), ("laptop", "bob")])
    assert people_of(here, inputs)[0] == 1, "a refusal on one device is the person's"
    assert people_of(here, inputs)[2] == 1, "one event told by two devices of a person is one"


def test_partitions_keep_devices_with_their_person(here, make_event) -> None:  # type: ignore[no-untyped-def]
    rows = [
        make_event(p, i, f"2024-01-{10 + i}", "conversion", value="150", currency="USD")
        for i, p in enumerate(["phone", "tablet", "ann", "bob", "laptop", "phone", "tablet", "eve"])
    ]
    pairs = [("phone", "ann"), ("tablet", "ann"), ("laptop", "bob")]
    inputs = mapped(here, here.write(rows), pairs)
    whole = here.exact(inputs)
    here.part_rows = 1
    for key, units in here.exact(inputs).items():
        assert np.array_equal(units, whole[key]), key


@pytest.mark.parametrize(
    ("pairs", "fault"),
    [
        (
            [("phone", "ann"), ("phone", "bob")],
            r"row 1 gives a device to one person and another row gives it to another",
        ),
        ([("phone", "ann"), ("ann", "bob")], r"row 1 names a person who is the device of somebody else in another row"),
        ([("phone", "ann"), ("", "bob")], r"row 2 has no device_id; fill it"),
        ([("phone", "ann"), ("x", "nan")], r"row 2 has no person_id; fill it"),
        ([], r"map\.csv holds no row"),
    ],
)
def test_a_map_without_one_answer_is_refused(here, make_event, pairs, fault) -> None:  # type: ignore[no-untyped-def]
    events = here.write([make_event("phone", 1, "2024-01-02")])
    with pytest.raises(InputError, match=fault) as caught:
        people_of(here, mapped(here, events, pairs))
    assert not {"phone", "ann", "bob"} & set(str(caught.value).replace("'", " ").split()), "no id in a message"


def test_a_broken_line_of_a_map_is_refused(here, make_event) -> None:  # type: ignore[no-untyped-def]
    events = here.write([make_event("phone", 1, "2024-01-02")])
    inputs = mapped(here, events, [("phone", "ann")])
    with (here.root / "map.csv").open("ab") as handle:
        handle.write(b"one,two,three\r\n")
    with pytest.raises(InputError, match=r"map\.csv line 3 cannot be read; mend or remove it"):
        people_of(here, inputs)


def test_removing_a_person_with_all_devices_moves_a_table_by_one_bound(here, make_event) -> None:  # type: ignore[no-untyped-def]
    """The unit is the person of the map: ten devices do not make ten people."""
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = [
        make_event(f"d{d}", i, f"2024-0{rng.integers(1, 4)}-1{rng.integers(9)}", "conversion", value="1e9",
                   currency="USD", geo=("north", "south")[rng.integers(2)])
        for d in range(10) for i in range(20)
    ]  # fmt: skip
    others = [make_event(f"o{i}", 1, "2024-02-02", "conversion", value="3", currency="USD") for i in range(5)]
    pairs = [(f"d{d}", "ann") for d in range(10)]
    with_ann = here.exact(mapped(here, here.write([*rows, *others]), pairs))
    without = here.exact(mapped(here, here.write(others), pairs))
    bounds = {name: bound.bound for name, bound in here.policy.kpi.items()}
    from privacy.bounds import fixed_point

    for (where, name), units in with_ann.items():
        if where.startswith("kpi"):
            moved = float(np.sqrt(((units - without[where, name]).astype(float) ** 2).sum()))
            assert moved <= fixed_point(bounds[name]).units, (where, name)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@settings(max_examples=10, deadline=timedelta(seconds=20), suppress_health_check=list(HealthCheck))
@given(pairs=st.lists(st.tuples(TEXT | st.sampled_from("abcd"), TEXT | st.sampled_from("wxyz")), max_size=8),
       kind=st.sampled_from(["csv", "jsonl"]))  # fmt: skip
def test_any_map_is_either_refused_or_a_function(here, make_event, pairs, kind) -> None:  # type: ignore[no-untyped-def]
    events = here.write([make_event(p, 1, "2024-01-02") for p in "abcdwxyz"])
    try:
        people, _, _ = people_of(here, mapped(here, events, pairs, f"map.{kind}"))
    except UserError as error:
        assert str(error).startswith("identity: "), error
        return
    known = {event.cell(d): event.cell(p) for d, p in pairs}
    assert people == len({known.get(p, p) for p in "abcdwxyz"})


def test_each_release_names_its_map(here, make_event) -> None:  # type: ignore[no-untyped-def]
    """The version is that of the map in force when the release was made; later maps change later releases only."""
    events = here.write([make_event("phone", 1, "2024-01-02"), make_event("ann", 2, "2024-05-02")])
    whole = here.question
    versions = []
    for blocks, pairs in ((whole.blocks[:1], [("phone", "ann")]), (whole.blocks, [("phone", "bob")])):
        here.question = replace(whole, blocks=blocks)
        files = here.publish(mapped(here, events, pairs))
        versions.append({read_release(f).metadata["inputs"]["identity_map"] for f in files})
    assert len(versions[0]) == 1 and versions[0] < versions[1] and len(versions[1]) == 2


def test_consent_withdrawn_later_takes_the_person_out_of_every_later_release(here, make_event) -> None:  # type: ignore[no-untyped-def]
    """The refusal is dated in the second quarter; a first quarter that is released after it is without them, too."""
    bob = [make_event("bob", i, f"2024-0{m}-02", "conversion", value="5", currency="USD") for i, m in enumerate((1, 5))]
    ann = [make_event("ann", i, f"2024-0{m}-03", "conversion", value="9", currency="USD") for i, m in enumerate((2, 4))]
    refusal = make_event("ann", 9, "2024-06-01", consent="false")
    without = here.exact(here.inputs(here.write(bob)))
    for rows, same in (([*bob, *ann], False), ([*bob, *ann, refusal], True)):
        found = here.exact(here.inputs(here.write(rows)))
        counted = [k for k in without if k[1] not in ("people",)]
        assert all(np.array_equal(found[k], without[k]) for k in counted) is same
    now, then = (found[k] for k in found if k[1] == "people")
    assert list(now[:2] // 10**6) == [2, 1] and list(then[:2] // 10**6) == [2, 1], "seen: two; consenting: one"


def test_a_quarter_keeps_its_map_unless_another_one_is_accepted(here, make_event) -> None:  # type: ignore[no-untyped-def]
    """Weekly releases of an open quarter: the map grows between two of them."""
    block = replace(here.question.blocks[0], closed=False)
    weeks = [replace(block, weeks=block.weeks[:n]) for n in (1, 2, 3)]
    here.policy = replace(PrivacyPolicy(), cadence={"kpi": "week", "journeys": "week"}, shares={"kpi": 0.5})
    events = here.write([make_event(f"d{i}", i, "2024-01-03", "conversion") for i in range(6)])
    first = mapped(here, events, [("d1", "p1")], "a.csv")
    grown = mapped(here, events, [("d1", "p1"), ("d2", "p1")], "b.csv")

    def publish(inputs: PeopleInputs, block: Block) -> Any:
        here.question = replace(here.question, blocks=(block,))
        return [read_release(p).metadata["inputs"] for p in here.publish(inputs)]

    (one,) = publish(first, weeks[0])
    assert one["other_maps"] == [] and publish(grown, weeks[0]) == [one], "what is out needs no map"
    with pytest.raises(PrivacyError, match=r"quarter-2024-01-01 was released with version \w{12} of the identity map, "
                       r"and this load has version .*identity_change"):  # fmt: skip
        publish(grown, weeks[1])
    with pytest.raises(PrivacyError, match="this load has no identity map"):
        publish(replace(first, identity=None), weeks[1])
    assert len(read_charges(here.ledger)) == 1, "nothing was charged"
    two = publish(replace(grown, identity_change="accept"), weeks[1])[1]
    assert two["other_maps"] == [one["identity_map"]] != [two["identity_map"]]
    with pytest.raises(PrivacyError, match="identity_change"):  # now neither map is the only one of the quarter
        publish(first, weeks[2])
