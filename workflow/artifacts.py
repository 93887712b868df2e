"""Artifacts: the files that a step made, in a folder named by the hash of what they were made from.

A folder appears by one rename after everything in it was synced, so a killed run leaves a whole artifact or none.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.saved.files import sync_file, sync_folder
from contracts.errors import PlumblineError

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A complete artifact on disk. `files` maps each file's name to its SHA-256."""

    step: str
    key: str
    folder: Path
    run_id: str
    status: str  # 'done', 'failed_gate', or 'skipped' where the data could not carry the step
    reason: str
    started_at: datetime  # UTC, naive
    finished_at: datetime  # UTC, naive
    seconds: float
    inputs: Mapping[str, str]
    files: Mapping[str, str]
    facts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Hash of the content, without any time stamp: what later steps depend on."""
        return digest_of({"files": dict(self.files), "status": self.status, "facts": dict(self.facts)})

    def path(self, name: str) -> Path:
        """Path of one of its files."""
        return self.folder / name


def utc_now() -> datetime:
    """Naive UTC, as the warehouse's TIMESTAMP columns hold it."""
    return datetime.now(UTC).replace(tzinfo=None)


def digest_of(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def keyed_file_hash(path: Path, secret: bytes) -> str:
    """HMAC-SHA-256 of a file's bytes: a plain hash of user-level rows must not leave the raw zone."""
    with path.open("rb") as stream:
        return hmac.new(secret, hashlib.file_digest(stream, "sha256").digest(), hashlib.sha256).hexdigest()


def code_version(rooms: Iterable[str]) -> str:
    """Hash of the source files of root packages ('mmm') and single modules ('workflow.step_fit')."""
    hashes: dict[str, str] = {}
    for room in sorted(set(rooms)):
        spec = importlib.util.find_spec(room)
        if spec is None or spec.origin is None:
            raise PlumblineError(f"the package {room!r} is not installed; install Plumbline again (make env).")
        origin = Path(spec.origin)
        sources = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
        hashes |= {f"{room}/{p.relative_to(origin.parent)}": file_hash(p) for p in sources}
    return digest_of(hashes)


def replace_text(path: Path, text: str) -> None:
    """Writes a text file whole."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole: temporary file, sync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    sync_file(temporary)
    temporary.replace(path)
    sync_folder(path.parent)


class Draft:
    """A folder being filled; `commit` turns it into an artifact. Left behind by a kill, it is wiped by `begin`."""

    def __init__(self, runs: Path, step: str, key: str, started_at: datetime | None = None) -> None:
        self.step, self.key = step, key
        self.final = runs / step / key
        self.folder = runs / step / f".{key}.partial"
        self.started_at = started_at or utc_now()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def path(self, name: str) -> Path:
        """Path for a file to write."""
        return self.folder / name

    def clear(self) -> None:
        """Forgets what was written so far."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def commit(
        self,
        run_id: str,
        inputs: Mapping[str, str],
        facts: Mapping[str, Any] | None = None,
        status: str = "done",
        reason: str = "",
    ) -> Artifact:
        """Syncs, writes the manifest and renames the folder into place."""
        names = sorted(p.name for p in self.folder.iterdir())
        for name in names:
            sync_file(self.folder / name)
        finished = utc_now()
        manifest = {
            "step": self.step, "key": self.key, "run_id": run_id, "status": status, "reason": reason,
            "started_at": self.started_at.isoformat(), "finished_at": finished.isoformat(),
            "seconds": (finished - self.started_at).total_seconds(),
            "inputs": dict(inputs), "files": {n: file_hash(self.folder / n) for n in names},
            "facts": dict(facts or {}),
        }  # fmt: skip
        (self.folder / MANIFEST).write_text(json.dumps(manifest, indent=1, default=str), encoding="utf-8")
        sync_file(self.folder / MANIFEST)
        sync_folder(self.folder)
        if self.final.exists():
            shutil.rmtree(self.final)
        self.folder.rename(self.final)
        sync_folder(self.final.parent)
        return read_manifest(self.final)


def read_manifest(folder: Path) -> Artifact:
    """Artifact of a complete folder."""
    raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return Artifact(
        step=raw["step"], key=raw["key"], folder=folder, run_id=raw["run_id"], status=raw["status"],
        reason=raw["reason"], started_at=datetime.fromisoformat(raw["started_at"]),
        finished_at=datetime.fromisoformat(raw["finished_at"]), seconds=raw["seconds"],
        inputs=raw["inputs"], files=raw["files"], facts=raw["facts"],
    )  # fmt: skip


def find(runs: Path, step: str, key: str) -> Artifact | None:
    """The artifact of `step` under `key`, when it is complete."""
    folder = runs / step / key
    return read_manifest(folder) if (folder / MANIFEST).is_file() else None


def all_of(runs: Path, step: str) -> list[Artifact]:
    """Every complete artifact of one step, oldest first."""
    folders = (runs / step).glob(f"[!.]*/{MANIFEST}") if (runs / step).is_dir() else ()
    return sorted((read_manifest(p.parent) for p in folders), key=lambda a: (a.finished_at, a.key))
