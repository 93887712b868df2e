"""Partitions of people's rows between two steps of a load: in memory while they are few, else sealed in nameless files.

A sealed chunk is an Arrow stream under AES-256-GCM of the library `cryptography`. The key is drawn for one load, lives
in this process only and is never written; the files have no name in any folder (the kernel frees them when the process
ends, however it ends). What a power cut leaves on the disk are blocks that nobody can open.
"""

from __future__ import annotations

import os
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pyarrow as pa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from contracts.errors import PrivacyError
from privacy.disk import full_disk, private_folder

_LENGTH = struct.Struct("<Q")
_NONCE_BYTES, _TAG_BYTES = 12, 16


@dataclass(slots=True)
class _Shelf:
    """One partition: its chunks, or its file and how many chunks are in it."""

    memory: list[pa.Table] = field(default_factory=list)
    file: IO[bytes] | None = None
    chunks: int = 0


class Spool:
    """Append-only shelves by name. With `folder` None they stay in memory.

    Chunks are written, sealed and read through two buffers that live as long as the spool: fresh memory for each chunk
    costs several times what the cipher does.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = None if folder is None else private_folder(folder)
        self._cipher = AESGCM(AESGCM.generate_key(bit_length=256))
        self._sealed = 0  # chunks sealed so far under this key; the nonce counts them, so none repeats
        self._shelves: dict[str, _Shelf] = {}
        self._plain, self._cover = bytearray(), bytearray()

    def append(self, name: str, rows: pa.Table) -> None:
        """Adds rows to a shelf. Raises WorkspaceError when the disk is full."""
        shelf = self._shelves.setdefault(name, _Shelf())
        if self._folder is None:
            shelf.memory.append(rows)
            return
        size = _stream(rows, pa.MockOutputStream())
        if len(self._plain) < size:
            self._plain = bytearray(size)
        plain, sealed = memoryview(self._plain)[:size], self._room(size + _TAG_BYTES)
        _stream(rows, pa.FixedSizeBufferWriter(pa.py_buffer(plain)))
        nonce = self._sealed.to_bytes(_NONCE_BYTES)
        self._sealed += 1
        self._cipher.encrypt_into(nonce, plain, _place(name, shelf.chunks), sealed)
        try:
            if shelf.file is None:
                shelf.file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
            for part in (_LENGTH.pack(len(sealed)), nonce, sealed):
                _write(shelf.file, part)
        except OSError as error:
            raise full_disk(self._folder / "spool", error) from error
        shelf.chunks += 1

    def read(self, name: str) -> pa.Table | None:
        """All rows of a shelf in the order in which they came; None when nothing was put there.

        Raises PrivacyError when the file changed under us.
        """
        shelf = self._shelves.get(name)
        if shelf is None:
            return None
        tables = shelf.memory if shelf.file is None else self._opened(name, shelf, shelf.file)
        return pa.concat_tables(tables)

    def _opened(self, name: str, shelf: _Shelf, file: IO[bytes]) -> list[pa.Table]:
        whole = file.seek(0, os.SEEK_END)
        file.seek(0)
        tables = []
        try:
            for number in range(shelf.chunks):
                (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
                if not _TAG_BYTES <= length <= whole:
                    raise EOFError
                nonce, sealed = file.read(_NONCE_BYTES), self._room(length)
                _read(file, sealed)
                plain = pa.allocate_buffer(length - _TAG_BYTES)  # the rows stay in it, so it is nobody else's
                self._cipher.decrypt_into(nonce, sealed, _place(name, number), memoryview(plain).cast("B"))
                tables.append(pa.ipc.open_stream(plain).read_all())
        except (InvalidTag, struct.error, EOFError) as error:
            raise PrivacyError("a temporary partition changed while it was in use; run again.") from error
        file.seek(0, os.SEEK_END)
        return tables

    def _room(self, size: int) -> memoryview:
        """The first `size` bytes of the buffer for sealed content."""
        if len(self._cover) < size:
            self._cover = bytearray(size)
        return memoryview(self._cover)[:size]

    def drop(self, name: str) -> None:
        """Forgets a shelf and frees its room."""
        shelf = self._shelves.pop(name, None)
        if shelf is not None and shelf.file is not None:
            shelf.file.close()

    def close(self) -> None:
        """Forgets everything."""
        for name in tuple(self._shelves):
            self.drop(name)


def _place(name: str, number: int) -> bytes:
    """What a chunk is bound to, so that none can be read in another's place."""
    return f"{name} {number}".encode()


def _stream(rows: pa.Table, sink: pa.NativeFile) -> int:
    """Writes rows as an Arrow stream and says how many bytes that takes."""
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return int(sink.tell())


def _write(file: IO[bytes], content: bytes | memoryview) -> None:
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def _read(file: IO[bytes], view: memoryview) -> None:
    """Fills the view. Raises EOFError where the file ends before it."""
    while view:
        got = file.readinto(view)  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        view = view[got:]
