"""Publishes functions beside their packages in S3, so that hosts without a state can serve what one host deploys.

::

    PREFIX/code/<sha256>.zip                            the packages, as `serverfull.storage.s3.S3CodeStore` keeps them
    PREFIX/<account>/<region>/<name>/function.json      a function: its versions and its aliases

That is the layout that `serverfull.fetchers.s3` serves. The document of a function is written as a whole, after its
packages: whoever reads it sees the function before a change or after it, and finds every package that it names. It
follows the state within moments. What fails is tried again for as long as the host runs, and by the next host on the
same state.

Only what can be run is published. While ``$LATEST`` is being updated, or where that has failed, the document keeps what
it says of it, as this host serves it on. What hosts of the first versions published, at
``PREFIX/functions/<account>/<region>/<name>.json``, is deleted when the function has its document in the new place.

All on the event loop, except for calls of S3, which a thread makes.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from serverfull.domain.deployed import ALIASES, FUNCTIONS, LATEST_NUMBER, VERSIONS, FunctionVersion
from serverfull.domain.function_documents import DOCUMENT, OF_FUNCTION, encoded, write_document
from serverfull.domain.json_functions import loads
from serverfull.domain.layers import LAYER_VERSIONS, LayerVersion, layer_key
from serverfull.domain.publication import LAYOUT, PUBLISHED_FUNCTIONS, PublishedFunction
from serverfull.storage.s3 import S3Client, S3Endpoint, content_at
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
        self._prefix = f"{prefix.strip('/')}/".lstrip("/")
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
        found, published = await self._state.read(partition, partial(_read, name))
        old = published is not None and published.layout < LAYOUT
        if found is None:
            await self._thread.run(partial(self._delete, partition, name, old=old))
            await self._state.write(partition, lambda records: records.delete(PUBLISHED_FUNCTIONS, name))
            return
        document = found.document
        if not found.settled:
            kept = await self._thread.run(partial(self._latest_of, partition, name))
            if kept is None and found.pending:
                return  # the change that makes it ready is heard of
            document = {**(kept or {}), **document}
        content = encoded(document)
        digest = hashlib.sha256(content).hexdigest()
        if published is None or old or published.digest != digest:
            await self._thread.run(partial(self._put, partition, name, content, old=old))
            note = PublishedFunction(name=name, digest=digest, layout=LAYOUT)
            await self._state.write(partition, partial(_note, note))

    def _put(self, partition: Partition, name: str, content: bytes, *, old: bool) -> None:
        place = {"Bucket": self._bucket, "Key": self._key(partition, name)}
        self._client.get().put_object(**place, Body=content, ContentType="application/json")
        if old:
            self._delete_old(partition, name)

    def _delete(self, partition: Partition, name: str, *, old: bool) -> None:
        self._client.get().delete_object(Bucket=self._bucket, Key=self._key(partition, name))
        if old:
            self._delete_old(partition, name)

    def _delete_old(self, partition: Partition, name: str) -> None:
        key = f"{self._prefix}functions/{partition.account}/{partition.region}/{name}.json"
        self._client.get().delete_object(Bucket=self._bucket, Key=key)

    def _latest_of(self, partition: Partition, name: str) -> dict[str, Any] | None:
        """Give what is published of ``$LATEST``; None: nothing."""
        content = content_at(self._client.get(), self._bucket, self._key(partition, name))
        if content is None:
            return None
        document = loads(content)
        return {
            member: value for member, value in document.items() if member not in ("Versions", "Aliases", *OF_FUNCTION)
        }

    def _key(self, partition: Partition, name: str) -> str:
        return f"{self._prefix}{partition.account}/{partition.region}/{name}/{DOCUMENT}"


class _Found(NamedTuple):
    """A function as it is in the state.

    :param settled: whether ``$LATEST`` is in the document.
    :param pending: whether nothing of it can be run yet.
    """

    document: dict[str, Any]
    settled: bool
    pending: bool


def _read(name: str, records: Records) -> tuple[_Found | None, PublishedFunction | None]:
    """Give a function, None where it is gone or of a folder in place, and what was published of it."""
    function, published = records.get(FUNCTIONS, name), records.get(PUBLISHED_FUNCTIONS, name)
    latest = records.get(VERSIONS, name, LATEST_NUMBER)
    if function is None or latest is None or _is_in_place(records, latest):
        return None, published
    ready = [version for version in records.list(VERSIONS, name) if _can_be_run(records, version)]
    document = write_document(function, ready, records.list(ALIASES, name), partial(_layer_packages, records))
    settled = any(version.number == LATEST_NUMBER for version in ready)
    return _Found(document, settled, not ready), published


def _can_be_run(records: Records, version: FunctionVersion) -> bool:
    ready = version.state == "Active" and version.last_update_status == "Successful"
    return ready and not _is_in_place(records, version)


def _is_in_place(records: Records, version: FunctionVersion) -> bool:
    """Say whether it runs from a folder of this machine: no other host has anything of that."""
    return version.is_hot or any(layer.hot_path for layer in _layers(records, version))


def _layer_packages(records: Records, version: FunctionVersion) -> list[str]:
    return [layer.code_sha256 for layer in _layers(records, version)]


def _layers(records: Records, version: FunctionVersion) -> list[LayerVersion]:
    found = [records.get(LAYER_VERSIONS, *layer_key(layer["Arn"])) for layer in version.settings.get("Layers", ())]
    return [layer for layer in found if layer is not None]


def _note(published: PublishedFunction, records: Records) -> None:
    records.delete(PUBLISHED_FUNCTIONS, published.name)
    records.insert(PUBLISHED_FUNCTIONS, published)
