"""Event invocations in memory: accepted at once, run as soon as a limit allows, drained at shutdown.

They do not survive the process. Each function has a line of its own and the lines take turns, so that a flood of one
function does not delay another's events. All on the loop's thread; each running event is a task that the queue owns.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable

from serverfull.domain.invocations import Invocation
from serverfull.errors import ShuttingDown, TooManyRequests
from serverfull.interfaces import EventQueue


class MemoryQueue(EventQueue):
    """Holds events in memory.

    :param run: runs one event to its end; raises `TooManyRequests` while no limit allows it. Must not raise otherwise.
    :param backlog: events waiting at most, of all functions together.
    :param retry: seconds after which a refused event is tried again although `capacity_freed` was not called, for
        limits that are shared with other processes; None where all that frees capacity is heard of.
    """

    def __init__(self, run: Callable[[Invocation], Awaitable[None]], backlog: int, retry: float | None = None) -> None:
        self._run = run
        self._backlog = backlog
        self._retry = retry
        self._lines: dict[str, deque[Invocation]] = {}
        self._turns: dict[str, int] = {}  # of each function with waiting events; the lowest is served first
        self._turn_numbers = itertools.count()
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._blocked: set[str] = set()
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def waiting(self) -> int:
        """How many events wait to be run."""
        return self._waiting

    async def put(self, invocation: Invocation) -> None:
        """Accept an event.

        :raises TooManyRequests: as many wait as the backlog allows.
        :raises ShuttingDown: the host drains.
        """
        if self._draining:
            raise ShuttingDown
        if self._waiting >= self._backlog:
            raise TooManyRequests("CallerRateLimitExceeded", message="Too many events are waiting on this host.")
        self._append(invocation)
        self._start_next()

    def _append(self, invocation: Invocation) -> None:
        line = self._lines.get(invocation.name)
        if line is None:
            line = self._lines[invocation.name] = deque()
            self._turns[invocation.name] = next(self._turn_numbers)
        line.append(invocation)
        self._waiting += 1
        self._empty.clear()

    def capacity_freed(self) -> None:
        """Hear that an invocation has ended, so that one that was refused may be tried again."""
        if self._waiting:
            self._blocked.clear()
            self._start_next()

    def _start_next(self) -> None:
        for name in sorted(self._turns, key=self._turns.__getitem__):
            if name in self._blocked:
                continue
            line, turn = self._lines[name], self._turns.pop(name)
            invocation = line.popleft()
            self._waiting -= 1
            if line:
                self._turns[name] = next(self._turn_numbers)
            else:
                del self._lines[name]
            task = asyncio.get_running_loop().create_task(self._attempt(invocation, turn))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def _attempt(self, invocation: Invocation, turn: int) -> None:
        try:
            await self._run(invocation)
        except TooManyRequests:
            self._blocked.add(invocation.name)
            self._lines.setdefault(invocation.name, deque()).appendleft(invocation)
            self._turns[invocation.name] = turn  # its turn has not been used
            self._waiting += 1
            if self._retry is not None:
                asyncio.get_running_loop().call_later(self._retry, self.capacity_freed)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._waiting and not self._blocked.issuperset(self._turns):
            self._start_next()
        if not self._tasks and not self._waiting:
            self._empty.set()

    async def drain(self, timeout: float) -> int:
        """Refuse new events and wait for the others; returns how many had not ended after ``timeout`` seconds."""
        self._draining = True
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
            return 0
        except TimeoutError:
            lost = self._waiting + len(self._tasks)
            self._lines.clear()  # or the ends of those that run would start them
            self._turns.clear()
            self._waiting = 0
            for task in list(self._tasks):
                task.cancel()
            return lost
