"""The ledger: refuses overspending, edits and older copies; survives killed writers."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from privacy_crowd import GRANT, NOW, Q1, Q2, plan

from contracts.errors import BudgetExceeded, LedgerError, PrivacyError, WorkspaceError
from privacy import ledger as module
from privacy.chain import LedgerPaths
from privacy.ledger import open_ledger
from privacy.room import read_charges, verify_ledger
from privacy.vectors import ReleasePlan


@pytest.fixture
def paths(tmp_path: Path) -> LedgerPaths:
    return LedgerPaths(tmp_path / ".plumb" / "ledger.sqlite", tmp_path / "config" / "head")


def reserve(paths: LedgerPaths, *plans: ReleasePlan) -> None:
    with open_ledger(paths, NOW) as book:
        for p in plans:
            book.reserve(p, GRANT, NOW)


def test_charges_are_kept_and_idempotent(paths: LedgerPaths) -> None:
    reserve(paths, plan("a", blocks=(Q1, Q2)), plan("a", blocks=(Q1, Q2)), plan("b", measure="trials"))
    rows = read_charges(paths)
    assert list(rows.columns) == [
        "release_id", "measure", "block", "rho", "block_spent", "block_cap", "charged_at", "paid_by",
    ]  # fmt: skip
    assert [tuple(r) for r in rows[["release_id", "block", "rho", "block_spent"]].to_numpy()] == [
        ("a", Q1, 0.01, 0.02), ("b", Q1, 0.01, 0.02), ("a", Q2, 0.01, 0.01),
    ]  # fmt: skip
    assert str(rows["charged_at"].dtype).startswith("datetime64") and rows["block_cap"].eq(0.2).all()
    assert stat.S_IMODE(paths.head.stat().st_mode) == stat.S_IMODE(paths.db.stat().st_mode) == 0o600


def test_an_empty_ledger_reads_as_no_charges(paths: LedgerPaths) -> None:
    assert read_charges(paths).empty
    verify_ledger(paths)
    assert not paths.db.exists() and not paths.head.exists(), "reading creates nothing"


def test_overspending_is_refused_with_a_reason(paths: LedgerPaths) -> None:
    reserve(paths, plan("first", 80_000_000))
    with pytest.raises(
        BudgetExceeded,
        match=r"release second costs rho 0\.03 in quarter-2024-01-01, where kpi has 0\.02 of 0\.1 left.*first",
    ):
        reserve(paths, plan("second", 30_000_000))
    with open_ledger(paths, NOW) as book, pytest.raises(BudgetExceeded, match="release c costs"):
        book.check_affordable((plan("b", 15_000_000), plan("c", 15_000_000)), GRANT)
    assert list(read_charges(paths)["release_id"]) == ["first"]


def test_a_release_over_two_blocks_is_charged_to_both_or_to_none(paths: LedgerPaths) -> None:
    reserve(paths, plan("first", 95_000_000, (Q2,)))
    with pytest.raises(BudgetExceeded, match="in quarter-2024-04-01"):
        reserve(paths, plan("both", 10_000_000, (Q1, Q2)))
    assert list(read_charges(paths)["release_id"]) == ["first"]


def test_nobody_spends_the_reserve(paths: LedgerPaths) -> None:
    reserve(paths, plan("k", 100_000_000), plan("t", 50_000_000, measure="trials"))
    for measure in ("kpi", "trials", "diagnostics"):
        with pytest.raises(BudgetExceeded):
            reserve(paths, plan(f"more {measure}", 1, measure=measure))
    assert read_charges(paths)["block_spent"].eq(0.15).all()


def test_the_database_itself_refuses_to_overspend_or_forget(paths: LedgerPaths) -> None:
    reserve(paths, plan("a"))
    raw = sqlite3.connect(paths.db)
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        raw.execute("UPDATE block SET spent_nano = cap_nano + 1")
    for statement in (
        "DELETE FROM charge",
        "UPDATE charge SET nano = 1",
        "DELETE FROM entry",
        "UPDATE entry SET at = ''",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(statement)
    raw.close()


def test_a_grant_cannot_change_after_the_first_release(paths: LedgerPaths) -> None:
    reserve(paths, plan("a"))
    with open_ledger(paths, NOW) as book:
        with pytest.raises(
            PrivacyError,
            match=r"quarter-2024-01-01 was opened with privacy\.rho_per_user_quarter = 0\.2 and .* now says 0\.4",
        ):
            book.reserve(plan("b"), replace(GRANT, cap_nano=400_000_000), NOW)
        with pytest.raises(
            PrivacyError, match=r"kpi grant of 0\.1 rho and plumb\.toml now gives 0\.15; privacy\.shares"
        ):
            book.reserve(plan("b"), replace(GRANT, parts=dict(GRANT.parts) | {"kpi": 150_000_000}), NOW)


def test_a_restored_older_copy_is_refused(paths: LedgerPaths, tmp_path: Path) -> None:
    reserve(paths, plan("a"))
    shutil.copytree(paths.db.parent, tmp_path / "backup")
    reserve(paths, plan("b"))
    shutil.rmtree(paths.db.parent)
    shutil.copytree(tmp_path / "backup", paths.db.parent)
    with pytest.raises(LedgerError, match="is an older or another copy"):
        verify_ledger(paths)
    with pytest.raises(LedgerError, match="is an older or another copy"):
        read_charges(paths)


def test_a_missing_ledger_or_head_is_refused(paths: LedgerPaths) -> None:
    reserve(paths, plan("a"))
    head = paths.head.read_text()
    paths.head.unlink()
    with pytest.raises(LedgerError, match=r"head, which guards the ledger .* is missing"):
        verify_ledger(paths)
    paths.head.write_text("{}")
    with pytest.raises(LedgerError, match="is damaged"):
        verify_ledger(paths)
    paths.head.write_text(head)
    verify_ledger(paths)
    paths.db.unlink()
    with pytest.raises(LedgerError, match="is missing, but .*head says that there was one"):
        verify_ledger(paths)
    assert not paths.db.exists(), "a refusal leaves no fresh ledger behind"


def test_a_head_behind_the_ledger_moves_forward(paths: LedgerPaths) -> None:
    """The crash between the commit and the head's own write."""
    reserve(paths, plan("a"))
    before = paths.head.read_text()
    reserve(paths, plan("b"))
    after = paths.head.read_text()
    paths.head.write_text(before)
    verify_ledger(paths)
    assert paths.head.read_text() == after


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE block SET spent_nano = 0",
        "UPDATE allotment SET cap_nano = cap_nano * 2",
        "UPDATE block SET cap_nano = cap_nano * 2",
        "UPDATE release SET state = 'published', out_hash = 'x'",
        "DROP TRIGGER charge_kept; DELETE FROM charge",
        "DROP TRIGGER entry_fixed; UPDATE entry SET body = replace(body, '10000000', '1') WHERE kind = 'reserve'",
        "DROP TRIGGER entry_kept; DELETE FROM entry WHERE seq = (SELECT max(seq) FROM entry)",
        "INSERT INTO block VALUES ('quarter-2026-01-01', 5, 0, '{}')",
    ],
)
def test_an_edited_ledger_is_refused(paths: LedgerPaths, edit: str) -> None:
    reserve(paths, plan("a"), plan("b"))
    raw = sqlite3.connect(paths.db)
    raw.executescript(edit)
    raw.commit()
    raw.close()
    with pytest.raises(LedgerError, match="was edited|older or another copy"):
        verify_ledger(paths)


