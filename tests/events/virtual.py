"""A queue of events on a loop whose time does not pass but jumps, with a store whose work is done at once.

The store is the real one without its thread: `EventFile` on a file, so that a host that dies can be followed by one
that finds what it has left.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serverfull.domain.events import (
    Attempt,
    Delivery,
    EventConfig,
    EventEnd,
    Held,
    KeptEvent,
    Lease,
    PendingDelivery,
    QueuedEvent,
    Response,
    Succeeded,
    Upcoming,
)
from serverfull.errors import InternalFailure
from serverfull.interfaces import Clock, EventStore
from serverfull.invocation.queue import StoredQueue
from serverfull.invocation.queueing import Policy, Running
from serverfull.storage.event_file import EventFile
from serverfull.storage.event_tables import STATES

BEGAN = 1_700_000_000.0
RESULT = Response(status_code=200, executed_version="$LATEST", payload=b"1")
THROTTLED = Held(Response(status_code=429, message="Rate Exceeded."), "host")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time jumps to the next timer when there is nothing else to do."""

    def __init__(self) -> None:
        super().__init__(_NeverWaiting(self))
        self.seconds = 0.0
        self.queues: list[StoredQueue] = []
        self.stores: list[DirectStore] = []

    def time(self) -> float:
        return self.seconds


