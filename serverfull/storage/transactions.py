"""The one thread that a state's database is used on, and the transactions there.

The event loop puts work on a queue and waits without blocking; the thread runs it, one after the other, and hands the
result to the loop that asked. Serial transactions need no locks and no retries, and SQLite writes serially anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class Job(Generic[Result]):
    """Work that is waited for.

    :param work: called on the thread.
    """

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self.waiter: asyncio.Future[tuple[Result | None, BaseException | None]] = self._loop.create_future()

    def run(self) -> None:
        """Do the work and tell the loop; a loop that is closed by then hears nothing."""
        outcome: tuple[Result | None, BaseException | None]
        try:
            outcome = (self._work(), None)
        except BaseException as error:  # it is raised where the work is waited for
            outcome = (None, error)
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._finish, outcome)

    def _finish(self, outcome: tuple[Result | None, BaseException | None]) -> None:
        if not self.waiter.done():  # the caller may have been cancelled meanwhile
            self.waiter.set_result(outcome)


class SerialThread:
    """Runs jobs one after the other. It is a daemon: a host that ends without closing does not hang on it."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[], Result]) -> Result:
        """Give what the work returns, or raise what it raises. What was put runs even if this is cancelled."""
        job = Job(work)
        self._jobs.put(job)
        result, error = await job.waiter
        if error is not None:
            try:
                raise error
            finally:
                del error, job  # or the error's traceback would hold itself
        return result  # type: ignore[return-value]  # there is a result where there is no error

    async def aclose(self, last: Callable[[], None]) -> None:
        """Run what has been put, then ``last``, and end. All of it happens even if this is cancelled."""
        job = Job(last)
        self._jobs.put(job)
        self._jobs.put(None)
        _, error = await job.waiter
        self._thread.join()  # it has nothing left to do
        if error is not None:
            raise error

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            del job  # a job holds its caller's frame