def test_a_rewritten_chain_is_caught_by_the_head(paths: LedgerPaths) -> None:
    """Somebody who can recompute every hash still cannot reproduce the one outside."""
    reserve(paths, plan("a"))
    other = LedgerPaths(paths.db.parent / "other.sqlite", paths.db.parent / "other-head")
    reserve(other, plan("a"))
    paths.db.unlink()
    for suffix in ("-wal", "-shm"):
        Path(f"{paths.db}{suffix}").unlink(missing_ok=True)
    shutil.copy(other.db, paths.db)
    with pytest.raises(LedgerError, match="older or another copy"):
        verify_ledger(paths)


def test_a_file_that_is_no_database_is_refused(paths: LedgerPaths) -> None:
    reserve(paths, plan("a"))
    paths.db.write_bytes(b"not a database at all, but long enough to look at" * 50)
    with pytest.raises(LedgerError, match="is damaged"):
        verify_ledger(paths)


def test_a_busy_or_full_disk_is_said_plainly(paths: LedgerPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve(paths, plan("a"))
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    other = sqlite3.connect(paths.db, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(WorkspaceError, match="in use by another process"):
        verify_ledger(paths)
    other.execute("ROLLBACK")
    other.close()
    with open_ledger(paths, NOW) as book:
        book._db.execute("PRAGMA max_page_count = 1")  # SQLite's own way to meet a full disk
        with pytest.raises(WorkspaceError, match="is full; make room"):
            for i in range(200):
                book.reserve(plan(f"{'x' * 400}{i}", 1), GRANT, NOW)
    verify_ledger(paths)
