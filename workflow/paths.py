"""Where everything of a workspace lies (docs/architecture.md), and the secrets that lie outside it."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from app.saved.files import LOCK_FOLDER, STATE_NAME, TABLES_NAME
from contracts.errors import WorkspaceError
from privacy.rawzone import require_private

CONFIG_NAME = "plumb.toml"
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Workspace:
    """One folder with `plumb.toml`. Properties are paths; nothing is created by asking for one."""

    root: Path

    @property
    def config(self) -> Path:
        """The only file that a person edits."""
        return self.root / CONFIG_NAME

    @property
    def state(self) -> Path:
        """Ledger, artifacts, lock and log."""
        return self.root / LOCK_FOLDER

    @property
    def runs(self) -> Path:
        """Artifacts of each step, `STEP/KEY/`."""
        return self.state / "runs"

    @property
    def logs(self) -> Path:
        """Tracebacks of unexpected errors."""
        return self.state / "log"

    @property
    def ledger(self) -> Path:
        """The privacy ledger."""
        return self.state / "ledger.sqlite"

    @property
    def lock(self) -> Path:
        """One run at a time."""
        return self.state / "lock"

    @property
    def releases(self) -> Path:
        """Published releases, one Parquet file each."""
        return self.root / "releases"

    @property
    def raw(self) -> Path:
        """The raw zone: staging, quarantine and exact counts. Mode 0700."""
        return self.root / "raw"

    @property
    def warehouse(self) -> Path:
        """The published tables."""
        return self.root / "warehouse.duckdb"

    @property
    def tables(self) -> Path:
        """The published tables as Parquet files."""
        return self.root / TABLES_NAME

    @property
    def saved_state(self) -> Path:
        """Scenarios and comments that people saved in the explorer."""
        return self.root / STATE_NAME

    @property
    def report(self) -> Path:
        """The offline report."""
        return self.root / "report.html"

    def require(self) -> Workspace:
        """Itself. Raises WorkspaceError when the folder or its plumb.toml is missing."""
        if not self.root.is_dir():
            raise WorkspaceError(f"{self.root} is not a folder; name a folder that holds your input files.")
        if not self.config.is_file():
            raise WorkspaceError(f"{self.root} has no {CONFIG_NAME}; create it with: plumb init {self.root}")
        return self


def secret_home(project_id: str) -> Path:
    """Folder of the secrets of one workspace: `$XDG_CONFIG_HOME/plumb/<workspace id>`."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "plumb" / project_id


def make_private(folder: Path) -> Path:
    """Creates `folder` for its owner only (0700)."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def ensure_secret(project_id: str) -> Path:
    """Path of the workspace's secret; writes 32 random bytes (0600) when there is none yet."""
    path = make_private(secret_home(project_id)) / "secret"
    if path.exists():
        return path
    temporary = path.with_name(f".secret-{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(secrets.token_bytes(SECRET_BYTES))
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(path)
    return path


def read_secret(workspace: Workspace, project_id: str) -> bytes:
    """The workspace's secret. A workspace with a ledger and without its secret is refused: both belong together."""
    path = secret_home(project_id) / "secret"
    if not path.exists():
        if workspace.ledger.exists():
            raise WorkspaceError(
                f"the secret of this workspace is missing ({path}), but its ledger exists; "
                "bring the folder back from the machine or backup on which the workspace was made."
            )
        ensure_secret(project_id)
    require_private(path.parent)
    require_private(path)
    found = path.read_bytes()
    if len(found) < SECRET_BYTES:
        raise WorkspaceError(f"{path} holds {len(found)} bytes; a secret has {SECRET_BYTES}. Restore it from a backup.")
    return found


def require_space(folder: Path, needed: int) -> None:
    """Raises WorkspaceError unless `needed` bytes are free where `folder` lies."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise WorkspaceError(
            f"the disk of {folder} has {free / 1e6:.0f} MB free and this step needs about {needed / 1e6:.0f} MB; "
            "make room and run again. Nothing was changed and no privacy budget was spent."
        )
