"""Events in SQLite, on one thread that writes what waits for it in groups: see `EventFile` for what is written.

The thread takes all work that has come while the disk was busy and does it in one transaction, so sixty-four callers
wait for one flush of the disk and not for sixty-four. Where a group fails, each piece of work is done by itself: one
that cannot be done fails alone.

Each process has a file of its own in the folder, ``events-0.db`` the first; more than one is there where a host has
several worker processes. A host with fewer of them than the last one had takes over what the others have left.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from serverfull.errors import InternalFailure, StateUnusable
from serverfull.interfaces import EventStore
from serverfull.storage.event_file import EventFile
from serverfull.storage.event_tables import STATES

if TYPE_CHECKING:
    from serverfull.domain.events import Delivery, EventEnd, KeptEvent, Lease, PendingDelivery, QueuedEvent, Upcoming
    from serverfull.interfaces import Clock

Result = TypeVar("Result")

_MOST_WORK = 500
"""Pieces of work in one transaction."""

_MOST_BYTES = 8_000_000
"""Bytes of payloads after which a transaction has enough."""


@dataclass(frozen=True, slots=True)
class EventFolder:
    """Where events are kept, and how.

    :param path: a folder, made where it does not exist; None: in memory, which ends with the process.
    :param number: of the process among those that serve together.
    :param synchronous: ``full``: what was accepted survives a power loss; ``normal``: only the end of the process.
    :param longest_delay: seconds that an event may have to wait for its next attempt.
    """

    path: Path | None = None
    number: int = 0
    processes: int = 1
    synchronous: str = "full"
    longest_delay: float = 300.0


class _Call:
    """Something that is done with the file, and who waits for it.

    :param accepting: somebody is told afterwards that the host has it; see `EventFile.transaction`.
    """

    __slots__ = ("accepting", "call", "error", "result", "waiter")
    size = 0

    def __init__(self, waiter: asyncio.Future[None], call: Callable[[EventFile], Any], accepting: bool) -> None:
        self.waiter = waiter
        self.call = call
        self.accepting = accepting
        self.result: Any = None
        self.error: BaseException | None = None

    @staticmethod
    def do(file: EventFile, works: Iterable[_Call]) -> None:
        """Do what was asked for one after the other."""
        for work in works:
            work.result = work.call(file)


class _Append:
    """Events to be kept, and who waits for that. Those of callers who come together are inserted together."""

    __slots__ = ("error", "events", "result", "waiter")
    accepting = True

    def __init__(self, waiter: asyncio.Future[None], events: Sequence[QueuedEvent]) -> None:
        self.waiter = waiter
        self.events = events
        self.result: Any = None
        self.error: BaseException | None = None

    @property
    def size(self) -> int:
        return sum([len(event.payload) for event in self.events])

    @staticmethod
    def do(file: EventFile, works: Iterable[_Append]) -> None:
        """Append the events of several callers."""
        works = list(works)
        keys = iter(file.append([event for work in works for event in work.events]))
        for work in works:
            work.result = list(islice(keys, len(work.events)))


_Work: TypeAlias = "_Call | _Append"
_DO = attrgetter("do")


class SqliteEventStore(EventStore):
    """Keeps events in a file of its own; made by `open`."""

    def __init__(self, where: EventFolder, clock: Clock) -> None:
        self._where = where
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._works: SimpleQueue[_Work | None] = SimpleQueue()
        self._closed = False
        self._opened: asyncio.Future[BaseException | None] = self._loop.create_future()
        self._ended = self._loop.create_future()
        # A daemon: a host that ends without closing does not hang on it.
        self._thread = threading.Thread(target=self._write, name="serverfull-events", daemon=True)

    @classmethod
    async def open(cls, where: EventFolder, clock: Clock) -> SqliteEventStore:
        """Open the store, and take over what processes have left that are gone.

        :raises StateInUse: another host uses the folder.
        :raises StateUnusable: it cannot be used.
        """
        store = cls(where, clock)
        store._thread.start()
        failure = await store._opened
        if failure is not None:
            raise failure
        return store

    async def append(self, events: Sequence[QueuedEvent]) -> Sequence[int]:
        """Keep events; they are on the disk when this returns."""
        keys: Sequence[int] = await self._done(_Append(self._loop.create_future(), events))
        return keys

    async def lines(self) -> Mapping[str, int]:
        """Count what waits, by line."""
        return await self._do(EventFile.lines)

    async def upcoming(self, line: str, limit: int) -> Sequence[Upcoming]:
        """Give what waits in a line, and when it is due."""
        return await self._do(lambda file: file.upcoming(line, limit))

    async def claim(self, key: int, by: float = math.inf) -> Lease | None:
        """Lease an event that waits."""
        return await self._do(lambda file: file.claim(key, by))

    async def reschedule(self, lease: Lease, event: QueuedEvent, due: float) -> bool:
        """Let a leased event wait."""
        return await self._do(lambda file: file.reschedule(lease, event, due))

    async def end(self, lease: Lease, end: EventEnd, deliveries: Sequence[Delivery], *, keep: bool) -> bool:
        """End a leased event."""
        return await self._do(lambda file: file.end(lease, end, deliveries, keep=keep))

    async def pending(
        self, limit: int, *, running: Collection[str] = (), besides: Collection[str] = ()
    ) -> tuple[Sequence[PendingDelivery], float | None]:
        """Give what is to be delivered now, and when there is more."""
        ids, targets = tuple(running), tuple(besides)  # as they are now
        return await self._do(lambda file: file.pending(limit, ids, targets))

    async def delivered(self, delivery_id: str) -> None:
        """Forget a delivery."""
        await self._do(lambda file: file.delivered(delivery_id))

    async def undelivered(self, delivery_id: str, reason: str, again: float | None) -> None:
        """Note that a delivery has failed."""
        await self._do(lambda file: file.undelivered(delivery_id, reason, again))

    async def shown(
        self, states: Sequence[str], *, function: str | None = None, after: int = 0, limit: int = 100
    ) -> Sequence[KeptEvent]:
        """List events."""
        return await self._do(lambda file: file.shown(states, function=function, after=after, limit=limit))

    async def show(self, key: int) -> KeptEvent | None:
        """Give one event."""
        found = await self._do(lambda file: file.shown(STATES, function=None, after=0, limit=1, keys=(key,)))
        return found[0] if found else None

    async def redrive(self, keys: Sequence[int]) -> int:
        """Let ended events run again, or be delivered."""
        return await self._do(lambda file: file.redrive(keys), accepting=True)

    async def purge(self, keys: Sequence[int]) -> int:
        """Delete events that do not run."""
        return await self._do(lambda file: file.purge(keys), accepting=True)

    async def forget(self, ended_before: float) -> int:
        """Delete what ended long ago."""
        return await self._do(lambda file: file.forget(ended_before))

    async def aclose(self) -> None:
        """Do what has been asked for, give the leases back, and close the file."""
        if not self._closed:
            self._closed = True
            self._works.put(None)
        await asyncio.shield(self._ended)

    async def _do(self, call: Callable[[EventFile], Result], *, accepting: bool = False) -> Result:
        result: Result = await self._done(_Call(self._loop.create_future(), call, accepting))
        return result

    async def _done(self, work: _Work) -> Any:
        """Have work done. It is done even if this is cancelled.

        :raises InternalFailure: it cannot be done now, and nothing of it was.
        """
        if self._closed:
            raise InternalFailure("The queue of events is closed.")
        self._works.put(work)
        await work.waiter
        if work.error is None:
            return work.result
        if isinstance(work.error, sqlite3.Error):
            raise InternalFailure(f"The queue of events cannot be written: {work.error}.") from work.error
        raise work.error

    def _write(self) -> None:
        """Do the work: the thread's whole life."""
        try:
            file = self._open()
        except BaseException as error:
            self._tell(self._opened.set_result, error)
            return
        self._tell(self._opened.set_result, None)
        more = True
        while more:
            works, more = self._group()
            if works:
                _do_all(file, works)
                self._tell(_hand_out, works)
            del works  # work holds its caller's frame
        file.close()
        self._tell(_end, self._ended)

    def _group(self) -> tuple[list[_Work], bool]:
        """Give the work that waits, at least one piece, and whether there may be more."""
        works: list[_Work] = []
        size = 0
        with contextlib.suppress(Empty):
            while len(works) < _MOST_WORK and size < _MOST_BYTES:
                work = self._works.get(block=not works)
                if work is None:
                    return works, False
                works.append(work)
                size += work.size
        return works, True

    def _tell(self, call: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # a loop that is closed by then hears nothing
            self._loop.call_soon_threadsafe(call, *args)

    def _open(self) -> EventFile:
        where = self._where
        if where.path is None:
            return self._open_file(None)
        try:
            where.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as wrong:
            raise StateUnusable(f"{where.path} cannot keep events: {wrong.strerror}") from wrong
        file = self._open_file(_file(where.path, where.number))
        if where.number == 0:
            try:
                for other in sorted(where.path.glob("events-*.db")):
                    number = other.stem.removeprefix("events-")
                    if number.isdecimal() and int(number) >= where.processes:
                        self._take_over(file, other)
            except BaseException:
                file.close()
                raise
        return file

    def _open_file(self, path: Path | None) -> EventFile:
        where = self._where
        return EventFile(path, self._clock, synchronous=where.synchronous, longest_delay=where.longest_delay)

    def _take_over(self, file: EventFile, path: Path) -> None:
        """Move all that is in another file here, and delete that. What a crash interrupts is there twice at most."""
        other = self._open_file(path)
        try:
            file.copy_from(other)
        finally:
            other.close()
        for name in (path.name, f"{path.name}-wal"):
            path.with_name(name).unlink(missing_ok=True)


def _file(folder: Path, number: int) -> Path:
    return folder / f"events-{number}.db"


def _do_all(file: EventFile, works: Sequence[_Work]) -> None:
    """Do work in one transaction, or each piece in its own where that fails."""
    try:
        with file.transaction(accepting=any(work.accepting for work in works)):
            for do, some in groupby(works, _DO):
                do(file, some)
    except Exception as error:
        if len(works) == 1:
            works[0].error = error
            return
        for work in works:
            _do_all(file, (work,))


def _hand_out(works: Sequence[_Work]) -> None:
    for work in works:
        if not work.waiter.done():  # the caller may have been cancelled meanwhile
            work.waiter.set_result(None)


def _end(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
