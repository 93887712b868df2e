"""The chain behind the ledger: what an entry is, what all entries together mean, and the newest hash kept outside.

| kind | says | changes |
|---|---|---|
| open | a ledger began | nothing |
| block | a quarter was opened with this grant, under this calendar | caps |
| reserve | a release was charged to its blocks, to its measure's share or to the one that is named | spent, + |
| draw | noise for a reserved release is about to be drawn | from here on its charge can never be taken back |
| attempt | a crash came before a whole file; the release is drawn again under the same charge | nothing |
| publish | the file with this hash is out | nothing |
| void | a charge was taken back, because the chain shows that nothing was ever drawn for it | spent, - |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import LedgerError
from privacy.disk import write_private

GENESIS = "0" * 64
KINDS = ("open", "block", "reserve", "draw", "attempt", "publish", "void")


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the chain."""

    seq: int
    kind: str
    body: str  # canonical JSON
    at: str  # ISO time, UTC; as the machine's clock said
    prev_hash: str
    row_hash: str

    @property
    def data(self) -> dict[str, Any]:
        """The body, read."""
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass(frozen=True, slots=True)
class LedgerPaths:
    """Where the ledger lies, and the file outside the workspace that holds its newest hash (0600)."""

    db: Path
    head: Path

    @property
    def lock(self) -> Path:
        """Held while the ledger and its head change, so that two ledgers can never share one head."""
        return self.head.with_name(self.head.name + ".lock")


@dataclass
class _Release:
    measure: str
    payer: str
    spec_hash: str
    state: str
    drawn: int
    out_hash: str | None
    reserve_hash: str
    charges: Mapping[str, int]


Tables = dict[str, set[tuple[Any, ...]]]


def entry_hash(seq: int, kind: str, body: str, at: str, prev_hash: str) -> str:
    """SHA-256 that chains an entry to the one before it."""
    return hashlib.sha256(json.dumps([seq, kind, body, at, prev_hash]).encode()).hexdigest()


def follow(chain: Sequence[Entry], db: Path) -> None:
    """Raises LedgerError at the first entry that does not follow from the one before it."""
    prev = GENESIS
    for i, e in enumerate(chain):
        sound = e.seq == i and e.prev_hash == prev and e.kind in KINDS
        if not sound or entry_hash(e.seq, e.kind, e.body, e.at, e.prev_hash) != e.row_hash:
            raise LedgerError(
                f"the ledger {db} was edited: entry {e.seq} does not follow from the one before it. "
                "Restore the newest untouched copy."
            )
        prev = e.row_hash


def tables_of(chain: Sequence[Entry]) -> Tables:
    """What the ledger's tables must hold, from the entries alone."""
    blocks: dict[str, list[Any]] = {}
    parts: dict[tuple[str, str], list[int]] = {}
    releases: dict[str, _Release] = {}
    charges: set[tuple[Any, ...]] = set()

    def move(release: _Release, sign: int) -> None:
        for block, nano in release.charges.items():
            blocks[block][1] += sign * nano
            parts[block, release.payer][1] += sign * nano

    for e in chain:
        data = e.data
        if e.kind == "block":
            blocks[data["block"]] = [data["cap"], 0, canonical(data["calendar"])]
            parts |= {(data["block"], name): [nano, 0] for name, nano in data["parts"].items()}
        elif e.kind == "reserve":
            made = _Release(
                data["measure"], payer_of(data), data["spec_hash"], "reserved", 0, None, e.row_hash, data["charges"]
            )
            releases[data["release"]] = made
            move(made, 1)
            charges |= {(e.row_hash, data["release"], b, nano, e.at, data["by"]) for b, nano in made.charges.items()}
        elif e.kind == "draw":
            releases[data["release"]].drawn = 1
        elif e.kind == "publish":
            releases[data["release"]].state, releases[data["release"]].out_hash = "published", data["hash"]
        elif e.kind == "void":
            releases[data["release"]].state = "void"
            move(releases[data["release"]], -1)
    return {
        "block": {(k, *v) for k, v in blocks.items()},
        "allotment": {(*k, *v) for k, v in parts.items()},
        "release": {
            (k, r.measure, r.spec_hash, r.state, r.drawn, r.out_hash, r.reserve_hash) for k, r in releases.items()
        },
        "charge": charges,
    }


def payer_of(reserve: Mapping[str, Any]) -> str:
    """The share that a reservation is charged to: its measure's, unless the entry names another."""
    return str(reserve.get("share", reserve["measure"]))


def canonical(value: Any) -> str:
    """JSON with sorted keys: one text for one value."""
    return json.dumps(value, sort_keys=True)


def read_head(paths: LedgerPaths) -> str | None:
    """The newest hash seen, or None when nothing was ever written. Raises LedgerError for a damaged file."""
    if not paths.head.exists():
        return None
    try:
        return str(json.loads(paths.head.read_text())["hash"])
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(
            f"the file {paths.head} is damaged ({error}); restore it from the secrets' backup."
        ) from error


def write_head(paths: LedgerPaths, seq: int, row_hash: str) -> None:
    """Puts the newest hash outside the database."""
    write_private(paths.head, json.dumps({"seq": seq, "hash": row_hash}) + "\n")


def other_copy(paths: LedgerPaths) -> LedgerError:
    """The refusal of a ledger that its head does not belong to."""
    return LedgerError(
        f"the ledger {paths.db} is an older or another copy: the newest entry recorded in {paths.head} is not in it. "
        "Put the newest ledger back; running on an old one would forget what was spent."
    )


def head_missing(paths: LedgerPaths) -> LedgerError:
    """The refusal of a ledger without its guard."""
    return LedgerError(
        f"the file {paths.head}, which guards the ledger {paths.db} against older copies, is missing. "
        "Restore it (it belongs to the workspace's secrets); nothing is released without it."
    )
