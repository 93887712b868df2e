"""The raw zone's rooms and rules: who may open it, how long it keeps what, and what was deleted when.

| place | holds | kept |
|---|---|---|
| `quarantine/NAME/DAY.sealed` | malformed rows of the loads of one day | `privacy.retention_days` |
| `log/MONTH.sealed` | exact counts of loads | `privacy.retention_days` after the month |
| `deletions.sealed` | what was deleted, when and why; no id | always |
| `staging/` | noisy releases before publication, sealed | until they are published |
| `blockmgr-*`, `spark-*` | what Spark spills, encrypted for its session | its session; if killed, `retention_days` |
"""

from __future__ import annotations

import calendar
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from contracts.errors import WorkspaceError
from privacy.disk import private_folder
from privacy.vault import SUFFIX, Vault

SPARK_FOLDERS = ("blockmgr-*", "spark-*")
DEFAULT_DAYS = 35  # a close lag of a month, and days to look into what was refused


@dataclass(frozen=True, slots=True)
class RawZone:
    """The folder, and the key of what lies in it."""

    folder: Path
    vault: Vault

    @staticmethod
    def of(folder: Path, secret: bytes) -> RawZone:
        """Makes the folder when there is none. Raises WorkspaceError when other users of the machine may open it."""
        if folder.exists():
            require_private(folder)
        return RawZone(private_folder(folder), Vault.of(secret))

    def quarantine(self, name: str, day: date) -> Path:
        """Malformed rows of one input in the loads of one day."""
        return self.folder / "quarantine" / name / f"{day}{SUFFIX}"

    def quarantines(self, name: str | None = None) -> list[Path]:
        """All partitions of the quarantine, oldest first."""
        found = (self.folder / "quarantine").glob(f"{name or '*'}/*{SUFFIX}")
        return sorted(found, key=lambda p: (p.stem, p.parent.name))

    def log(self, now: datetime, entry: dict[str, Any]) -> None:
        """Adds to the log: the only place where exact counts are written."""
        self.vault.append(self.folder / "log" / f"{now:%Y-%m}{SUFFIX}", {"at": now.isoformat()} | entry)

    def logged(self) -> list[dict[str, Any]]:
        """All entries that are still kept, oldest first."""
        return [e for p in sorted((self.folder / "log").glob(f"*{SUFFIX}")) for e in self.vault.entries(p)]

    @property
    def deletions(self) -> Path:
        """The log of deletions."""
        return self.folder / f"deletions{SUFFIX}"

    def delete(self, path: Path, why: str, now: datetime) -> None:
        """Deletes a file or folder of the zone and says so in the log; the intent is logged first, so that none is
        missing.
        """
        what = str(path.relative_to(self.folder))
        self.vault.append(self.deletions, {"at": now.isoformat(), "file": what, "why": why})
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def sweep(self, now: datetime, days: int) -> None:
        """Deletes the partitions that are older than `days`, and what a killed Spark left behind so long ago."""
        limit = now.date() - timedelta(days=days)
        for path in self.quarantines():
            if date.fromisoformat(path.stem) < limit:
                self.delete(path, f"older than {days} days", now)
        for path in sorted((self.folder / "log").glob(f"*{SUFFIX}")):
            year, month = map(int, path.stem.split("-"))
            if date(year, month, calendar.monthrange(year, month)[1]) < limit:
                self.delete(path, f"older than {days} days", now)
        for path in sorted(p for name in SPARK_FOLDERS for p in self.folder.glob(name)):
            if datetime.fromtimestamp(path.lstat().st_mtime, UTC).date() < limit:
                self.delete(path, f"left by Spark, older than {days} days", now)


def require_private(path: Path) -> None:
    """Raises WorkspaceError, with the command that mends it, when others than the owner may open a file or folder.

    What does not exist yet is created private later. A private folder covers what lies in it.
    """
    if not path.exists():
        return
    status = path.stat()
    mode = status.st_mode & 0o777
    if status.st_uid != os.geteuid():
        raise WorkspaceError(
            f"{path} belongs to another user of this machine; run as that user, or take it over with: "
            f"chown {os.geteuid()} {path}"
        )
    if mode & 0o077:
        private = "700" if path.is_dir() else "600"
        raise WorkspaceError(
            f"{path} may be opened by other users of this machine (mode {mode:04o}); run: chmod {private} {path}"
        )
