"""A bucket that functions lie in, as fetchers see it: documents, packages, and folders of what was unpacked.

Everything is bounded: how long S3 may be silent, how long an object may take, how large it may be. Only the endpoint
that was configured is called, and no redirect is followed. boto3 is called on threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from serverfull.domain.checksums import sha256_of
from serverfull.domain.limits import UNZIPPED_PACKAGE_BYTES
from serverfull.domain.objects import SeenObject, StoredObject
from serverfull.errors import InvalidParameterValue, SourceUnavailable
from serverfull.interfaces import Bucket
from serverfull.storage.durable import Threads, make_private
from serverfull.storage.s3 import ABSENT, S3Client, S3Endpoint, code_of, etag_of, require_boto3
from serverfull.storage.temporary import TemporaryFolder, remove_abandoned
from serverfull.storage.trees import Trees

Result = TypeVar("Result")

DOCUMENT_BYTES = 1 << 20
"""The most that a document may have; Lambda's own are below 100 KB."""

SILENCE = 5.0
"""Seconds that S3 may be silent."""

DOCUMENT_SECONDS, PACKAGE_SECONDS = 10.0, 300.0
"""That an object may take, however it comes."""

CLOSING = 2.0
"""Seconds that a host which ends waits for S3."""

_ATTEMPTS = 3
_PIECE = 1 << 18
_UNCHANGED = ("304", "NotModified")
_ANOTHER = ("412", "PreconditionFailed")
_BROKEN = "cannot be read: it changes all the time, or ends too early"


