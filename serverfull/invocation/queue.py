"""Event invocations: kept before they are accepted, run as soon as a limit allows, tried again as AWS does.

What is accepted is in an `EventStore`, and nothing of it elsewhere but numbers and the keys of a few events of each
line (`Lines`); a payload is read when its event is claimed for a run. The queue owns a task for each attempt, which
`Attempts` makes; a few more read ahead. All on the loop's thread.

An event is claimed, run and then ended or rescheduled under the lease of that claim. Where the store cannot be written
at the moment, what has to be written is tried until it can be: a function that has run is not run again for that.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from serverfull.domain.events import ACCEPTED_BEFORE, MOST_HOST_DEATHS, NAME_TAKEN, QueuedEvent
from serverfull.errors import DurableExecutionAlreadyStarted, ShuttingDown
from serverfull.interfaces import EventQueue
from serverfull.invocation.attempts import Attempts
from serverfull.invocation.last_chances import LastChances
from serverfull.invocation.lines import READ_AHEAD, Beginning, Lines
from serverfull.invocation.outages import Outages

if TYPE_CHECKING:
    from serverfull.domain.events import Lease
    from serverfull.interfaces import Clock, EventStore
    from serverfull.invocation.lines import Line
    from serverfull.invocation.queueing import Policy, Running

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
        self._last_chances = LastChances()
        self._outages = Outages(logger)
        self._attempts = Attempts(
            running, clock, self._outages, logger, base_delay=policy.base_delay, wake_deliveries=wake_deliveries
        )
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
                        await self._look(store)
                    except BaseException:
                        await store.aclose()
                        raise
                    if self._waiting:
                        functions = len(list(self._lines))
                        self._logger.info("events wait from before", count=self._waiting, functions=functions)
                    self._store = store
                    self._read_all()
                    self._forget()
        return self._store

    async def reload(self) -> None:
        """See again what waits: somebody else has added or deleted events."""
        await self._look(await self.store())
        self._read_all()
        self._wake_deliveries()

    async def _look(self, store: EventStore) -> None:
        """See how many events wait in each line, and that they have to be read."""
        waiting = dict(await store.lines())
        for line in self._lines:
            line.waiting = waiting.pop(line.name, 0) + line.appending
            line.complete, line.missed = False, line.reading
        for name, count in waiting.items():
            line = self._lines.line(name)
            line.waiting, line.complete = count, False
        self._waiting = sum(line.waiting for line in self._lines)

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
        self._policy.check_backlog(self._waiting, line.waiting)
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
            if self._last_chances.may_begin(line, key):
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
            rows = await self._outages.over(partial(store.upcoming, line.name, limit))
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
                self._last_chances.add(row.key)
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
            by = max(self._clock.now(), line.held.get(key, 0.0))
            lease = await self._outages.over(partial(store.claim, key, by))
            line.known.discard(key)
            due = line.held.pop(key, None)
            if lease is None:  # its key was read when it waited before: how it waits now is read once more
                line.complete, line.missed = False, line.reading
                self._read_if_wanted(line)
            else:
                self._take(line)
                await self._run(store, line, lease, due, admitted)
        except Exception:  # a task's boundary: the event stays leased until the host ends
            self._logger.exception("event not handled", key=key)
        finally:
            begun.over()
            line.running -= 1
            self._give_last_chance(store, key)
            self._offer(line)
            self._lines.forget_if_idle(line)
            self._changed.set()

    def _take(self, line: Line) -> None:
        line.waiting -= 1
        self._waiting -= 1

    def _give_last_chance(self, store: EventStore, key: int) -> None:
        """Let the next event have its last chance, if this one had it."""
        turn = self._last_chances.ended(key)
        if turn is not None and not self._stopped:
            self._spawn(self._attempt(store, *turn))

    async def _run(
        self, store: EventStore, line: Line, lease: Lease, due: float | None, admitted: Callable[[], None]
    ) -> None:
        """Try a leased event, and let it wait if it is to be tried again.

        :param due: when it was to be tried again that a limit had refused before.
        """
        wait = await self._attempts.make(store, lease, due, admitted)
        if wait is None:
            return
        again, limit = wait
        if limit:  # before anything is waited for, so that no end is missed
            soon = None if self._policy.retry is None else self._clock.now() + self._policy.retry
            self._lines.block(line, limit, again.at if soon is None else min(again.at, soon))
            self._set_timer()
        await self._outages.over(partial(store.reschedule, lease, again.event, again.at))
        line.waiting += 1
        self._waiting += 1
        if limit:
            line.held[lease.key] = again.at
            line.known.add(lease.key)
            line.ready.appendleft(lease.key)
        else:
            self._lines.read_at(line, again.at)
            self._set_timer()

    def _forget(self) -> None:
        """Delete what was kept long enough, now and then."""
        if self._store is not None and not self._stopped:
            self._spawn(self._forget_in(self._store))
            self._forgetting = asyncio.get_running_loop().call_later(_FORGET_EVERY, self._forget)

    async def _forget_in(self, store: EventStore) -> None:
        while gone := await self._outages.over(partial(store.forget, self._clock.now() - self._policy.keep)):
            self._logger.info("events kept long enough", count=gone)

    async def drain(self, timeout: float) -> int:
        """Refuse new events and let those end that run; also those that wait, where nothing of them would be left.

        :return: how many are lost: only events that are kept in memory can be.
        """
        loop = asyncio.get_running_loop()
        self._draining = True
        until = loop.time() + timeout
        if self._durable:
            self._last_chances.drop()
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
