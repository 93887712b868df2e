"""state.sqlite: private, durable, migrated, append-only."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from app.saved import database
from contracts.errors import WorkspaceError

TABLES = {
    "scenarios", "scenario_versions", "scenario_channels", "scenario_cells", "comments", "approvals", "tokens",
}  # fmt: skip


@contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """The file without any of our code."""
    with closing(sqlite3.connect(path)) as con:
        yield con
        con.commit()


def tables(path: Path) -> set[str]:
    with raw(path) as con:
        return {r[0] for r in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_the_file_is_private_wal_full_and_strict(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with database.writing(path) as con:
        settings = [con.execute(f"PRAGMA {p}").fetchone()[0] for p in ("journal_mode", "synchronous", "foreign_keys")]
        assert settings == ["wal", 2, 1]
        for file in tmp_path.iterdir():
            assert file.stat().st_mode & 0o777 == 0o600, file
        strict = {r["name"]: r["strict"] for r in con.execute("PRAGMA table_list") if r["name"] in TABLES}
    assert strict == dict.fromkeys(TABLES, 1)


def test_reading_makes_no_file(tmp_path: Path) -> None:
    with database.reading(tmp_path / "state.sqlite") as con:
        assert con.execute("SELECT count(*) FROM scenarios").fetchone()[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_an_error_takes_everything_back(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with pytest.raises(RuntimeError), database.writing(path) as con:
        con.execute("INSERT INTO tokens VALUES ('a', 'n', ?, 'read', 'now', NULL, NULL)", ("0" * 64,))
        raise RuntimeError
    with database.reading(path) as con:
        assert con.execute("SELECT count(*) FROM tokens").fetchone()[0] == 0


def test_a_file_of_the_first_schema_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with raw(path) as con:
        con.executescript(database.MIGRATIONS[0])
        con.execute("INSERT INTO scenarios VALUES ('sc-1', 'Old', 'old', 'saved', 1, 'then', 'then')")
        con.execute("PRAGMA user_version = 1")
    assert "comments" not in tables(path)
    with database.reading(path) as con:
        assert con.execute("SELECT name FROM scenarios").fetchone()["name"] == "Old"
    assert tables(path) >= TABLES
    with raw(path) as con:
        assert con.execute("PRAGMA user_version").fetchone()[0] == len(database.MIGRATIONS)


def test_an_empty_file_is_brought_up(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.touch()
    with database.writing(path):
        pass
    assert tables(path) >= TABLES


def test_a_migration_that_breaks_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.sqlite"
    with database.writing(path):
        pass
    known = len(database.MIGRATIONS)
    broken = (*database.MIGRATIONS, "CREATE TABLE half (x TEXT) STRICT;\nCREATE TABLE half (x TEXT) STRICT;")
    monkeypatch.setattr(database, "MIGRATIONS", broken)
    with pytest.raises(WorkspaceError, match="half already exists"), database.writing(path):
        pass
    assert "half" not in tables(path)
    with raw(path) as con:
        assert con.execute("PRAGMA user_version").fetchone()[0] == known


def test_a_newer_file_is_refused_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with raw(path) as con:
        con.execute("PRAGMA user_version = 99")
    refused = pytest.raises(WorkspaceError, match="newer Plumbline \\(schema 99, this one knows 4\\)")
    with refused, database.writing(path):
        pass
    assert tables(path) == set()


def test_what_is_no_database_or_not_writable_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"no database" * 400)
    with pytest.raises(WorkspaceError, match=r"state.sqlite is damaged"), database.reading(path):
        pass
    with pytest.raises(WorkspaceError, match="cannot be used|not writable"), database.writing(tmp_path):
        pass


def test_a_writer_that_holds_on_makes_the_next_one_say_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.05)
    path = tmp_path / "state.sqlite"
    refused = pytest.raises(WorkspaceError, match="is busy: someone else is saving")
    with database.writing(path), refused, database.writing(path):
        pass


def test_many_first_writers_migrate_once_and_lose_nothing(tmp_path: Path) -> None:
    path, failures = tmp_path / "state.sqlite", []

    def write(number: int) -> None:
        try:
            with database.writing(path) as con:
                con.execute(
                    "INSERT INTO comments VALUES (?, 'channel', 'tv', 'ana', 'x', ?)", (str(number), str(number))
                )
        except BaseException as error:  # noqa: BLE001 - reported below
            failures.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    with database.reading(path) as con:
        assert con.execute("SELECT count(*) FROM comments").fetchone()[0] == 8


@pytest.mark.parametrize("statement", ["UPDATE comments SET text = 'y'", "DELETE FROM comments"])
def test_comments_cannot_be_changed(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "state.sqlite"
    with database.writing(path) as con:
        con.execute("INSERT INTO comments VALUES ('1', 'channel', 'tv', 'ana', 'x', 'now')")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"), database.writing(path) as con:
        con.execute(statement)