class S3Bucket(Bucket):
    """Reads a bucket of any S3 server.

    :param endpoint: None: where every AWS tool finds it, with the credentials that they find.
    :raises ExtraMissing: boto3 is not installed.
    """

    def __init__(self, name: str, endpoint: S3Endpoint | None = None) -> None:
        require_boto3(f"The bucket {name}")
        self.name = name
        self._client = S3Client(endpoint or S3Endpoint(), read_timeout=SILENCE, attempts=2)
        self._questions = Threads("serverfull-bucket", 8)
        self._packages = Threads("serverfull-bucket-packages")  # apart: a slow package keeps no document waiting
        self._folder: TemporaryFolder | None = None
        self._trees: Trees | None = None
        self._tidied = False
        self._digests: dict[str, str] = {}

    async def read(self, key: str, known: StoredObject | None = None) -> StoredObject | None:
        """Give a document, with one request where it is still as it was."""
        return await self._run(self._questions, key, partial(self._read, key, known))

    def _read(self, key: str, known: StoredObject | None) -> StoredObject | None:
        place = {"Bucket": self.name, "Key": key}
        asked = place | (_only("IfNoneMatch", known.etag) if known is not None else {})
        client = self._client.get()
        for _ in range(_ATTEMPTS):
            with self._codes() as codes:
                etag, content = _content(client.get_object(**asked), DOCUMENT_BYTES, DOCUMENT_SECONDS)
                if known is not None and known.etag == etag:
                    return known
                if etag_of(client.head_object(**place)) == etag:  # some servers replace objects in place
                    return StoredObject(content, etag)
            if codes and codes[0] in ABSENT:
                return None
            if codes and codes[0] in _UNCHANGED:
                return known
        raise SourceUnavailable(f"s3://{self.name}/{key} {_BROKEN}.")

    async def look(self, key: str) -> SeenObject | None:
        """Say how an object is now."""
        return await self._run(self._questions, key, partial(self._look, key))

    def _look(self, key: str) -> SeenObject | None:
        with self._codes():
            answer = self._client.get().head_object(Bucket=self.name, Key=key)
            return SeenObject(key, etag_of(answer), answer["ContentLength"], answer["LastModified"].timestamp())
        return None

    async def folders(self, prefix: str) -> Sequence[str]:
        """List them, a thousand with each request."""
        return await self._run(self._questions, prefix, partial(self._folders, prefix))

    def _folders(self, prefix: str) -> Sequence[str]:
        pages = self._client.get().get_paginator("list_objects_v2")
        found = []
        for page in pages.paginate(Bucket=self.name, Prefix=prefix, Delimiter="/"):
            found += [folder["Prefix"][len(prefix) : -1] for folder in page.get("CommonPrefixes", ())]
        return found

    def place(self, package: SeenObject, sha256: str | None) -> Path:
        """Name the folder after the content where that is known, and else after object and ETag."""
        return self._unpacked() / self._tree_name(package, sha256)

    def _tree_name(self, package: SeenObject, sha256: str | None) -> str:
        return sha256 or sha256_of(f"{self.name}\0{package.key}\0{package.etag}".encode())

    async def tree(self, package: SeenObject, sha256: str | None) -> Path:
        """Fetch and unpack, once however many ask for it at a time."""
        self._unpacked()
        if not self._tidied:
            self._tidied = True
            await self._packages.run(remove_abandoned)  # of hosts that were killed: nobody else may ever look
        assert self._trees is not None
        name = self._tree_name(package, sha256)
        with self._failures(package.key):
            return await self._trees.get(name, partial(self._package, package, sha256))

    def sha256_of(self, place: Path) -> str:
        """Give the SHA-256 of the package that was unpacked there."""
        return self._digests[place.name]

    def _package(self, package: SeenObject, sha256: str | None, name: str) -> bytes:
        content = self._content_of(package, sha256)
        self._digests[name] = sha256 or sha256_of(content)
        return content

    def _content_of(self, package: SeenObject, sha256: str | None) -> bytes:
        place = {"Bucket": self.name, "Key": package.key}
        for _ in range(_ATTEMPTS):
            with self._codes() as codes:
                asked = place if sha256 else place | _only("IfMatch", package.etag)
                answer = self._client.get().get_object(**asked)
                etag, content = _content(answer, UNZIPPED_PACKAGE_BYTES, PACKAGE_SECONDS)
                if sha256 is not None and sha256_of(content) == sha256:
                    return content
                if etag_of(self._client.get().head_object(**place)) == etag:
                    if sha256 is not None:
                        raise InvalidParameterValue(f"s3://{self.name}/{package.key} is not what CodeSha256 says.")
                    if etag == package.etag:
                        return content
                    raise KeyError(package.key)  # of a server that does not know If-Match
            if codes and codes[0] in (*ABSENT, *_ANOTHER):
                raise KeyError(package.key)
        raise SourceUnavailable(f"s3://{self.name}/{package.key} {_BROKEN}.")

    def _unpacked(self) -> Path:
        if self._folder is None:
            self._folder = TemporaryFolder()
            make_private(self._folder.path / "unpacked")
            self._trees = Trees(self._folder.path / "unpacked", self._packages)
        return self._folder.path / "unpacked"

    async def keep_only(self, places: Collection[Path]) -> None:
        """Put all others aside, and delete them."""
        if (trees := self._trees) is None:
            return
        kept = {place.name for place in places}
        await self._packages.run(partial(trees.keep_only, kept))
        self._digests = {name: digest for name, digest in self._digests.items() if name in kept}
        await self._packages.run(trees.delete_rest)

    async def aclose(self) -> None:
        """Delete what was unpacked. A server that does not answer is not waited for. Closing twice is fine."""
        for threads in (self._questions, self._packages):
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSING):
                    await threads.aclose()
        self._client.close()
        if self._folder is not None:
            await asyncio.to_thread(self._folder.close)

    async def _run(self, threads: Threads, key: str, work: Callable[[], Result]) -> Result:
        with self._failures(key):
            return await threads.run(work)

    @contextmanager
    def _codes(self) -> Iterator[list[str]]:
        """Note that there is no such object, that it is the same, or another, or cut off; all else is raised."""
        from botocore.exceptions import ClientError, IncompleteReadError, ResponseStreamingError

        codes: list[str] = []
        try:
            yield codes
        except ClientError as error:
            codes.append(code_of(error))
            if codes[0] not in (*ABSENT, *_UNCHANGED, *_ANOTHER):
                raise
        except (IncompleteReadError, ResponseStreamingError):
            codes.append("")

    @contextmanager
    def _failures(self, key: str) -> Iterator[None]:
        """Say where it was that S3 failed, and what it said."""
        from botocore.exceptions import BotoCoreError, ClientError

        place = f"s3://{self.name}/{key}"
        try:
            yield
        except ClientError as error:
            said = error.response["Error"].get("Code", "") or error.response["ResponseMetadata"]["HTTPStatusCode"]
            raise SourceUnavailable(f"{place} cannot be read: S3 answers {said}.") from error
        except BotoCoreError as error:
            raise SourceUnavailable(f"{place} cannot be read: {error}.".replace("..", ".")) from error


def _only(condition: str, etag: str) -> dict[str, str]:
    """Ask for an object with, or without, an ETag; of servers that have none nothing is asked."""
    return {} if "/" in etag else {condition: f'"{etag}"'}


def _content(answer: Mapping[str, Any], most: int, seconds: float) -> tuple[str, bytes]:
    """Give an object's ETag and its content, all of it.

    :raises SourceUnavailable: it takes too long.
    :raises InvalidParameterValue: it is too large, which is seen before it is downloaded.
    """
    from botocore.exceptions import IncompleteReadError

    length, until = answer["ContentLength"], time.monotonic() + seconds
    pieces = []
    with closing(answer["Body"]) as body:
        if length > most:
            raise InvalidParameterValue(f"The object has {length} bytes, and may have {most}.")
        while piece := body.read(_PIECE):
            pieces.append(piece)
            if time.monotonic() > until:
                raise SourceUnavailable(f"An object in S3 was not there after {seconds:g} s.")
    content = b"".join(pieces)
    if len(content) != length:
        raise IncompleteReadError(actual_bytes=len(content), expected_bytes=length)
    return etag_of(answer), content
