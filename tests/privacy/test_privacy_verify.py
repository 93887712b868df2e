"""Verification recomputes what can be recomputed: every edit is caught by the check that it breaks, by name."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from privacy_worlds import NOW, World, event, question

from contracts.errors import InputError, LedgerError, PrivacyError
from privacy import files
from privacy.audit import Subject, audit, published_hashes, require_published
from privacy.plan import plan_releases
from privacy.policy import PrivacyPolicy
from privacy.verify import Surroundings, verify_file

KEY = files.METADATA_KEY
SHARES = {"kpi": 0.4, "journeys": 0.2, "trials": 0.15, "diagnostics": 0.05, "reserve": 0.05, "media": 0.1,
          "credit": 0.05}  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A published quarter with all six measures, made once."""
    whole = question()
    test = replace(whole.experiments[0], end=date(2024, 3, 24))
    made = World(
        tmp_path_factory.mktemp("published"),
        question=replace(whole, blocks=whole.blocks[:1], experiments=(test,)),
        policy=replace(PrivacyPolicy(), shares=SHARES),
    )
    rows = [event(f"p{i % 20}", i, f"2024-02-{1 + i % 28:02}", ("visit", "click", "conversion")[i % 3],
                  channel="search", value="20", currency="USD") for i in range(60)]  # fmt: skip
    groups = made.groups([(f"p{i}", ("control", "treated")[i % 2]) for i in range(20)])
    made.publish(made.inputs(made.write(rows), groups), actor="ann")
    return made


@pytest.fixture
def here(published: World, tmp_path: Path) -> World:
    """A copy that a test may break."""
    shutil.copytree(published.root, tmp_path / "copy")
    return replace(published, root=tmp_path / "copy")


def look(here: World, *names: str, **more: Any) -> dict[str, Subject]:
    plans = {p.release_id: p for p in plan_releases(here.question, here.policy)}
    around = {"ledger": here.ledger, "releases_dir": here.root / "releases", "plans": plans, "now": NOW} | more
    return {s.name: s for s in audit(names, **around)}


def failed(subject: Subject) -> set[str]:
    return {c.name for c in subject.checks if c.status == "fails"}


def statuses(subject: Subject) -> dict[str, str]:
    return {c.name: c.status for c in subject.checks}


def kpi_path(here: World) -> Path:
    return next((here.root / "releases").glob("kpi-*.parquet"))


def test_what_was_published_holds_for_every_measure(here: World) -> None:
    found = look(here)
    assert len(found) == 7 and not any(s.failed for s in found.values())
    for name, subject in found.items():
        if name != "ledger":
            assert set(statuses(subject).values()) == {"holds", "unknown"}
            unknown = {c.name for c in subject.checks if c.status == "unknown"}
            assert unknown == {"the draw", "the rows"}, "it says what it cannot check"


def test_before_the_first_release_there_is_nothing_to_fail(world) -> None:  # type: ignore[no-untyped-def]
    found = look(world())
    assert list(found) == ["ledger"] and not found["ledger"].failed
    with pytest.raises(InputError, match="there is no release 'kpi'.*Stored: none"):
        look(world(), "kpi")


def edit(path: Path, *, table: Callable[[pa.Table], pa.Table] | None = None, **meta: Any) -> None:
    """Rewrites a release with other figures or other metadata, as well as its file allows."""
    old = pq.read_table(path)
    known = json.loads(old.schema.metadata[KEY])
    new = (table or (lambda t: t))(old)
    known |= {name: change(known[name]) for name, change in meta.items()}
    pq.write_table(new.replace_schema_metadata({KEY: json.dumps(known).encode()}), path)


def bump(name: str) -> Callable[[pa.Table], pa.Table]:
    """One column plus one, in every row."""
    return lambda t: t.set_column(t.schema.get_field_index(name), name, pc.add(t[name], pa.scalar(1, t[name].type)))


def first_vector(**new: Any) -> Callable[[Any], Any]:
    return lambda vectors: [vectors[0] | new, *vectors[1:]]


