"""Encryption at rest of everything that the raw zone keeps about people: quarantine, log, the list of forgotten ids.

Fernet of the library `cryptography` (AES-128-CBC with HMAC-SHA-256, authenticated), with a key derived from the
workspace secret, which lies outside the workspace. A sealed file is lines of tokens; inside each, before its content,
stand the name of its file, its place and whether it is the last one, so that a file that was cut, spliced or renamed
does not open.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from contracts.errors import PrivacyError
from privacy.disk import full_disk, private_folder, sync_folder

SUFFIX = ".sealed"


@dataclass(frozen=True, slots=True)
class Vault:
    """Seals and opens files of the raw zone. The key never appears in a representation of it."""

    fernet: Fernet = field(repr=False)

    @staticmethod
    def of(secret: bytes) -> Vault:
        """From the workspace secret; the label keeps this key apart from every other use of the secret."""
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"plumbline: raw zone").derive(secret)
        return Vault(Fernet(base64.urlsafe_b64encode(key)))

    def write(self, path: Path, chunks: Iterable[bytes]) -> None:
        """Replaces a file atomically by sealed chunks, mode 0600. Plain content never touches the disk."""
        private_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as stream:
                for line in self._lines(path.name, chunks):
                    stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        except OSError as error:
            raise full_disk(path, error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def sealed(self, name: str, content: bytes) -> bytes:
        """The bytes of a sealed file of that name with one chunk, for writers that have taken its room already."""
        return b"".join(self._lines(name, (content,)))

    def _lines(self, name: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
        before: bytes | None = None
        number = 0
        for chunk in chunks:
            if before is not None:
                yield self._token(name, number, False, before)
                number += 1
            before = chunk
        yield self._token(name, number, True, before or b"")

    def _token(self, name: str, number: int, last: bool, content: bytes) -> bytes:
        head = json.dumps([name, number, last]).encode()
        return self.fernet.encrypt(head + b"\n" + content) + b"\n"

    def read(self, path: Path) -> Iterator[bytes]:
        """Chunks of a sealed file. Raises PrivacyError when it was edited, cut, renamed or sealed under another key."""
        ended = False
        with path.open("rb") as stream:
            for number, line in enumerate(stream):
                head, _, content = self._open(path, line).partition(b"\n")
                ended = json.loads(head)[2]
                if json.loads(head)[:2] != [path.name, number]:
                    raise _damaged(path)
                yield content
        if not ended:
            raise _damaged(path)

    def append(self, path: Path, entry: dict[str, Any]) -> None:
        """Adds one line to a sealed log, durably. Lines of a log are sealed one by one."""
        private_folder(path.parent)
        token = self.fernet.encrypt(json.dumps(entry, sort_keys=True).encode()) + b"\n"
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(handle, token)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise full_disk(path, error) from error

    def entries(self, path: Path) -> list[dict[str, Any]]:
        """Lines of a sealed log; none when there is no such file. Raises PrivacyError for a line that does not open."""
        if not path.exists():
            return []
        with path.open("rb") as stream:
            return [json.loads(self._open(path, line)) for line in stream]

    def _open(self, path: Path, line: bytes) -> bytes:
        try:
            return self.fernet.decrypt(line.strip())
        except InvalidToken:
            raise _damaged(path) from None


def _damaged(path: Path) -> PrivacyError:
    return PrivacyError(
        f"{path} does not open: it was edited, cut or renamed, or sealed under another workspace secret. Bring the "
        "secret back, or take the file away."
    )