class _NeverWaiting(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout > 0:
            self._loop.seconds += timeout
            timeout = 0
        elif timeout is None:
            raise AssertionError("everything waits, and nothing will ever happen")
        return super().select(timeout)


@contextmanager
def virtual_loop() -> Iterator[VirtualLoop]:
    """Give a loop; what is left on it is cancelled."""
    loop = VirtualLoop()
    try:
        yield loop
    finally:
        for queue in loop.queues:
            queue._stopped = True
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        for store in loop.stores:
            store.file.release()
        loop.close()


def virtually(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on a virtual loop of its own."""
    with virtual_loop() as loop:
        return loop.run_until_complete(work)


class LoopClock:
    """The time of the running loop."""

    def now(self) -> float:
        return BEGAN + asyncio.get_running_loop().time()


class DirectStore(EventStore):
    """`EventFile` without a thread. ``broken`` makes every call fail; ``slow`` says how long each takes."""

    def __init__(
        self, path: Path | None = None, slow: Callable[[], float] = lambda: 0.0, clock: Clock | None = None
    ) -> None:
        self.file = EventFile(path, clock or LoopClock(), synchronous="normal", longest_delay=300.0)
        self.broken = False
        self._slow = slow
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.stores.append(self)

    async def _do(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(self._slow())
        if self.broken:
            raise InternalFailure("broken")
        with self.file.transaction(accepting=False):
            result = call(*args, **kwargs)
        await asyncio.sleep(self._slow())
        return result

    async def append(self, events: Sequence[QueuedEvent]) -> Sequence[int]:
        return await self._do(self.file.append, events)

    async def lines(self) -> Mapping[str, int]:
        return await self._do(self.file.lines)

    async def upcoming(self, line: str, limit: int) -> Sequence[Upcoming]:
        return await self._do(self.file.upcoming, line, limit)

    async def claim(self, key: int, by: float = math.inf) -> Lease | None:
        return await self._do(self.file.claim, key, by)

    async def reschedule(self, lease: Lease, event: QueuedEvent, due: float) -> bool:
        return await self._do(self.file.reschedule, lease, event, due)

    async def end(self, lease: Lease, end: EventEnd, deliveries: Sequence[Delivery], *, keep: bool) -> bool:
        return await self._do(self.file.end, lease, end, deliveries, keep=keep)

    async def pending(self, limit: int) -> tuple[Sequence[PendingDelivery], float | None]:
        return await self._do(self.file.pending, limit)

    async def delivered(self, delivery_id: str) -> None:
        await self._do(self.file.delivered, delivery_id)

    async def undelivered(self, delivery_id: str, reason: str, again: float | None) -> None:
        await self._do(self.file.undelivered, delivery_id, reason, again)

    async def shown(
        self, states: Sequence[str], *, function: str | None = None, after: int = 0, limit: int = 100
    ) -> Sequence[KeptEvent]:
        return await self._do(self.file.shown, states, function=function, after=after, limit=limit)

    async def show(self, key: int) -> KeptEvent | None:
        found = await self._do(self.file.shown, STATES, function=None, after=0, limit=1, keys=(key,))
        return found[0] if found else None

    async def redrive(self, keys: Sequence[int]) -> int:
        return await self._do(self.file.redrive, keys)

    async def purge(self, keys: Sequence[int]) -> int:
        return await self._do(self.file.purge, keys)

    async def forget(self, ended_before: float) -> int:
        return await self._do(self.file.forget, ended_before)

    async def aclose(self) -> None:
        self.file.close()

    def die(self) -> None:
        """End as a process that is killed: nothing is given back but the lock."""
        with self.file._connection as connection:
            connection.rollback()
        self.file.release()

    def rows(self, query: str) -> list[Any]:
        return self.file._connection.execute(query).fetchall()


class Log:
    """Takes what the queue says."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def _take(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    info = warning = error = exception = _take


class Runner:
    """Runs the events of a queue, each as ``attempt`` says, and knows what it has run and how events have ended."""

    def __init__(
        self,
        store: EventStore,
        attempt: Callable[[QueuedEvent], Attempt | None] = lambda _event: None,
        *,
        limit: int = 1000,
        lasts: float = 0.0,
        config: EventConfig | None = None,
        durable: bool = True,
        clock: Any = None,
        **policy: Any,
    ) -> None:
        self.store = store
        self.attempt = attempt
        self.limit = limit
        self.lasts = lasts
        self.config = config or EventConfig()
        self.running: list[str] = []
        self.begun: list[tuple[str, float]] = []
        self.most = 0
        self.ends: dict[str, EventEnd] = {}
        self.kept: set[str] = set()
        self._news = asyncio.Event()
        self.log = Log()
        self.clock = clock or LoopClock()
        policy = {"backlog": 10**6, "function_backlog": 10**6, **policy}
        running = Running(run=self._run, config=self._config, deliveries=self.deliver, ended=self._ended)
        self.queue = StoredQueue(self._open, self.clock, running, Policy(**policy), self.log, durable=durable)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.queues.append(self.queue)

    async def _open(self) -> EventStore:
        return self.store

    async def _config(self, _event: QueuedEvent) -> EventConfig:
        return self.config

    def deliver(self, _event: QueuedEvent, _end: EventEnd, _config: EventConfig) -> Sequence[Delivery]:
        return ()

    def _ended(self, event: QueuedEvent, end: EventEnd, kept: bool) -> None:
        assert event.request_id not in self.ends
        self.ends[event.request_id] = end
        if kept:
            self.kept.add(event.request_id)
        self._news.set()

    async def ended(self, count: int, within: float = 100_000) -> None:
        """Wait until so many events have ended."""
        async with asyncio.timeout(within):
            while len(self.ends) < count:
                self._news.clear()
                await self._news.wait()

    async def _run(self, event: QueuedEvent, admitted: Callable[[], None]) -> Attempt:
        if len(self.running) >= self.limit:
            return THROTTLED
        admitted()
        self.running.append(event.request_id)
        self.begun.append((event.request_id, asyncio.get_running_loop().time()))
        self.most = max(self.most, len(self.running))
        try:
            await asyncio.sleep(self.lasts)
            return self.attempt(event) or Succeeded(RESULT)
        finally:
            self.running.remove(event.request_id)
            self.queue.freed(event.name)

    def times(self, request_id: str) -> list[float]:
        return [at for begun, at in self.begun if begun == request_id]


def event(name: str = "f", number: int = 0, **fields: Any) -> QueuedEvent:
    at = LoopClock().now()
    fields = {"account": "000000000000", "region": "us-east-1", "accepted_at": at, "payload": b"{}", **fields}
    return QueuedEvent(request_id=f"{name}-{number}", name=name, **fields)
