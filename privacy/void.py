"""Taking a charge back. Allowed for one case only, and proved from the chain, not from anybody's word.

A charge pays for a draw. The ledger records, before the noise of a release is drawn, that it is about to be (`draw`).
A release that is reserved and has no such entry was cut off before its draw: no random number was made for it, so no
output exists that anybody could have seen, and giving the charge back is sound. Whatever has a `draw` entry keeps its
charge for good, also when its file is gone: absence of a file proves nothing. The files are looked at as well, so that
a ledger and a folder that contradict each other are met with a refusal.

That a release is voided may itself depend on the data only through the crash (memory, time); docs/privacy.md says so
under what is not protected. The human reason, or the hash of a proof file, goes into the chain beside what was found.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from contracts.errors import InputError, PrivacyError, WorkspaceError
from privacy.budget import recorded
from privacy.chain import LedgerPaths
from privacy.disk import file_hash, only_one
from privacy.files import read_release
from privacy.ledger import open_ledger
from privacy.publish import LOCK
from privacy.vault import SUFFIX

LEAST_REASON = 10  # characters
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Voided:
    """A charge that was taken back."""

    release_id: str
    charges: tuple[tuple[str, int], ...]  # (block, nano-rho) given back
    proof: dict[str, Any]  # as recorded in the chain


def proof_of(text: str) -> dict[str, Any]:
    """What a person offers: the hash of a file that exists under that name, else the words themselves.

    Raises InputError for words too few to mean anything, or a name that looks like a file and is none.
    """
    path = Path(text)
    if path.is_file():
        return {"reason": f"file {path.name}", "file": path.name, "sha256": file_hash(path)}
    if path.suffix and " " not in text.strip():
        raise InputError(f"--proof {text!r} looks like a file, and there is none; name a file or write a reason.")
    if len(text.strip()) < LEAST_REASON:
        raise InputError(f"--proof {text!r} is too short; say in a sentence why nothing was drawn, or name a file.")
    return {"reason": text.strip()}


def void_release(
    release_id: str, proof: str, *, ledger: LedgerPaths, releases_dir: Path, raw_dir: Path, actor: str, now: datetime
) -> Voided:
    """Takes back the charge of a release for which nothing was drawn, and records why.

    Raises PrivacyError when anything was or may have been drawn, when it is published or not charged at all,
    InputError for a proof that says nothing, WorkspaceError while releases are being published.
    """
    offered = proof_of(proof)
    if not ledger.db.exists() and not ledger.head.exists():
        raise PrivacyError(f"release {release_id} is charged nowhere: nothing was released from this workspace yet.")
    if not raw_dir.is_dir():
        raise WorkspaceError(
            f"{raw_dir} is missing, so nothing shows that no draw was staged there; bring it back from the machine on "
            "which the release was begun."
        )
    with only_one(raw_dir / LOCK), open_ledger(ledger, now) as book:
        state = book.state(release_id)
        if state is not None and state.state == "reserved" and not state.drawn:
            _nothing_published(release_id, releases_dir)
            offered["staging"] = _nothing_staged(release_id, raw_dir / "staging")
        book.void(release_id, offered | {"draws": 0, "by": actor}, now)
        mine = next(r for r in reversed(recorded(book.entries())) if r.release_id == release_id)
    (raw_dir / "staging" / f"{release_id}.part").unlink(missing_ok=True)
    (releases_dir / f".{release_id}.part").unlink(missing_ok=True)
    return Voided(release_id, mine.charges, dict(mine.voided or {}))


def _nothing_published(release_id: str, releases_dir: Path) -> None:
    """Raises PrivacyError when a file under the release's name, or a release of its id, lies among the releases."""
    for path in sorted(releases_dir.glob("*.parquet")) if releases_dir.is_dir() else []:
        if path.stem == release_id or read_release(path).release_id == release_id:
            raise PrivacyError(f"release {release_id} cannot be voided: {path} holds it, though the ledger says not.")


def _nothing_staged(release_id: str, staging: Path) -> str:
    """'absent' or 'empty'. Raises PrivacyError when anything was written into the staging files of the release."""
    whole, part = staging / f"{release_id}{SUFFIX}", staging / f"{release_id}.part"
    if whole.is_symlink() or whole.exists() or part.is_symlink():
        raise PrivacyError(f"release {release_id} cannot be voided: {whole.parent} holds a file of it.")
    if not part.exists():
        return "absent"
    with part.open("rb") as handle:
        while chunk := handle.read(_BLOCK):
            if chunk.strip(b"\0"):
                raise PrivacyError(f"release {release_id} cannot be voided: {part} is not empty.")
    return "empty"
