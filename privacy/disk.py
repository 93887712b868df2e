"""Durable writes: a file is either whole or absent after a crash, and private where it must be."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from contracts.errors import WorkspaceError


def private_folder(path: Path) -> Path:
    """Creates a folder that only its owner can open (0700)."""
    path.mkdir(parents=True, exist_ok=True)
    os.chmod(path, 0o700)
    return path


def sync_folder(path: Path) -> None:
    """Makes renames inside a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_private(path: Path, text: str) -> None:
    """Replaces a small file atomically, mode 0600, its new folders 0700."""
    if not path.parent.exists():
        private_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(handle, text.encode())
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise full_disk(path, error) from error


def full_disk(path: Path, error: OSError) -> WorkspaceError:
    """The sentence for a write that failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return WorkspaceError(f"the disk that holds {path.parent} is full; make room and run again.")
    return WorkspaceError(f"{path} cannot be written ({error.strerror}); check the folder's permissions.")


def preallocate(path: Path, size: int) -> None:
    """Takes `size` bytes of disk for a new file now, in place of what bears its name (also of a link, which is not
    followed). Raises WorkspaceError when the disk has no room.
    """
    try:
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(handle, 0, size)
        finally:
            os.close(handle)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise full_disk(path, error) from error


def write_into(path: Path, content: bytes) -> None:
    """Writes into a file taken by `preallocate`, cuts it to size and makes it durable. A link is replaced by a file."""
    try:
        if path.is_symlink():
            path.unlink()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(handle, view) :]
            os.ftruncate(handle, len(content))
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise full_disk(path, error) from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def bytes_hash(content: bytes) -> str:
    """SHA-256 of what a file holds, or will hold."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Lets one process at a time publish: two would draw twice under one charge. Raises WorkspaceError."""
    guard = FileLock(lock, timeout=0, mode=0o600)
    try:
        guard.acquire()
    except Timeout as error:
        raise WorkspaceError(
            f"another process is publishing releases of this workspace ({lock}); wait for it to end."
        ) from error
    try:
        yield
    finally:
        guard.release()
