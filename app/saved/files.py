"""Where saved work lies in a workspace, and how a published file is replaced: whole, synced, one writer at a time.

The explorer and the job both publish, and neither may import the other's code, so what they share of it lives here
(docs/decisions/0180).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from contracts.errors import WorkspaceError

STATE_NAME = "state.sqlite"
TABLES_NAME = "tables"
LOCK_FOLDER = ".plumb"
PUBLISH_LOCK = "publish.lock"
PATIENCE = 10.0  # seconds; building the file takes about one


class Busy(WorkspaceError):
    """Another process is replacing the published tables right now."""


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Flushes a file's bytes to disk."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def swap_files(fresh: Path, final: Path) -> None:
    """Files of the folder `fresh` replace those of `final` one by one; each is whole at any moment."""
    final.mkdir(exist_ok=True)
    for source in sorted(fresh.iterdir()):
        sync_file(source)
        source.replace(final / source.name)
    sync_folder(final)


@contextmanager
def publishing(root: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Holds the right to replace the published tables of the workspace `root`.

    Whoever builds a warehouse reads the saved state and renames the new file inside this lock, so that the last file
    written always holds the last save. Raises Busy when another process holds it for longer than `patience` seconds.
    """
    try:
        (root / LOCK_FOLDER).mkdir(exist_ok=True)
        lock = FileLock(root / LOCK_FOLDER / PUBLISH_LOCK, timeout=patience)
        lock.acquire()
    except Timeout:
        raise Busy(f"a plumb command is writing the tables of {root} right now; try again in a minute.") from None
    except PermissionError as error:
        raise WorkspaceError(f"{root} is not writable ({error.strerror}); mend its permissions.") from None
    try:
        yield
    finally:
        lock.release()
