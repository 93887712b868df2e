"""The release protocol: what is written, and what happens when it is cut off at every point."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from privacy_worlds import SECRET

from contracts.errors import BudgetExceeded, InputError, LedgerError, PrivacyError, WorkspaceError
from contracts.release import NANO
from privacy import disk, files
from privacy import publish as module
from privacy.plan import plan_releases
from privacy.room import read_charges, read_release, verify_ledger
from privacy.vault import Vault


class Killed(BaseException):
    """Stands for a crash: nothing in the room may catch it."""


@pytest.fixture
def here(world, make_question):  # type: ignore[no-untyped-def]
    """One quarter and the user test inside it: four releases."""
    from datetime import date  # noqa: PLC0415

    whole = make_question()
    test = replace(whole.experiments[0], end=date(2024, 3, 24))
    return world(question=replace(whole, blocks=whole.blocks[:1], experiments=(test,)))


@pytest.fixture
def inputs(here, make_event):  # type: ignore[no-untyped-def]
    rows = [make_event(f"p{i % 40}", i, f"2024-02-{1 + i % 28:02}", ("visit", "click", "conversion")[i % 3],
                       channel=("search", "video")[i % 2], value="20", currency="USD") for i in range(200)]  # fmt: skip
    groups = here.groups([(f"p{i}", ("control", "treated")[i % 2]) for i in range(40)])
    return here.inputs(here.write(rows), groups)


def contents(here) -> dict[str, bytes]:  # type: ignore[no-untyped-def]
    return {p.name: p.read_bytes() for p in sorted((here.root / "releases").glob("*.parquet"))}


def entries(here, kind: str) -> int:  # type: ignore[no-untyped-def]
    raw = sqlite3.connect(here.ledger.db)
    count = raw.execute("SELECT count(*) FROM entry WHERE kind = ?", (kind,)).fetchone()[0]
    raw.close()
    return int(count)


def test_a_release_holds_all_that_its_readers_need(here, inputs) -> None:  # type: ignore[no-untyped-def]
    paths = here.publish(inputs)
    plans = plan_releases(here.question, here.policy)
    assert [p.stem for p in paths] == [p.release_id for p in plans]
    for path, plan in zip(paths, plans, strict=True):
        release = read_release(path)
        assert (release.measure, release.rho) == (plan.measure, plan.nano / NANO)
        assert release.epsilon == pytest.approx(module.epsilon_of(plan.nano, 1e-6)) and release.delta == 1e-6
        assert release.block == "quarter-2024-01-01"
        assert sum(v.nano_rho for v in release.vectors) == plan.nano
        meta = release.metadata
        assert meta["unit"] == "user x fiscal quarter" and meta["neighbours"] == "add or remove one user"
        assert meta["keys_hash"] == plan.keys_hash and len(meta["code_hash"]) == len(meta["dependency_hash"]) == 64
        assert meta["year"]["epsilon"] > meta["quarter"]["epsilon"] > meta["epsilon"]
        for spec, vector in zip(release.vectors, plan.vectors, strict=True):
            rows = release.vector(spec.name)
            assert len(rows) == vector.cells
            if plan.measure != "trials":
                assert np.allclose(rows["variance"], spec.variance) and spec.variance == pytest.approx(
                    (spec.l2_bound / np.sqrt(2 * spec.nano_rho / NANO)) ** 2, rel=1e-6
                )
                assert np.allclose(rows["value"], rows["units"] * spec.unit)
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    kpi = read_release(paths[0]).table
    assert list(kpi.columns) == ["vector", "geo", "week", "metric", "units", "value", "variance"]
    assert kpi["week"].iloc[0] == here.question.blocks[0].weeks[0]
    assert list(read_release(paths[1]).table.columns)[1:8] == [
        "source", "target", "channel", "position", "length", "channels", "outcome",
    ]  # fmt: skip
    trial = read_release(paths[3]).table.set_index(["arm", "component"])
    assert trial.loc[("control", "revenue*revenue"), "variance"] == pytest.approx(
        trial.loc[("control", "n"), "variance"] * (200**2) ** 2
    )


def test_noise_is_added_to_every_cell_and_only_noise(here, inputs) -> None:  # type: ignore[no-untyped-def]
    """Each cell within 7 claimed standard deviations of the exact figure (false alarm under 1e-8 a run), none equal."""
    paths, exact = here.publish(inputs), here.exact(inputs)
    for path, plan in zip(paths, plan_releases(here.question, here.policy), strict=True):
        table = read_release(path).table
        for v in plan.vectors:
            units = table.loc[table["vector"] == v.name, "units"].to_numpy()
            gap = (units - exact[f"{plan.measure} {plan.blocks[0]}", v.name]) / v.sigma_units
            assert np.abs(gap).max() < 7 and np.abs(gap).min() > 0


def test_a_second_run_reads_nothing_and_changes_nothing(here, inputs, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    here.publish(inputs)
    before, spent = contents(here), read_charges(here.ledger)
    head = here.ledger.head.read_bytes()
    monkeypatch.setattr(module, "load_people", lambda *_: pytest.fail("events were read again"))
    (here.root / "events.csv").unlink()
    here.publish(inputs)
    assert contents(here) == before and here.ledger.head.read_bytes() == head
    assert read_charges(here.ledger).equals(spent)
    assert not list((here.root / "raw" / "staging").iterdir())


def test_nothing_exact_is_left_on_disk(here, inputs) -> None:  # type: ignore[no-untyped-def]
    here.publish(inputs)
    left = {str(p.relative_to(here.root)) for p in here.root.rglob("*") if p.is_file()}
    allowed = {"events.csv", "assignments.csv", ".plumb/ledger.sqlite", "config/head", "config/head.lock",
               "raw/log/2026-01.sealed", "raw/publishing.lock"}  # fmt: skip
    assert {p for p in left if not p.startswith("releases/")} - {
        p + s for p in allowed for s in ("", "-wal", "-shm")
    } == set()


def crash_after_charge(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any) -> bytes:
        raise Killed

    monkeypatch.setattr(module, "_draw", die)


def crash_half_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(path: Path, content: bytes) -> None:
        disk.write_into(path, content[: len(content) // 2])
        raise Killed

    monkeypatch.setattr(module, "write_into", die)


def crash_before_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(module, "_commit", die)


def crash_before_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    rename = module._rename

    def die(source: Path, target: Path) -> None:
        if target.parent.name == "releases":
            raise Killed
        rename(source, target)

    monkeypatch.setattr(module, "_rename", die)


@pytest.mark.parametrize(
    ("crash", "attempts", "keeps_draw"),
    [
        (crash_after_charge, 1, False),
        (crash_half_written, 1, False),
        (crash_before_commit, 0, True),
        (crash_before_rename, 0, True),
    ],
)
def test_a_crash_at_each_point_is_resumed_under_one_charge(  # type: ignore[no-untyped-def]
    here, inputs, monkeypatch, crash: Callable[[pytest.MonkeyPatch], None], attempts, keeps_draw
) -> None:
    with monkeypatch.context() as patched:
        crash(patched)
        with pytest.raises(Killed):
            here.publish(inputs)
    charged = read_charges(here.ledger)
    assert len(charged) == 1 and not contents(here)
    staged = [b"".join(Vault.of(SECRET).read(p)) for p in (here.root / "raw" / "staging").glob("*.sealed")]
    assert len(staged) == keeps_draw
    paths = here.publish(inputs)
    assert entries(here, "attempt") == attempts
    assert entries(here, "reserve") == len(paths) == 4
    assert read_charges(here.ledger)["rho"].sum() == pytest.approx(0.2 * 0.95)
    if keeps_draw:
        assert paths[0].read_bytes() == staged[0], "a whole staged draw is the one that is published"
    assert not list((here.root / "raw" / "staging").iterdir())
    assert {p.suffix for p in (here.root / "releases").iterdir()} == {".parquet"}
    verify_ledger(here.ledger)


def test_a_draw_that_is_not_published_cannot_be_read(here, inputs, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Neither the one that waits nor, after a crash, the one that is never published: sealed under the secret."""
    drawn: list[bytes] = []
    stage = module._stage

    def keep(content: bytes, *more: Any) -> None:
        drawn.append(content)
        stage(content, *more)

    with monkeypatch.context() as patched:
        patched.setattr(module, "_stage", keep)
        crash_before_commit(patched)
        with pytest.raises(Killed):
            here.publish(inputs)
    (path,) = (p for p in (here.root / "raw" / "staging").iterdir() if p.suffix == ".sealed")
    assert b"".join(Vault.of(SECRET).read(path)) == drawn[0] and drawn[0][:4] == b"PAR1"
    with pytest.raises(PrivacyError, match="does not open"):
        list(Vault.of(b"another secret of thirty-two byte").read(path))
    on_disk = [p.read_bytes() for p in (*here.root.glob("raw/**/*"), *here.root.glob("releases/.*")) if p.is_file()]
    assert not any(b"PAR1" in text or b"plumbline" in text for text in on_disk)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("when", ["before", "between"])
