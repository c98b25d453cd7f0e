"""Follows the objects in S3 that functions got their packages from: one that changes is deployed again.

One task asks for ETags, every couple of seconds where a function of the object is in use, and less often where none
is. Who tells that an object has changed (`LinkedObjects.notice`) only makes it look sooner, and is believed nothing.
What it finds goes the way of UpdateFunctionCode, for each function that has the object, in whatever account and region.
A package that cannot be used is refused there, said once in the log, and the function stays as it is.

All on the event loop. Asking and updating are given in from outside, as is what counts calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from uuid import uuid4

from serverfull.domain.deployed import LATEST_NUMBER, VERSIONS
from serverfull.domain.names import RequestScope
from serverfull.errors import InternalFailure, NotFoundError, PreconditionFailed, RequestError, ResourceConflict

if TYPE_CHECKING:
    from serverfull.domain.changes import FunctionChanged
    from serverfull.domain.deployed import FunctionVersion
    from serverfull.domain.records import Partition
    from serverfull.interfaces import Records, StateStore

IN_USE = 60.0
"""Seconds after its last call that a function counts as in use."""

PATIENCE = 10.0
"""Seconds after which an answer is waited for no more."""

_AT_ONCE = 8
"""Objects that are asked for at a time."""

_KMS_KEY = "SourceKMSKeyArn"

Look: TypeAlias = Callable[[str, str], Awaitable["str | None"]]
"""Gives the ETag of a bucket's object; None: there is none. Raises RequestError where that cannot be found out."""

UpdateCode: TypeAlias = Callable[[dict[str, Any], RequestScope], Awaitable[Mapping[str, Any]]]
"""The operation UpdateFunctionCode."""

Calls: TypeAlias = Callable[[str], float]
"""Says how many calls there have been of functions with this name."""

_Key: TypeAlias = "tuple[Partition, str]"


class _Place(NamedTuple):
    bucket: str
    key: str


@dataclass(slots=True)
class _Object:
    """An object that functions follow.

    :param links: the ETag that each function has of it.
    :param handled: the ETag that was last taken by a function, or refused; it is not tried again.
    :param due: when it is looked at next, on the loop's clock.
    :param used: when a call was last seen.
    :param calls: how many there were then.
    :param trouble: what was last said to be wrong with it.
    """

    due: float
    used: float
    calls: float = 0.0
    trouble: str = ""
    links: dict[_Key, str] = field(default_factory=dict)
    handled: dict[_Key, str] = field(default_factory=dict)


