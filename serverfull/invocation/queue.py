"""Event invocations: kept before they are accepted, run as soon as a limit allows, tried again as AWS does.

What is accepted is in an `EventStore`, and nothing of it elsewhere but numbers and the keys of a few events of each
line (`Lines`); a payload is read when its event is claimed for a run. Each attempt is a task that the queue owns; a few
more read ahead. All on the loop's thread.

An event is claimed, run and then ended or rescheduled under the lease of that claim. Where the store cannot be written
at the moment, what has to be written is tried until it can be: a function that has run is not run again for that.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async.html
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from serverfull.domain.events import (
    ACCEPTED_BEFORE,
    MOST_HOST_DEATHS,
    NAME_TAKEN,
    Again,
    Attempt,
    Delivery,
    EventConfig,
    EventEnd,
    Held,
    QueuedEvent,
    Response,
    after,
    before,
)
from serverfull.errors import (
    DurableExecutionAlreadyStarted,
    InternalFailure,
    ShuttingDown,
    TooManyRequests,
)
from serverfull.interfaces import EventQueue
from serverfull.invocation.lines import READ_AHEAD, Beginning, Lines

if TYPE_CHECKING:
    from serverfull.domain.events import Lease
    from serverfull.interfaces import Clock, EventStore
    from serverfull.invocation.lines import Line
    from serverfull.invocation.queueing import Policy, Running

Result = TypeVar("Result")

_OUTAGE = 0.5
"""Seconds until what has to be written is tried again while it cannot be."""

_FORGET_EVERY = 600.0
"""Seconds between two looks for what was kept long enough."""


class StoredQueue(EventQueue):
    """Runs events that a store keeps.

    :param open_store: opens the store: at the start, or for the first event where it keeps nothing beyond the process.
    :param durable: whether what waits outlives the process.
    :param wake_deliveries: called when something is to be delivered.
    """

    def __init__(
        self,
        open_store: Callable[[], Awaitable[EventStore]],
        clock: Clock,
        running: Running,
        policy: Policy,
        logger: Any,
        *,
        durable: bool,
        wake_deliveries: Callable[[], None] = lambda: None,
    ) -> None:
        self._open_store = open_store
        self._clock = clock
        self._functions = running
        self._policy = policy
        self._logger = logger
        self._durable = durable
        self._wake_deliveries = wake_deliveries
        self._store: EventStore | None = None
        self._opening = asyncio.Lock()
        self._lines = Lines()
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._forgetting: asyncio.TimerHandle | None = None
        self._deadly: set[int] = set()
        self._last_chances: deque[tuple[Line, int]] = deque()
        self._trying_deadly = False
        self._outage = False
        self._draining = False
        self._stopped = False
        self._changed = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many events wait to be run."""
        return self._waiting

    @property
    def running(self) -> int:
        """How many events are being run."""
        return sum(line.running + line.appending for line in self._lines)

    async def start(self) -> None:
        """Run what a host before this one has left.

        :raises StateUnusable: the store cannot be opened.
        """
        if self._durable:
            await self.store()

    async def store(self) -> EventStore:
        """Give the store, opened now where nobody has needed it yet.

        :raises StateUnusable: it cannot be opened.
        """
        if self._store is None:
            async with self._opening:
                if self._store is None:
                    store = await self._open_store()
                    try:
                        await self._begin(store)
                    except BaseException:
                        await store.aclose()
                        raise
                    self._store = store
                    self._read_all()
                    self._forget()
        return self._store

    async def _begin(self, store: EventStore) -> None:
        waiting = await store.lines()
        for name, count in waiting.items():
            line = self._lines.line(name)
            line.waiting, line.complete = count, False
        self._waiting = sum(waiting.values())
        if self._waiting:
            self._logger.info("events wait from before", count=self._waiting, functions=len(waiting))

    async def reload(self) -> None:
        """See again what waits: somebody else has added or deleted events."""
        store = await self.store()
        waiting = dict(await store.lines())
        for line in self._lines:
            line.waiting = waiting.pop(line.name, 0) + line.appending
            line.complete, line.missed = False, line.reading
        for name, count in waiting.items():
            line = self._lines.line(name)
            line.waiting, line.complete = count, False
        self._waiting = sum(line.waiting for line in self._lines)
        self._read_all()
        self._wake_deliveries()

    def _read_all(self) -> None:
        for line in self._lines:
            self._read_if_wanted(line)
        self._begin_next()

    async def put(self, event: QueuedEvent) -> bool:
        """Accept an event; False: it was accepted before.

        :raises DurableExecutionAlreadyStarted: another event has its name.
        :raises TooManyRequests: as many wait as may.
        :raises ShuttingDown: the host drains.
        :raises InternalFailure: it cannot be kept now.
        """
        store = self._store or await self.store()
        if self._draining:
            raise ShuttingDown
        line = self._lines.line(event.line)
        self._check_backlog(line)
        line.waiting += 1
        self._waiting += 1
        line.appending += 1
        try:
            (key,) = await store.append((event,))
        except BaseException as failure:
            self._take(line)
            line.complete, line.missed = False, line.reading  # one that was cancelled is kept all the same
            if isinstance(failure, asyncio.CancelledError):
                line.waiting += 1
                self._waiting += 1
            raise
        finally:
            line.appending -= 1
            self._changed.set()
        if key <= ACCEPTED_BEFORE:
            self._take(line)
            self._lines.forget_if_idle(line)
            if key == NAME_TAKEN:
                raise DurableExecutionAlreadyStarted(event.execution_name or "")
            return False
        line.added(key)
        self._read_if_wanted(line)
        self._offer(line)
        return True

    def _check_backlog(self, line: Line) -> None:
        if self._waiting >= self._policy.backlog:
            raise TooManyRequests("CallerRateLimitExceeded", message="Too many events are waiting on this host.")
        if line.waiting >= self._policy.function_backlog:
            raise TooManyRequests(
                "CallerRateLimitExceeded", message="Too many events of this function are waiting on this host."
            )

    def freed(self, function: str) -> None:
        """Hear that an invocation has ended, so that an event that was refused may be tried again."""
        if self._lines.any_blocked and self._lines.freed(function):
            self._begin_next()

    def _offer(self, line: Line) -> None:
        self._lines.offer(line)
        self._begin_next()

    def _begin_next(self) -> None:
        """Begin what may be begun, and read what is to be begun next."""
        if self._stopped or self._store is None or (self._draining and self._durable):
            return
        while (turn := self._lines.next()) is not None:
            line, key = turn
            if key in self._deadly and self._trying_deadly:
                self._last_chances.append(turn)  # one at a time: nothing else is meant if the host dies once more
                line.beginning -= 1
                continue
            self._trying_deadly = self._trying_deadly or key in self._deadly
            self._spawn(self._attempt(self._store, line, key))
            self._read_if_wanted(line)
        self._set_timer()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when = self._lines.next_waking
        if when is not None and not self._stopped:
            delay = max(0.0, when - self._clock.now())
            self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        for line in self._lines.due(self._clock.now()):
            self._read_if_wanted(line)
            self._lines.forget_if_idle(line)
        self._begin_next()
        self._changed.set()

    def _read_if_wanted(self, line: Line) -> None:
        if line.wants_reading and self._store is not None and not self._stopped:
            line.reading = True
            self._spawn(self._read(self._store, line))

    async def _read(self, store: EventStore, line: Line) -> None:
        limit = READ_AHEAD + len(line.known)
        try:
            rows = await self._written(partial(store.upcoming, line.name, limit))
        finally:
            line.reading = False
        now, complete = self._clock.now(), len(rows) < limit
        for row in rows:
            if row.key in line.known:
                continue
            if row.due > now:
                self._lines.read_at(line, row.due)
                complete = True
                break
            if row.deaths >= MOST_HOST_DEATHS - 1:
                self._deadly.add(row.key)
            line.ready.append(row.key)
            line.known.add(row.key)
        line.complete, line.missed = complete and not line.missed, False
        self._read_if_wanted(line)
        self._offer(line)
        self._lines.forget_if_idle(line)
        self._changed.set()

    async def _attempt(self, store: EventStore, line: Line, key: int) -> None:
        """Try an event once."""
        begun = Beginning(line)

        def admitted() -> None:
            begun.over()
            line.grow()
            self._offer(line)

        try:
            lease = await self._written(partial(store.claim, key))
            line.known.discard(key)
            due = line.held.pop(key, None)
            if lease is not None:
                self._take(line)
                await self._run(store, line, lease, due, admitted)
        except Exception:  # a task's boundary: the event stays leased until the host ends
            self._logger.exception("event not handled", key=key)
        finally:
            begun.over()
            line.running -= 1
            self._ended(key)
            self._offer(line)
            self._lines.forget_if_idle(line)
            self._changed.set()

    def _take(self, line: Line) -> None:
        line.waiting -= 1
        self._waiting -= 1

    def _ended(self, key: int) -> None:
        """Let the next event have its last chance, if this one had it."""
        if key in self._deadly:
            self._deadly.discard(key)
            self._trying_deadly = False
            if self._last_chances and not self._stopped and self._store is not None:
                self._trying_deadly = True
                line, key = self._last_chances.popleft()
                line.beginning += 1
                self._spawn(self._attempt(self._store, line, key))

    async def _run(
        self, store: EventStore, line: Line, lease: Lease, due: float | None, admitted: Callable[[], None]
    ) -> None:
        """Do with a leased event what is to be done.

        :param due: when it was to be tried again that a limit had refused before.
        """
        event, config = lease.event, EventConfig()
        attempt: Attempt
        try:
            config = await self._functions.config(event)
        except Exception as failure:
            attempt = Held(Response(status_code=500, message=str(failure)))
        else:
            ended = before(event, config, self._clock.now())
            if ended is not None:
                await self._end(store, lease, ended, config)
                return
            attempt = await self._functions.run(event, admitted)
        now = self._clock.now()
        follows = after(event, attempt, config, now, self._policy.base_delay)
        if not isinstance(attempt, Held) or not attempt.limit:
            if isinstance(follows, EventEnd):
                await self._end(store, lease, follows, config)
            else:
                await self._wait(store, line, lease, follows)
                self._lines.read_at(line, follows.at)
                line.missed = line.reading
                self._set_timer()
            return
        if due is not None and now < due:  # it was tried before its time, as there was hope
            follows = Again(event, due)
        if isinstance(follows, EventEnd):
            await self._end(store, lease, follows, config)
            return
        until = follows.at if self._policy.retry is None else min(follows.at, now + self._policy.retry)
        self._lines.block(line, attempt.limit, until)  # before anything is waited for, so that no end is missed
        self._set_timer()
        await self._wait(store, line, lease, follows)
        line.held[lease.key] = follows.at
        line.known.add(lease.key)
        line.ready.appendleft(lease.key)

    async def _wait(self, store: EventStore, line: Line, lease: Lease, again: Again) -> None:
        await self._written(partial(store.reschedule, lease, again.event, again.at))
        line.waiting += 1
        self._waiting += 1

    async def _end(self, store: EventStore, lease: Lease, end: EventEnd, config: EventConfig) -> None:
        event, keep = lease.event, not end.success
        deliveries: Sequence[Delivery] = ()
        try:
            deliveries = self._functions.deliveries(event, end, config)
        except Exception:  # whom to tell cannot be said: the operator sees the event
            self._logger.exception("nobody told of event", function=event.name, request_id=event.request_id)
            keep = True
        keep = keep and not deliveries
        if await self._written(partial(store.end, lease, end, deliveries, keep=keep)):
            self._functions.ended(event, end, keep)
            if deliveries:
                self._wake_deliveries()

    async def _written(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """Have the store do something, as soon as it can."""
        while True:
            try:
                result = await call()
            except InternalFailure as failure:
                if not self._outage:
                    self._outage = True
                    self._logger.error("events cannot be written", reason=failure.message)
            else:
                if self._outage:
                    self._outage = False
                    self._logger.info("events are written again")
                return result
            await asyncio.sleep(_OUTAGE)

    def _forget(self) -> None:
        """Delete what was kept long enough, now and then."""
        if self._store is not None and not self._stopped:
            self._spawn(self._forget_in(self._store))
            self._forgetting = asyncio.get_running_loop().call_later(_FORGET_EVERY, self._forget)

    async def _forget_in(self, store: EventStore) -> None:
        while gone := await self._written(partial(store.forget, self._clock.now() - self._policy.keep)):
            self._logger.info("events kept long enough", count=gone)

    async def drain(self, timeout: float) -> int:
        """Refuse new events and let those end that run; also those that wait, where nothing of them would be left.

        :return: how many are lost: only events that are kept in memory can be.
        """
        loop = asyncio.get_running_loop()
        self._draining = True
        until = loop.time() + timeout
        while self._durable and self._last_chances:
            self._last_chances.popleft()[0].running -= 1
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while self._can_go_on(until - loop.time()):
                    self._changed.clear()
                    await self._changed.wait()
        lost = 0 if self._durable else self._waiting + self.running
        await self._stop()
        if self._durable and self._waiting:
            self._logger.info("events wait for the next start", count=self._waiting)
        return lost

    def _can_go_on(self, seconds: float) -> bool:
        """Say whether anything can happen to events within so many seconds."""
        if self.running:
            return True
        if self._durable or not self._waiting:
            return False
        waking = self._lines.next_waking
        return any(line.reading for line in self._lines) or (
            waking is not None and waking <= self._clock.now() + seconds
        )

    async def _stop(self) -> None:
        self._stopped = True
        for timer in (self._timer, self._forgetting):
            if timer is not None:
                timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def aclose(self) -> None:
        """Run nothing any more, and close the store. Closing twice is fine."""
        self._draining = True
        await self._stop()
        async with self._opening:
            if self._store is not None:
                await self._store.aclose()
