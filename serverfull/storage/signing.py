"""Signs the paths by which a host gives packages away, so that only who was given one can follow it, for a while."""

from __future__ import annotations

import hmac
import os
import secrets
import threading
from pathlib import Path

from serverfull.storage.durable import flush_folder, held

_KEY_BYTES = 32


class DownloadKey:
    """A key in a file, made when it is first needed. May be used from any thread; blocks then for a moment.

    :param path: several processes may share it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key: bytes | None = None
        self._lock = threading.Lock()

    def sign(self, sha256: str, expires: int) -> str:
        """Give the signature for a package until a time, in seconds since the epoch."""
        return hmac.digest(self._get(), f"{sha256}\n{expires}".encode(), "sha256").hex()

    def verify(self, sha256: str, expires: int, signature: str) -> bool:
        """Say whether that is the signature, in a time that does not depend on how much of it is right."""
        return hmac.compare_digest(self.sign(sha256, expires).encode(), signature.encode("utf-8", "surrogateescape"))

    def _get(self) -> bytes:
        with self._lock:
            if self._key is None:
                self._key = self._read() or self._make()
            return self._key

    def _read(self) -> bytes | None:
        try:
            key = self._path.read_bytes()
        except FileNotFoundError:
            return None
        return key if len(key) == _KEY_BYTES else None

    def _make(self) -> bytes:
        """Write a new key; where another process has written one meanwhile, that one counts."""
        with held(self._path.parent):  # or a sweep takes the unfinished file for one that a crash has left
            fresh = self._path.with_name(f".new-{secrets.token_hex(8)}")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, secrets.token_bytes(_KEY_BYTES))
                os.fsync(descriptor)
                if self._path.exists():  # a damaged one: it was read before
                    self._path.unlink()
                os.link(fresh, self._path)
            except FileExistsError:
                pass
            finally:
                os.close(descriptor)
                fresh.unlink()
            flush_folder(self._path.parent)
            return self._path.read_bytes()