class LinkedObjects:
    """Keeps functions as their objects in S3 are.

    :param look: asks S3.
    :param update: deploys.
    :param calls: tells functions that are in use.
    :param interval: seconds between two looks at an object of a function that is in use.
    :param idle_interval: the same where it is not.
    """

    def __init__(
        self,
        state: StateStore,
        *,
        look: Look,
        update: UpdateCode,
        calls: Calls,
        logger: Any,
        interval: float,
        idle_interval: float,
    ) -> None:
        self._state = state
        self._ask = look
        self._update = update
        self._calls = calls
        self._logger = logger
        self._interval = interval
        self._idle_interval = max(interval, idle_interval)
        self._objects: dict[_Place, _Object] = {}
        self._places: dict[_Key, _Place] = {}
        self._stale: dict[_Key, None] = {}
        self._news = asyncio.Event()
        self._working: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; what functions follow is read in the background."""
        self._working = asyncio.create_task(self._work())

    def changed(self, change: FunctionChanged) -> None:
        """Hear that a function may follow another object than before."""
        self._stale[change.partition, change.name] = None
        self._news.set()

    def notice(self, bucket: str, key: str) -> bool:
        """Look at an object now; tells whether a function follows it."""
        found = self._objects.get(_Place(bucket, key))
        if found is None:
            return False
        found.due = 0.0
        self._news.set()
        return True

    async def aclose(self) -> None:
        """Stop. Closing twice is fine."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            try:
                for partition, version in await self._state.everywhere(VERSIONS):
                    if version.number == LATEST_NUMBER and version.s3_bucket:
                        self._link((partition, version.function), version)
                break
            except InternalFailure as failure:  # the disk
                self._logger.warning("functions that follow objects in S3 not read", exc_info=failure)
                await asyncio.sleep(self._idle_interval)
        while True:
            self._news.clear()
            try:
                await self._take_news()
                await self._look_around()
            except Exception as failure:  # a task's boundary: the state cannot be read
                self._logger.error("objects in S3 not looked at", exc_info=failure)
            try:
                async with asyncio.timeout(self._interval if self._objects else None):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _take_news(self) -> None:
        """Read again what has changed."""
        while self._stale:
            partition, name = key = next(iter(self._stale))
            del self._stale[key]
            self._link(key, await self._latest(partition, name))

    async def _latest(self, partition: Partition, name: str) -> FunctionVersion | None:
        def read(records: Records) -> FunctionVersion | None:
            return records.get(VERSIONS, name, LATEST_NUMBER)

        return await self._state.read(partition, read)

    def _link(self, key: _Key, version: FunctionVersion | None) -> None:
        place = None if version is None or not version.s3_bucket else _Place(version.s3_bucket, version.s3_key)
        before = self._places.pop(key, None)
        if before is not None and before != place:
            left = self._objects[before]
            del left.links[key]
            left.handled.pop(key, None)
            if not left.links:
                del self._objects[before]
        if version is not None and place is not None:
            now = asyncio.get_running_loop().time()
            found = self._objects.setdefault(place, _Object(due=now + self._interval, used=now))
            found.links[key] = version.s3_etag
            self._places[key] = place

    async def _look_around(self) -> None:
        """Look at every object whose time has come."""
        now = asyncio.get_running_loop().time()
        due = [place for place, found in self._objects.items() if self._is_due(found, now)]
        for at in range(0, len(due), _AT_ONCE):
            await asyncio.gather(*(self._look_at(place) for place in due[at : at + _AT_ONCE]))

    def _is_due(self, found: _Object, now: float) -> bool:
        calls = sum(self._calls(name) for _, name in found.links)
        if calls != found.calls:
            if now - found.used > IN_USE:
                found.due = now  # nobody knows how it was meanwhile
            found.calls, found.used = calls, now
        return found.due <= now

    async def _look_at(self, place: _Place) -> None:
        found = self._objects[place]
        try:
            async with asyncio.timeout(PATIENCE):
                etag = await self._ask(*place)
            trouble = "" if etag is not None else "there is no such object any more"
        except RequestError as failure:
            etag, trouble = None, failure.message
        except TimeoutError:
            etag, trouble = None, f"S3 has not answered for {PATIENCE:g} s"
        if etag is not None:
            for key in [key for key, had in found.links.items() if etag not in (had, found.handled.get(key))]:
                trouble = await self._deploy(place, found, key, etag) or trouble
        self._say(place, found, trouble)
        now = asyncio.get_running_loop().time()
        found.due = now + (self._interval if now - found.used <= IN_USE else self._idle_interval)

    def _say(self, place: _Place, found: _Object, trouble: str) -> None:
        """Say once what keeps functions from being as their object is, and that it is over."""
        if trouble == found.trouble:
            return
        found.trouble = trouble
        names = sorted(name for _, name in found.links)
        if trouble:
            said = "object of functions cannot be seen: their code stays as it is"
            self._logger.warning(said, **place._asdict(), functions=names, reason=trouble)
        else:
            self._logger.info("object of functions is seen again", **place._asdict(), functions=names)

    async def _deploy(self, place: _Place, found: _Object, key: _Key, etag: str) -> str:
        """Deploy a function again; one that is being changed is tried with the next look. Tells what S3 fails in."""
        partition, name = key
        version = await self._latest(partition, name)
        if version is None or (version.s3_bucket, version.s3_key) != place:
            self._stale[key] = None
            return ""
        request = {
            "FunctionName": name,
            "S3Bucket": place.bucket,
            "S3Key": place.key,
            "RevisionId": version.revision_id,  # what somebody deploys meanwhile wins
            **{member: value for member, value in version.settings.items() if member == _KMS_KEY},
        }
        scope = RequestScope(*partition, str(uuid4()), account_known=True)
        about = {"function": name, "account": partition.account, "region": partition.region, **place._asdict()}
        try:
            await self._update(request, scope)
        except (ResourceConflict, PreconditionFailed, NotFoundError):
            self._stale[key] = None
        except InternalFailure as failure:
            return failure.message
        except RequestError as refusal:
            found.handled[key] = etag
            self._logger.error("code in S3 refused: the function keeps what it has", **about, reason=refusal.message)
        else:
            found.handled[key] = etag
            self._logger.info("code taken from S3", **about)
        return ""
