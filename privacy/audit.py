"""The ledger as a whole, every stored release, and one received from elsewhere: `plumb verify` without the command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from contracts.errors import InputError, LedgerError
from privacy.budget import Spending, read_spending, spending
from privacy.chain import Entry, LedgerPaths
from privacy.disk import file_hash
from privacy.ledger import open_ledger
from privacy.vectors import ReleasePlan
from privacy.verify import Check, Surroundings, verify_file

LEAST_PREFIX, LEAST_WITNESS = 3, 8  # characters


@dataclass(frozen=True, slots=True)
class Subject:
    """What was checked: the ledger, or one release file."""

    name: str
    path: Path | None
    checks: tuple[Check, ...]

    @property
    def failed(self) -> bool:
        """True when something was computed again and is not the same."""
        return any(c.status == "fails" for c in self.checks)


def audit(
    names: tuple[str, ...],
    *,
    ledger: LedgerPaths,
    releases_dir: Path,
    plans: Mapping[str, ReleasePlan] | None,
    now: datetime,
    witness: str = "",
) -> tuple[Subject, ...]:
    """Checks the ledger and the named releases (ids, their beginnings, or paths), or all stored ones.

    `witness` is an entry's hash that somebody noted earlier; a ledger that was put back lacks it. Raises InputError for
    a name that fits nothing.
    """
    stored = sorted(releases_dir.glob("*.parquet")) if releases_dir.is_dir() else []
    chosen = [_find(name, stored) for name in names] if names else stored
    chain, fault = _chain(ledger, now)
    found = spending(chain) if chain else None
    subjects = [Subject("ledger", ledger.db, tuple(_ledger_checks(chain, fault, stored, found, witness)))]
    around = Surroundings(found, plans)
    for path in chosen:
        name, checks = verify_file(path, around, stored=path in stored)
        subjects.append(Subject(name, path, checks))
    return tuple(subjects)


def published_hashes(ledger: LedgerPaths, now: datetime) -> dict[str, str]:
    """Release id -> hash of its file, of everything that this ledger published. Raises LedgerError."""
    found = read_spending(ledger, now)
    return {r.release_id: r.out_hash for r in found.releases if r.out_hash is not None} if found else {}


def require_published(path: Path, release_id: str, hashes: Mapping[str, str]) -> None:
    """Raises LedgerError unless the file is the one that the ledger published under this id, a plain file of its name.

    Every reader of stored releases calls it, also for a release whose question plumb.toml no longer asks.
    """
    if release_id not in hashes:
        raise LedgerError(
            f"{path} exists, but the ledger of this workspace never released it; take it away, or put the newest "
            "ledger back."
        )
    if path.name != f"{release_id}.parquet" or path.is_symlink():
        raise LedgerError(
            f"{path} claims to be release {release_id}, which lies in a plain file of that name; take it away."
        )
    if file_hash(path) != hashes[release_id]:
        raise LedgerError(
            f"{path} was edited after publication: it is not the file that the ledger committed. Restore the published "
            "file; it is never drawn again."
        )


def _find(name: str, stored: list[Path]) -> Path:
    path = Path(name)
    if path.suffix == ".parquet" and path.is_file():
        same = [s for s in stored if s.absolute() == path.absolute()]
        return same[0] if same else path
    fits = [s for s in stored if s.stem == name] or [
        s for s in stored if len(name) >= LEAST_PREFIX and s.stem.startswith(name)
    ]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise InputError(f"{name!r} fits {len(fits)} releases: {', '.join(s.stem for s in fits)}; write more of it.")
    have = ", ".join(s.stem for s in stored) or "none"
    raise InputError(f"there is no release {name!r}; write an id or the path of a .parquet file. Stored: {have}.")


def _chain(ledger: LedgerPaths, now: datetime) -> tuple[tuple[Entry, ...], str]:
    """The verified chain, or the sentence that refuses it."""
    if not ledger.db.exists() and not ledger.head.exists():
        return (), ""
    try:
        with open_ledger(ledger, now) as book:
            return book.entries(), ""
    except LedgerError as error:
        return (), str(error)


def _ledger_checks(
    chain: tuple[Entry, ...], fault: str, stored: list[Path], found: Spending | None, witness: str
) -> list[Check]:
    if fault:
        return [Check("chain", "fails", fault)]
    if found is None:
        text = "there is none yet: nothing was released"
        out = [Check("chain", "fails" if stored else "holds", f"{text}, yet release files exist" if stored else text)]
        return out + ([Check("witness", "fails", "there is no ledger that could hold it")] if witness else [])
    out = [Check("chain", "holds", f"{len(chain)} entries follow from each other, and the newest is the head's")]
    over = [q.block for q in found.quarters if q.spent_nano > q.cap_nano]
    text = f"over the grant: {', '.join(over)}" if over else f"{len(found.quarters)} quarters are within their grants"
    out.append(Check("grants", "fails" if over else "holds", text))
    out += _files_checks(stored, found)
    back = [later.seq for earlier, later in zip(chain, chain[1:], strict=False) if later.at < earlier.at]
    if back:
        text = f"entries {', '.join(map(str, back))} are dated before the one before them: a clock was set back"
        out.append(Check("clock", "differs", text))
    if witness:
        holds = len(witness) >= LEAST_WITNESS and any(e.row_hash.startswith(witness) for e in chain)
        text = "the noted entry is in the chain" if holds else "the noted entry is not in the chain: an older copy"
        out.append(Check("witness", "holds" if holds else "fails", text))
    return out


def _files_checks(stored: list[Path], found: Spending) -> list[Check]:
    published = {r.release_id for r in found.releases if r.state == "published"}
    here = {p.stem for p in stored}
    missing, strange = sorted(published - here), sorted(here - published)
    out = []
    if missing:
        out.append(Check("files", "fails", f"published and missing: {', '.join(missing)}"))
    if strange:
        out.append(Check("files", "fails", f"never published by this ledger: {', '.join(strange)}"))
    if not out:
        out.append(Check("files", "holds", f"the {len(published)} published releases are there, and no other"))
    waiting = [r.release_id for r in found.releases if r.state in ("reserved", "drawn")]
    if waiting:
        text = f"charged and not out: {', '.join(waiting)}; plumb release finishes them under their charge"
        out.append(Check("unfinished", "differs", text))
    return out