def test_a_link_in_the_place_of_a_release_is_not_followed(here, inputs, monkeypatch, tmp_path, when: str) -> None:  # type: ignore[no-untyped-def]
    target = tmp_path / "somebody's file"
    target.write_text("precious")
    plan = plan_releases(here.question, here.policy)[0]
    link = here.root / "releases" / f".{plan.release_id}.part"
    link.parent.mkdir()
    if when == "between":  # the failed run gives its room back, so the name is free when the link is planted
        with monkeypatch.context() as patched:
            crash_before_rename(patched)
            with pytest.raises(Killed):
                here.publish(inputs)
    link.symlink_to(target)
    paths = here.publish(inputs)
    assert target.read_text() == "precious" and paths[0].is_file() and not paths[0].is_symlink()


def test_a_planted_staged_file_is_not_published(here, inputs, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    with monkeypatch.context() as patched:
        crash_before_commit(patched)
        with pytest.raises(Killed):
            here.publish(inputs)
    staged = next((here.root / "raw" / "staging").glob("*.sealed"))
    staged.write_bytes(staged.read_bytes()[:-10])
    here.publish(inputs)
    assert entries(here, "attempt") == 1


def run_until_killed(root: str, marker: str) -> None:
    from privacy_worlds import World, question  # noqa: PLC0415

    here = World(Path(root), question=question())
    here.publish(here.inputs(Path(root) / "events.csv", Path(root) / "assignments.csv"))
    Path(marker).write_text("done")


def test_sigkill_at_random_moments(world, make_event, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Published files stay byte-identical, charges are those of one clean run, the ledger verifies."""
    here = world()
    rows = [make_event(f"p{i % 50}", i, f"2024-0{1 + i % 6}-1{i % 10}", "conversion") for i in range(300)]
    here.write(rows)
    here.groups([(f"p{i}", "control") for i in range(50)])
    marker, moments = tmp_path / "done", random.Random(4)
    context = multiprocessing.get_context("spawn")
    seen: dict[str, bytes] = {}
    for kill in (True, True, True, True, False):
        process = context.Process(target=run_until_killed, args=(str(here.root), str(marker)))
        process.start()
        until = time.monotonic() + 60
        while kill and process.is_alive() and time.monotonic() < until and len(contents(here)) <= len(seen):
            time.sleep(0.01)
        if kill and process.pid and process.is_alive():
            time.sleep(moments.random() * 0.2)
            os.kill(process.pid, signal.SIGKILL)
        process.join(120)
        now = contents(here)
        assert {name: now[name] for name in seen} == seen
        seen = now
    assert marker.exists()
    verify_ledger(here.ledger)
    plans = plan_releases(here.question, here.policy)
    assert sorted(seen) == sorted(f"{p.release_id}.parquet" for p in plans)
    assert round(read_charges(here.ledger)["rho"].sum() * NANO) == sum(c.nano_rho for p in plans for c in p.charges)


def test_a_full_disk_is_met_before_anything_is_charged(here, inputs, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(WorkspaceError, match="is full; make room and run again"):
            here.publish(inputs)
    assert read_charges(here.ledger).empty and not list((here.root / "raw" / "staging").iterdir())
    assert len(here.publish(inputs)) == 4


def test_bad_input_is_met_before_anything_is_charged(here, inputs, make_event) -> None:  # type: ignore[no-untyped-def]
    path = here.write([make_event("a", 1, "2024-02-01"), make_event("a", 2, "soon")])
    with pytest.raises(InputError, match=r"more than 0\.01 of the rows are malformed"):
        here.publish(replace(inputs, events=replace(inputs.events, paths=(path,))))
    assert read_charges(here.ledger).empty and not contents(here)


def test_one_process_at_a_time_publishes(here, inputs) -> None:  # type: ignore[no-untyped-def]
    """Two would both find a reservation without a file, and draw twice under one charge."""
    here.publish(inputs)
    head = here.ledger.head.read_bytes()
    with (
        disk.only_one(here.root / "raw" / module.LOCK),
        pytest.raises(WorkspaceError, match="another process is publishing releases of this workspace"),
    ):
        here.publish(inputs)
    assert here.ledger.head.read_bytes() == head
    here.publish(inputs)


def test_published_files_are_guarded(here, inputs) -> None:  # type: ignore[no-untyped-def]
    path = here.publish(inputs)[1]
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"!")
    with pytest.raises(LedgerError, match="was edited after publication"):
        here.publish(inputs)
    path.unlink()
    with pytest.raises(
        LedgerError, match="was published and is missing. Restore it from a copy; it is never drawn again"
    ):
        here.publish(inputs)
    path.write_bytes(good)
    here.publish(inputs)


def test_releases_without_their_ledger_are_refused(here, inputs) -> None:  # type: ignore[no-untyped-def]
    here.publish(inputs)
    for path in (here.ledger.db, here.ledger.head):
        path.unlink()
    with pytest.raises(LedgerError, match="the ledger does not know that it was published"):
        here.publish(inputs)


def test_a_changed_question_cannot_spend_twice(here, inputs) -> None:  # type: ignore[no-untyped-def]
    here.publish(inputs)
    before = contents(here)
    here.question = replace(here.question, geos=("north", "south", "west"))
    with pytest.raises(BudgetExceeded, match=r"kpi has 0 of 0\.1 left. It was spent by kpi-2024-01-01-.*geos, weeks"):
        here.publish(inputs)
    here.policy = replace(here.policy, rho_per_user_quarter=0.4)
    with pytest.raises(PrivacyError, match=r"opened with privacy\.rho_per_user_quarter = 0\.2 and .* now says 0\.4"):
        here.publish(inputs)
    assert contents(here) == before


def test_settings_that_change_the_meaning_are_refused(here, inputs) -> None:  # type: ignore[no-untyped-def]
    here.publish(inputs)
    for change in ({"currency": "EUR"}, {"time_zone": "Asia/Tokyo"}, {"conversion_is_touch": True}):
        with pytest.raises(PrivacyError, match=r"was released with .* and plumb\.toml now says"):
            here.publish(replace(inputs, **change))


def test_reading_something_else_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"nothing")
    with pytest.raises(PrivacyError, match="is not a readable release file"):
        read_release(path)


def test_the_same_content_gives_the_same_bytes(here) -> None:  # type: ignore[no-untyped-def]
    plan = plan_releases(here.question, here.policy)[0]
    keys = module.release_keys(plan, here.question, here.policy)
    tables = [files.vector_table(keys[v.name], v, np.arange(v.cells, dtype=np.int64)) for v in plan.vectors]
    assert files.encode(tables, {"a": 1}) == files.encode(list(tables), json.loads('{"a": 1}'))


def test_progress_is_told(here, inputs) -> None:  # type: ignore[no-untyped-def]
    told: list[tuple[str, int, int]] = []
    here.publish(inputs, progress=lambda *step: told.append(step))
    assert told[0] == ("reading events", 0, 4) and told[-1] == ("released", 4, 4)
    assert told[1] == ("releasing kpi quarter-2024-01-01", 0, 4)
