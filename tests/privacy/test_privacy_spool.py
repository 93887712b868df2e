"""Partitions between two steps of a load: what went in comes out, and the disk tells nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pyarrow as pa
import pytest

from contracts.errors import PrivacyError, WorkspaceError
from privacy import spool as module
from privacy.spool import Spool


def rows(*numbers: int) -> pa.Table:
    names = pa.array([f"somebody-{n}" for n in numbers], pa.string())
    return pa.table({"user_id": names, "n": pa.array(numbers, pa.int64())})


@pytest.fixture(params=["memory", "disk"])
def spool(request: pytest.FixtureRequest, tmp_path: Path):  # type: ignore[no-untyped-def]
    made = Spool(None if request.param == "memory" else tmp_path / "spool")
    yield made
    made.close()


def test_shelves_return_their_rows_in_order(spool) -> None:  # type: ignore[no-untyped-def]
    for n in range(5):
        spool.append("a", rows(n, n + 10))
        spool.append("b", rows(-n))
    spool.append("a", rows())
    assert spool.read("a")["n"].to_pylist() == [0, 10, 1, 11, 2, 12, 3, 13, 4, 14]
    assert spool.read("b")["user_id"].to_pylist() == ["somebody-0", *(f"somebody--{n}" for n in range(1, 5))]
    spool.append("a", rows(99))
    assert spool.read("a").num_rows == 11, "reading does not end a shelf"
    spool.drop("a")
    assert spool.read("a") is None and spool.read("never") is None


def content(spool: Spool, name: str) -> bytearray:
    file = spool._shelves[name].file
    assert file is not None
    file.seek(0)
    return bytearray(file.read())


def test_the_disk_holds_no_name_and_no_word(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append("a", rows(*range(200)))
    spool.append("a", rows(*range(200)))
    assert list((tmp_path / "spool").iterdir()) == [], "the file has no name, so nothing stays behind"
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    seen = content(spool, "a")
    assert b"somebody" not in seen and b"user_id" not in seen and b"ARROW" not in seen
    half = len(seen) // 2
    assert seen[8:20] != seen[half + 8 : half + 20], "no nonce is used twice"
    assert seen[20 : half - 16] != seen[half + 20 : -16], "so equal chunks do not look alike"
    spool.close()


@pytest.mark.parametrize("place", [30, -1])
def test_a_changed_byte_is_refused(tmp_path: Path, place: int) -> None:
    spool = Spool(tmp_path)
    spool.append("a", rows(1, 2))
    changed = content(spool, "a")
    changed[place] ^= 1
    os.pwrite(spool._shelves["a"].file.fileno(), changed, 0)  # type: ignore[union-attr]
    with pytest.raises(PrivacyError, match="a temporary partition changed while it was in use"):
        spool.read("a")
    spool.close()


def test_chunks_do_not_open_in_another_place(tmp_path: Path) -> None:
    """Swapped chunks, a chunk of another shelf, and a shelf cut short."""
    spool = Spool(tmp_path)
    for name in ("a", "a", "b"):
        spool.append(name, rows(7))
    a, b = content(spool, "a"), content(spool, "b")
    assert len(a) == 2 * len(b)
    for changed in (a[len(b) :] + a[: len(b)], b + a[len(b) :], a[: len(b)]):
        handle = spool._shelves["a"].file.fileno()  # type: ignore[union-attr]
        os.ftruncate(handle, 0)
        os.pwrite(handle, changed, 0)
        with pytest.raises(PrivacyError, match="changed while it was in use"):
            spool.read("a")
    spool.close()


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_write", full)
    spool = Spool(tmp_path)
    with pytest.raises(WorkspaceError, match="is full; make room and run again"):
        spool.append("a", rows(1))
    spool.close()