EDITS: list[tuple[dict[str, Any], set[str]]] = [
    ({"table": bump("value")}, {"figures of conversions", "figures of revenue", "figures of active_users"}),
    ({"table": bump("variance")}, {"figures of conversions", "figures of revenue", "figures of active_users"}),
    ({"table": bump("units")}, {"figures of conversions", "figures of revenue", "figures of active_users"}),
    ({"table": lambda t: t.slice(1)}, {"keys"}),
    ({"table": lambda t: t.take(list(range(1, len(t))) + [0])}, {"keys"}),
    ({"table": lambda t: t.append_column("people", t["units"])}, {"table", "keys"}),
    ({"table": lambda t: t.set_column(2, "week", t["week"].cast(pa.string()))}, {"table"}),
    ({"table": lambda t: pa.concat_tables([t, t.slice(0, 1)])}, {"table", "keys"}),
    ({"table": lambda t: t.set_column(3, "metric", pa.array(["visits"] * len(t)))}, {"table", "keys"}),
    ({"vectors": first_vector(sigma_units=1e3, sigma=1e-3)}, {"noise of conversions", "figures of conversions"}),
    ({"vectors": first_vector(nano_rho=1_000_000)}, {"rho", "answer", "noise of conversions"}),
    ({"vectors": first_vector(bound_units=5_000_000, l2_bound=5.0)}, {"answer", "noise of conversions"}),
    ({"nano_rho": lambda n: n // 2}, {"rho", "epsilon", "charge"}),
    ({"epsilon": lambda e: e / 2}, {"epsilon"}),
    ({"quarter": lambda q: q | {"epsilon": 0.1}}, {"epsilon"}),
    ({"quarter": lambda q: q | {"nano_rho": 10}}, {"epsilon", "grant"}),
    ({"spec": lambda s: s | {"week_start": "sunday"}}, {"question"}),
    ({"spec_hash": lambda _: "0" * 64}, {"question", "ledger entry", "plumb.toml"}),
    ({"keys_hash": lambda _: "0" * 64}, {"keys", "answer"}),
    ({"ledger_head": lambda _: "0" * 64}, {"ledger entry"}),
    ({"blocks": lambda _: ["quarter-2030-01-01"]}, {"answer", "charge"}),
    ({"dependencies": lambda d: d | {"opendp": "9.9"}}, {"libraries' hash"}),
    ({"quarter": lambda _: None}, {"ledger", "price"}),
    ({"vectors": first_vector(bound_units="many")}, {"noise"}),
]


@pytest.mark.parametrize("number", range(len(EDITS)))
def test_every_edit_breaks_the_check_that_is_about_it(here: World, number: int) -> None:
    changes, broken = EDITS[number]
    path = kpi_path(here)
    edit(path, **changes)
    subject = look(here, path.stem)[path.stem]
    assert broken <= failed(subject), statuses(subject)
    if "ledger" not in broken:
        assert "file hash" in failed(subject), "whatever else, the ledger has another hash"
    with pytest.raises(LedgerError, match="was edited after publication"):
        require_published(path, path.stem, published_hashes(here.ledger, NOW))


def test_a_file_that_is_no_release_fails_alone(here: World) -> None:
    path = kpi_path(here)
    path.write_bytes(b"nothing")
    found = look(here)
    assert failed(found[path.stem]) == {"file"} and sum(s.failed for s in found.values()) == 1


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from([0, -1, 1, 10**400, 1e308, 5e-324, 2**26, "2024-02-30", "\u0661"]),
)  # fmt: skip


def places(value: Any, so_far: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [so_far, *(p for key, v in inside for p in places(v, (*so_far, key)))]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("name", {}, "name of a vector is {}"), ("sigma", True, "sigma of a vector is True"),
     ("nano_rho", "12", "nano_rho of a vector is '12'"), ("bounding", None, "bounding of a vector is None")],
)  # fmt: skip
def test_a_vector_that_is_none_makes_the_file_unreadable(here: World, field: str, value: object, said: str) -> None:
    path = kpi_path(here)
    edit(path, vectors=first_vector(**{field: value}))
    with pytest.raises(PrivacyError, match=re.escape(said)):
        files.read_release(path)
    assert failed(look(here)[path.stem]) == {"file"}


