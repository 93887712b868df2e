"""T8: a crowd of writers on one ledger, some of them killed, and two faulty ledgers that the check must see through.

Imports little: every writer is a process of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from contracts.errors import BudgetExceeded, LedgerError
from contracts.release import NANO
from privacy import ledger as module
from privacy import ledger_store as store
from privacy.chain import LedgerPaths
from privacy.grants import Grant
from privacy.ledger import Ledger
from privacy.vectors import ReleasePlan, VectorPlan

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Q1, Q2 = "quarter-2024-01-01", "quarter-2024-04-01"
CALENDAR = {"time_zone": "UTC", "week_start": "monday"}
GRANT = Grant(200_000_000, {"kpi": 100_000_000, "trials": 50_000_000, "reserve": 50_000_000}, CALENDAR)
COST, NAMES = 2_000_000, 60  # the grant holds 50 of them


def plan(name: str, nano: int = 10_000_000, blocks: tuple[str, ...] = (Q1,), measure: str = "kpi") -> ReleasePlan:
    """A plan of one vector that costs `nano`."""
    vector = VectorPlan("v", 1.0, 1_000_000, 1, 1_000_000, 3, nano, 1e6)
    return ReleasePlan(name, f"spec {name}", measure, blocks, date(2024, 1, 1), date(2024, 3, 31), "", (vector,), "k")  # type: ignore[arg-type]


def no_check() -> None:
    """Mutant: nobody compares what is spent with the grant."""
    store.SCHEMA = store.SCHEMA.replace("CHECK (spent_nano BETWEEN 0 AND cap_nano)", "CHECK (spent_nano >= 0)")

    def charge(self: Ledger, plan: ReleasePlan, block: str, nano: int, grant: Grant) -> None:
        self._db.execute("UPDATE block SET spent_nano = spent_nano + ? WHERE id = ?", (nano, block))
        self._db.execute(
            "UPDATE allotment SET spent_nano = spent_nano + ? WHERE block_id = ? AND measure = ?",
            (nano, block, plan.measure),
        )

    Ledger._charge = charge  # type: ignore[method-assign]


def refund() -> None:
    """Mutant: whatever is charged and not published is given back when the ledger is opened, drawn or not."""
    store.SCHEMA = store.SCHEMA.replace(", CHECK (state <> 'void' OR drawn = 0)", "")
    opened = module.open_ledger

    @contextmanager
    def open_ledger(paths: LedgerPaths, now: datetime) -> Iterator[Ledger]:
        with opened(paths, now) as book:
            for (name,) in book._db.execute("SELECT id FROM release WHERE state = 'reserved'").fetchall():
                with book._writing():
                    state = book.state(name)
                    if state is not None and state.state == "reserved":
                        book._append("void", {"release": name, "reserve": state.reserve_hash}, now)
                        book._db.execute("UPDATE release SET state = 'void' WHERE id = ?", (name,))
                        for table in ("block", "allotment"):
                            book._db.execute(
                                f"UPDATE {table} SET spent_nano = spent_nano - {COST} WHERE spent_nano > 0"
                            )
            yield book

    module.open_ledger = open_ledger


MUTANTS: dict[str, Callable[[], None]] = {"no_check": no_check, "refund": refund}


def writer(db: str, head: str, number: int, journal: str, mutant: str) -> None:
    """Takes every name in an order of its own, as a publisher does: charge, draw, be seen, publish."""
    if mutant:
        MUTANTS[mutant]()
    paths, order = LedgerPaths(Path(db), Path(head)), random.Random(number)
    names = [f"release-{i}" for i in range(NAMES)]
    order.shuffle(names)
    seen = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for name in names:
        with module.open_ledger(paths, NOW) as book:
            try:
                state = book.reserve(plan(name, COST), GRANT, NOW, f"writer {number}")
            except BudgetExceeded:
                continue
            if state.state == "reserved":
                try:
                    book.note_draw(name, state.reserve_hash, NOW)
                except LedgerError:
                    if getattr(book.state(name), "state", "") != "published":
                        raise
                    continue  # another writer was faster
                os.write(seen, f"{name}\n".encode())  # from here on somebody may have seen the draw
                time.sleep(order.random() * 0.004)
                book.publish(name, f"hash of {name}", NOW)


def run_crowd(folder: Path, writers: int, killed: int, mutant: str = "", seed: int = 8) -> LedgerPaths:
    """Starts the writers, kills the first ones at random moments and waits for the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, moments = LedgerPaths(folder / "ledger.sqlite", folder / "config" / "head"), random.Random(seed)
    context = multiprocessing.get_context("spawn")
    crowd = [
        context.Process(target=writer, args=(str(paths.db), str(paths.head), i, str(folder / f"{i}.txt"), mutant))
        for i in range(writers)
    ]
    for process in crowd:
        process.start()
    deadline = time.monotonic() + 120
    while not any((folder / f"{i}.txt").exists() for i in range(killed)) and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in crowd[:killed]:
        time.sleep(moments.random() * 0.4)
        if process.pid and process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
    for process in crowd:
        process.join(120)
    assert [p.exitcode for p in crowd[killed:]] == [0] * (writers - killed), "a survivor did not get through"
    return paths


def check_crowd(paths: LedgerPaths) -> dict[str, Any]:
    """What must hold after any crowd, whoever was killed when. Raises AssertionError or LedgerError."""
    with module.open_ledger(paths, NOW) as book:  # replays the chain, compares tables and head
        chain, rows = book.entries(), book.charges()
    assert rows["release_id"].is_unique, "a release is charged twice"
    spent = round(rows["rho"].sum() * NANO)
    assert spent == round(rows["block_spent"].iloc[0] * NANO), "spent is not the sum of the charges"
    assert spent <= GRANT.parts["kpi"], "more is spent than was granted"
    seen = {name for p in paths.db.parent.glob("*.txt") for name in p.read_text().split("\n")[:-1]}
    assert seen <= set(rows["release_id"]), "a draw that somebody may have seen is not charged"
    raw = sqlite3.connect(paths.db)
    whole = raw.execute("PRAGMA integrity_check").fetchone()
    raw.close()
    assert whole == ("ok",)
    return {"charges": len(rows), "spent": spent, "seen": len(seen), "entries": len(chain)}
