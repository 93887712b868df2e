"""The raw zone: sealed, private, swept by partition with every deletion logged, nothing of people in plain."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import PrivacyError, WorkspaceError
from privacy.load import LoadSettings, load_people
from privacy.rawzone import RawZone, require_private
from privacy.room import check_people, read_quarantine
from privacy.sources import engine
from privacy.vault import Vault

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = b"a secret of thirty-two bytes, ok"
OTHER = b"another secret of enough bytes.."


@settings(max_examples=30, deadline=timedelta(seconds=10))
@given(chunks=st.lists(st.binary(max_size=200), max_size=5))
def test_what_is_sealed_comes_back(tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("vault") / "a.sealed"
    Vault.of(SECRET).write(path, chunks)
    assert list(Vault.of(SECRET).read(path)) == (chunks or [b""])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for chunk in chunks:
        assert len(chunk) < 8 or chunk not in path.read_bytes()


def test_a_sealed_file_opens_whole_or_not_at_all(tmp_path: Path) -> None:
    vault, path = Vault.of(SECRET), tmp_path / "a.sealed"
    vault.write(path, [b"one", b"two", b"three"])
    lines = path.read_bytes().splitlines(keepends=True)
    damages = {
        "cut": lines[:2], "cut to nothing": [], "reordered": [lines[1], lines[0], lines[2]],
        "repeated": [lines[0], *lines], "edited": [lines[0][:-5] + b"AAAA\n", *lines[1:]], "garbage": [b"\xff\n"],
    }  # fmt: skip
    for name, damage in damages.items():
        path.write_bytes(b"".join(damage))
        with pytest.raises(PrivacyError, match="does not open: it was edited, cut or renamed"):
            list(vault.read(path))
            pytest.fail(name)
    path.write_bytes(b"".join(lines))
    with pytest.raises(PrivacyError, match="does not open"):
        list(Vault.of(OTHER).read(path))
    with pytest.raises(PrivacyError, match="does not open"):
        list(vault.read(path.rename(tmp_path / "b.sealed")))
    assert "Fernet" not in repr(vault) and SECRET.hex() not in repr(vault)


def test_a_raw_zone_that_others_may_open_is_refused_with_the_command(world, make_event) -> None:  # type: ignore[no-untyped-def]
    here = world()
    inputs = here.inputs(here.write([make_event("a", 1, "2024-01-02")]))
    (here.root / "raw").mkdir(mode=0o755)
    (here.root / "raw").chmod(0o750)
    sentence = r"raw may be opened by other users of this machine \(mode 0750\); run: chmod 700 .*raw$"
    with pytest.raises(WorkspaceError, match=sentence):
        check_people(inputs, here.policy, here.question, LoadSettings(NOW, here.root / "raw", SECRET))
    with pytest.raises(WorkspaceError, match=sentence):
        here.publish(inputs)
    with pytest.raises(WorkspaceError, match=sentence):
        list(read_quarantine(here.root / "raw", SECRET, "events"))
    assert not here.ledger.db.exists(), "nothing was charged"
    secret = here.root / "secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o604)
    with pytest.raises(WorkspaceError, match=r"mode 0604\); run: chmod 600 "):
        require_private(secret)
    secret.chmod(0o600)
    require_private(secret)
    require_private(here.root / "not there yet")


def test_partitions_are_swept_and_every_deletion_is_logged(world, make_event, make_question, no_trial) -> None:  # type: ignore[no-untyped-def]
    here = world(question=make_question(**no_trial), max_rejected=1.0)
    inputs = here.inputs(here.write([make_event("a", 1, "2024-01-02"), make_event("", 2, "2024-01-02")]))
    for day in (0, 20, 40):
        with load_people(inputs, here.question, LoadSettings(NOW + timedelta(days=day), here.root / "raw", SECRET, 30)):
            pass
    zone = RawZone.of(here.root / "raw", SECRET)
    assert [p.stem for p in zone.quarantines()] == ["2026-01-21", "2026-02-10"]
    kept = [(e["file"], e["why"]) for e in zone.vault.entries(zone.deletions)]
    assert kept == [("quarantine/events/2026-01-01.sealed", "older than 30 days")]
    assert [e["rejected"] for e in zone.logged()] == [1, 1, 1]
    zone.sweep(datetime(2026, 2, 20, tzinfo=UTC), 30)
    assert zone.quarantines()[0].stem == "2026-01-21", "thirty days are kept"
    zone.sweep(datetime(2026, 2, 21, tzinfo=UTC), 30)
    assert [p.stem for p in zone.quarantines()] == ["2026-02-10"], "and no day more"
    zone.sweep(NOW + timedelta(days=365), 30)
    assert not zone.quarantines() and not zone.logged()
    assert len(zone.vault.entries(zone.deletions)) == 1 + 2 + 2


def test_what_a_killed_spark_left_is_swept_when_it_is_old(tmp_path: Path) -> None:
    zone = RawZone.of(tmp_path / "raw", SECRET)
    for name, age in (("blockmgr-old", 40), ("spark-old", 36), ("blockmgr-new", 1)):
        (zone.folder / name / "0c").mkdir(parents=True)
        (zone.folder / name / "0c" / "shuffle").write_bytes(b"sealed")
        os.utime(zone.folder / name, ((NOW - timedelta(days=age)).timestamp(),) * 2)
    zone.sweep(NOW, 35)
    assert {p.name for p in zone.folder.iterdir()} == {"blockmgr-new", zone.deletions.name}
    assert [e["file"] for e in zone.vault.entries(zone.deletions)] == ["blockmgr-old", "spark-old"]


def test_a_clean_load_takes_back_what_the_same_day_set_aside(world, make_event, make_question, no_trial) -> None:  # type: ignore[no-untyped-def]
    here = world(question=make_question(**no_trial), max_rejected=1.0)
    for rows in ([make_event("", 1, "2024-01-02")], [make_event("a", 1, "2024-01-02")]):
        with load_people(here.inputs(here.write(rows)), here.question, LoadSettings(NOW, here.root / "raw", SECRET)):
            pass
    assert here.quarantined() == []
    zone = RawZone.of(here.root / "raw", SECRET)
    why = "a later load of the day set nothing aside"
    assert [e["why"] for e in zone.vault.entries(zone.deletions)] == [why]


def test_nothing_of_people_is_on_disk_in_plain(world, make_event) -> None:  # type: ignore[no-untyped-def]
    """Ids, texts and exact counts: after a load, a check and a release, no file but the inputs holds them."""
    here = world(max_rejected=1.0)
    rows = [
        make_event(f"someone-{i}", i, "2024-02-06", "conversion", value="12345.67", currency="USD") for i in range(37)
    ]
    rows += [make_event("broken-person", 1, "never"), make_event("", 2, "2024-01-02", channel="loose-words")]
    inputs = here.inputs(here.write(rows, "in/events.csv"), here.groups([("someone-1", "treated")], "in/groups.csv"))
    check_people(inputs, here.policy, here.question, LoadSettings(NOW, here.root / "raw", SECRET))
    here.publish(inputs)
    marks = [b"someone-", b"broken-person", b"loose-words", b"12345.67", b'"rows"', b"rejected", SECRET.hex().encode()]
    for path in here.root.rglob("*"):
        if path.is_file() and path.parent.name != "in":
            text = path.read_bytes()
            assert not [m for m in marks if m in text], path


def test_the_engine_may_not_write(tmp_path: Path) -> None:
    con = engine()
    found = dict(con.execute("SELECT name, value FROM duckdb_settings()").fetchall())
    assert found["temp_directory"] == "" and found["autoinstall_known_extensions"] == "false"
    assert found["python_enable_replacements"] == "false"
