"""Publishes functions beside their packages in S3, so that hosts without a state can serve what one host deploys.

::

    PREFIX/code/<sha256>.zip                            the packages, as `serverfull.storage.s3.S3CodeStore` keeps them
    PREFIX/functions/<account>/<region>/<name>.json     a function: its record, its versions and its aliases

The document of a function is written as a whole, after its packages: whoever reads it sees the function before a change
or after it, and finds every package that it names. It follows the state within moments. What fails is tried again for
as long as the host runs, and by the next host on the same state.

All on the event loop, except for calls of S3, which a thread makes.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from serverfull.domain.deployed import ALIASES, FUNCTIONS, LATEST_NUMBER, VERSIONS
from serverfull.domain.json_functions import dumps
from serverfull.domain.publication import PUBLISHED_FUNCTIONS, PublishedFunction
from serverfull.storage.s3 import S3Client, S3Endpoint
from serverfull.storage.transactions import SerialThread

if TYPE_CHECKING:
    from serverfull.domain.changes import FunctionChanged
    from serverfull.domain.records import Partition
    from serverfull.interfaces import Records, StateStore

RETRY_AFTER = (1.0, 60.0)
"""Seconds until a function is tried again, at first and at most; doubled from one failure to the next."""

CLOSING = 2.0
"""Seconds that a host which ends waits for what is being written."""


class Publication:
    """Keeps the documents of functions in a bucket as the state is.

    :param prefix: what the names of objects begin with.
    :param logger: takes what S3 refuses.
    """

    def __init__(
        self, state: StateStore, bucket: str, prefix: str, logger: Any, endpoint: S3Endpoint | None = None
    ) -> None:
        self._state = state
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/functions/".lstrip("/")
        self._logger = logger
        self._client = S3Client(endpoint or S3Endpoint())
        self._thread = SerialThread("serverfull-publication")
        self._due: dict[tuple[Partition, str], None] = {}  # in the order in which they changed
        self._came = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Publish what is not yet as it should be, and from then on what changes."""
        there = [(partition, function.name) for partition, function in await self._state.everywhere(FUNCTIONS)]
        published = [(partition, one.name) for partition, one in await self._state.everywhere(PUBLISHED_FUNCTIONS)]
        self._due.update(dict.fromkeys([*there, *published]))
        self._came.set()
        self._working = asyncio.create_task(self._work())

    def changed(self, change: FunctionChanged) -> None:
        """Publish a function again; called after every change."""
        self._due[change.partition, change.name] = None
        self._came.set()

    async def aclose(self) -> None:
        """Stop; what is not done yet, the next host does. Closing twice is fine.

        A server that does not answer is not waited for: its thread ends with the process.
        """
        if self._closed:
            return
        self._closed = True
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING):
                await self._thread.aclose(self._client.close)

    async def _work(self) -> None:
        pause = RETRY_AFTER[0]
        while True:
            await self._came.wait()
            self._came.clear()
            while self._due:
                key = next(iter(self._due))
                del self._due[key]
                try:
                    await self._publish(*key)
                    pause = RETRY_AFTER[0]
                except Exception as failure:  # a task's boundary: S3 or the state fails
                    self._due[key] = None
                    self._logger.warning("function not published", function=key[1], retry=pause, exc_info=failure)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, RETRY_AFTER[1])

    async def _publish(self, partition: Partition, name: str) -> None:
        document, published = await self._state.read(partition, partial(_read, name))
        if document is None:
            await self._thread.run(partial(self._delete, partition, name))
            await self._state.write(partition, lambda records: records.delete(PUBLISHED_FUNCTIONS, name))
            return
        digest = hashlib.sha256(document).hexdigest()
        if published is None or published.digest != digest:
            await self._thread.run(partial(self._put, partition, name, document))
            await self._state.write(partition, partial(_note, PublishedFunction(name=name, digest=digest)))

    def _put(self, partition: Partition, name: str, document: bytes) -> None:
        place = {"Bucket": self._bucket, "Key": self._key(partition, name)}
        self._client.get().put_object(**place, Body=document, ContentType="application/json")

    def _delete(self, partition: Partition, name: str) -> None:
        self._client.get().delete_object(Bucket=self._bucket, Key=self._key(partition, name))

    def _key(self, partition: Partition, name: str) -> str:
        return f"{self._prefix}{partition.account}/{partition.region}/{name}.json"


def _read(name: str, records: Records) -> tuple[bytes | None, PublishedFunction | None]:
    """Give a function's document, None where it is gone or of a folder in place, and what was published of it."""
    function, published = records.get(FUNCTIONS, name), records.get(PUBLISHED_FUNCTIONS, name)
    latest = records.get(VERSIONS, name, LATEST_NUMBER)
    if function is None or latest is None or latest.is_hot:  # of a folder of this machine, no other host has anything
        return None, published
    document = {
        "function": _members(function),
        "versions": {version.version: _members(version) for version in records.list(VERSIONS, name)},
        "aliases": {alias.name: _members(alias) for alias in records.list(ALIASES, name)},
    }
    return dumps(document, sort_keys=True).encode(), published


def _members(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _note(published: PublishedFunction, records: Records) -> None:
    records.delete(PUBLISHED_FUNCTIONS, published.name)
    records.insert(PUBLISHED_FUNCTIONS, published)
