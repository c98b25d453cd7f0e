"""Deployment packages in a directory, or in a temporary one: the code store of a single machine.

::

    DIR/code/<sha256>.zip      the packages, as they were uploaded
    DIR/code/.key              what download URLs are signed with
    DIR/unpacked/<sha256>/     what is run; can be deleted while the host is down, it is made again

The management API puts packages and asks for URLs; fetchers ask for folders; the host sweeps. Blocking work is done on
threads of the store. Several processes may share the directory.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

from serverfull.domain.checksums import is_sha256, sha256_of
from serverfull.errors import InternalFailure
from serverfull.interfaces import CodeStore
from serverfull.storage.durable import Threads, delete_leftovers, flush_folder, held, make_private, write_file
from serverfull.storage.signing import DownloadKey
from serverfull.storage.temporary import TemporaryFolder
from serverfull.storage.trees import Trees

RECENT = 300.0
"""Seconds for which a package that was put is never swept: its function may not have been written down yet."""

DOWNLOADS = "/_serverfull/code"
"""Where the host serves packages."""


class FileCodeStore(CodeStore):
    """Keeps packages in a directory.

    :param directory: made where it is missing, for its owner alone.
    :param recent: seconds for which `sweep` spares a package that was put by this store, wanted or not.
    :raises OSError: it cannot be made, or is somebody else's.
    """

    def __init__(self, directory: Path, *, recent: float = RECENT) -> None:
        self._packages = directory / "code"
        unpacked = directory / "unpacked"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self._packages, unpacked):
            make_private(folder)
        self._threads = Threads("serverfull-code")
        self._trees = Trees(unpacked, self._threads)
        self._key = DownloadKey(self._packages / ".key")
        self._recent = recent
        self._put_at: dict[str, float] = {}

    async def put(self, package: bytes) -> str:
        """Keep a package, durably when this returns; gives its SHA-256.

        :raises OSError: the disk is full or fails; nothing of the package is left.
        """
        return await self._threads.run(partial(self._put, package))

    def _put(self, package: bytes) -> str:
        sha256 = sha256_of(package)
        with held(self._packages):
            self._put_at[sha256] = time.monotonic()
            write_file(self._file(sha256), package)  # also where it is there: a damaged one is whole again after it
        return sha256

    async def package(self, sha256: str) -> bytes:
        """Give a package's bytes.

        :raises KeyError: it is not there.
        :raises InternalFailure: the file was changed behind the store's back.
        """
        return await self._threads.run(partial(self._read, sha256))

    def _read(self, sha256: str) -> bytes:
        try:
            package = self._file(sha256).read_bytes()
        except FileNotFoundError:
            raise KeyError(sha256) from None
        if sha256_of(package) != sha256:
            raise InternalFailure(f"The stored package {sha256} is damaged. Deploy the function again.")
        return package

    def file(self, sha256: str) -> Path:
        """Give the file of a package, for downloads.

        :raises KeyError: it is not there.
        """
        path = self._file(sha256)
        if not path.is_file():
            raise KeyError(sha256)
        return path

    def _file(self, sha256: str) -> Path:
        if not is_sha256(sha256):
            raise KeyError(sha256)
        return self._packages / f"{sha256}.zip"

    async def tree(self, sha256: str) -> Path:
        """Give the folder that holds the unpacked package; unpacked now, once, where it is not yet.

        :raises KeyError: the package is not there.
        :raises InvalidParameterValue: it cannot be unpacked.
        :raises OSError: the disk is full or fails; nothing of the folder is left.
        """
        if not is_sha256(sha256):
            raise KeyError(sha256)
        return await self._trees.get(sha256, self._read)

    async def url(self, sha256: str, seconds: int) -> str:
        """Give a path with a signature that downloads the package from this host for so many seconds.

        It is still good after a restart: the key is kept.
        """
        expires = int(time.time()) + seconds
        signature = await self._threads.run(partial(self._key.sign, sha256, expires))
        return f"{DOWNLOADS}/{sha256}?expires={expires}&signature={signature}"

    async def verify(self, sha256: str, expires: int, signature: str) -> bool:
        """Say whether a signature is one that `url` gave for this package and time, which may be over.

        How long that takes does not depend on how much of the signature is right.
        """
        return await self._threads.run(partial(self._key.verify, sha256, expires, signature))

    async def sweep(self, keep: set[str]) -> int:
        """Delete every package but these, and what a crash has left; gives how many packages went.

        Packages that this store put in the last few minutes stay too (``recent``): what names them may not have been
        written when ``keep`` was put together. After a start nothing is recent.
        """
        return await self._threads.run(partial(self._sweep, keep))

    def _sweep(self, keep: set[str]) -> int:
        with held(self._packages, alone=True):
            oldest = time.monotonic() - self._recent
            self._put_at = {sha256: at for sha256, at in self._put_at.items() if at > oldest}
            kept = keep | self._put_at.keys()
            delete_leftovers(self._packages)
            unwanted = [path for path in self._packages.glob("*.zip") if path.stem not in kept]
            for path in unwanted:
                path.unlink(missing_ok=True)
            flush_folder(self._packages)
            self._trees.keep_only(kept)  # still alone, or it would take the tree of a package that was put just now
        self._trees.delete_rest()
        return len(unwanted)

    async def aclose(self) -> None:
        """Wait for what is being written. Closing twice is fine."""
        await self._threads.aclose()


class MemoryCodeStore(FileCodeStore):
    """The code store of a host that keeps nothing: a temporary directory, deleted at the end.

    Functions are run from files, so there has to be one. What a host that is killed leaves is deleted by the next.
    """

    def __init__(self, *, recent: float = RECENT) -> None:
        self._folder = TemporaryFolder()
        super().__init__(self._folder.path, recent=recent)

    async def aclose(self) -> None:
        """Delete everything. Closing twice is fine."""
        await super().aclose()
        await asyncio.to_thread(self._folder.close)