@settings(max_examples=60, deadline=timedelta(seconds=30), suppress_health_check=list(HealthCheck))
@given(data=st.data(), measure=st.sampled_from(["kpi", "trials"]))
def test_whatever_a_received_file_says_of_itself_is_checked_without_a_traceback(  # type: ignore[no-untyped-def]
    published, tmp_path, data, measure
) -> None:
    table = pq.read_table(next((published.root / "releases").glob(f"{measure}-*.parquet")))
    meta: Any = json.loads(table.schema.metadata[KEY])
    place = data.draw(st.sampled_from(places(meta)[1:]))
    inner = meta
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = data.draw(ODD)
    path = tmp_path / "received.parquet"
    pq.write_table(table.replace_schema_metadata({KEY: json.dumps(meta).encode()}), path)
    _, checks = verify_file(path, Surroundings(None, None), stored=False)
    assert checks and {c.status for c in checks} <= {"holds", "fails", "differs", "unknown"}


def test_missing_strange_and_linked_files_are_told(here: World, tmp_path: Path) -> None:
    path = kpi_path(here)
    away = tmp_path / "elsewhere.parquet"
    path.rename(away)
    assert failed(look(here)["ledger"]) == {"files"}
    path.symlink_to(away)
    assert failed(look(here, path.stem)[path.stem]) == {"place"}
    with pytest.raises(LedgerError, match="lies in a plain file of that name; take it away"):
        require_published(path, path.stem, published_hashes(here.ledger, NOW))
    path.unlink()
    away.rename(path)
    copy = path.with_name("kpi-copy.parquet")
    shutil.copy(path, copy)
    found = look(here)
    assert failed(found["ledger"]) == {"files"} and "kpi-copy" in str(found["ledger"].checks)
    assert not look(here, str(path))[path.stem].failed


def test_a_release_from_elsewhere_is_held_against_this_ledger(here: World, tmp_path: Path) -> None:
    """Whoever was sent a file asks whether it is the published one, whatever it is called by now."""
    sent = tmp_path / "from a colleague.parquet"
    shutil.copy(kpi_path(here), sent)
    subject = look(here, str(sent))[kpi_path(here).stem]
    assert not subject.failed and "place" not in statuses(subject)
    edit(sent, table=bump("value"))
    assert "file hash" in failed(look(here, str(sent))[kpi_path(here).stem])


def test_other_declarations_code_and_libraries_are_no_failure(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name = kpi_path(here).stem
    monkeypatch.setattr(files, "code_hash", lambda: "0" * 64)
    monkeypatch.setattr(files, "dependencies", lambda: {"opendp": "99"})
    found = look(here, name, plans={})
    assert not found[name].failed
    differ = {c.name: c.text for c in found[name].checks if c.status == "differs"}
    assert set(differ) == {"plumb.toml", "code", "libraries"} and "now 99" in differ["libraries"]
    assert statuses(look(here, name, plans=None)[name])["plumb.toml"] == "unknown"


def test_a_ledger_that_cannot_be_trusted_is_one_failure(here: World) -> None:
    here.ledger.head.unlink()
    found = look(here, kpi_path(here).stem)
    assert failed(found["ledger"]) == {"chain"}
    assert statuses(found[kpi_path(here).stem])["ledger"] == "unknown" and not found[kpi_path(here).stem].failed


def test_names_are_ids_beginnings_or_paths(here: World) -> None:
    assert list(look(here, "kpi"))[1:] == [kpi_path(here).stem]
    os.rename(kpi_path(here), kpi_path(here).with_name("trials-other.parquet"))
    with pytest.raises(InputError, match="'trials' fits 2 releases"):
        look(here, "trials")
    with pytest.raises(InputError, match="there is no release 'nope'"):
        look(here, "nope")
