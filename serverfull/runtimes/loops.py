"""The event loops that async handlers run on, and what handlers do to them.

- `LoopRunner` runs the host's loop in the main thread.
- `OwnLoop` is a loop in a thread of its own, for handlers that may block it (``Function(..., loop="own")``).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from serverfull.runtimes.threads import Abandoned

if TYPE_CHECKING:
    from typing import Self

Result = TypeVar("Result")

HEARTBEAT = 0.05
"""Seconds between the beats by which a watchdog sees that a loop is alive."""

PATIENCE = 1.0
"""Seconds that the end of a loop waits for tasks that were told to end."""


class Heart:
    """Beats on a loop, so that another thread can see how long the loop has been stuck.

    ``last`` is the monotonic time of the latest beat; reading it needs no lock.
    """

    __slots__ = ("_handle", "last", "loop", "on_beat", "thread_id")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_beat: Any = None) -> None:
        self.loop = loop
        self.last = time.monotonic()
        self.on_beat = on_beat
        self.thread_id = 0
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start beating; called on the loop's own thread."""
        self.thread_id = threading.get_ident()
        self._beat()

    def stop(self) -> None:
        """Stop beating."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def silence(self) -> float:
        """Seconds since a beat was due."""
        return max(0.0, time.monotonic() - self.last - HEARTBEAT)

    def _beat(self) -> None:
        previous, self.last = self.last, time.monotonic()
        if self.on_beat is not None:
            self.on_beat(max(0.0, self.last - previous - HEARTBEAT))
        self._handle = self.loop.call_later(HEARTBEAT, self._beat)


class OwnLoop:
    """A thread that runs an event loop until it is closed.

    :param name: of the thread, for logs and stack dumps.
    """

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.ended = False
        self.heart = Heart(self.loop)
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        contextvars.Context().run(self.thread.start)

    def spawn(self, coroutine: Coroutine[Any, Any, None], context: contextvars.Context, name: str) -> list[Any]:
        """Start a task on the loop, from another thread; the list holds the task once it has started."""
        started: list[asyncio.Task[None]] = []
        self.loop.call_soon_threadsafe(
            lambda: started.append(self.loop.create_task(coroutine, context=context, name=name))
        )
        return started

    def close(self) -> None:
        """Stop the loop when it next gets to it. Closing twice is fine."""
        if not self.loop.is_closed():
            try:
                self.loop.call_soon_threadsafe(self.loop.stop)
            except RuntimeError:  # closed in between
                return

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self.heart.start)
        try:
            run_in_spite_of_exits(self.loop.run_forever)
        except Abandoned:
            return  # the host has given this loop up
        finally:
            self.ended = True
            self.heart.stop()
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()


class LoopRunner:
    """Runs coroutines on one loop as `asyncio.Runner` does, in spite of what handlers leave on it.

    Neither a task that ends with ``SystemExit`` nor one that calls the loop's ``stop()`` ends the loop, nor one that
    cancels all others. The end waits
    neither for tasks that refuse to be cancelled nor for threads of ``asyncio.to_thread``.

    :param factory: makes the loop; None: asyncio does.
    """

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self._runner = asyncio.Runner(loop_factory=factory)

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end.

        :raises KeyboardInterrupt: Ctrl-C, where nobody else listens for that signal.
        """
        task = self._runner.get_loop().create_task(coroutine)
        while True:
            cancelled: list[bool] = []
            try:
                self._runner.run(_wait_for(task, cancelled))
                return task.result()
            except (SystemExit, KeyboardInterrupt):
                if cancelled:  # Ctrl-C: asyncio.Runner cancels what it runs
                    self._cancel(task)
                if task.done():  # else it was another task's
                    raise
            except asyncio.CancelledError:  # of this task, or of every task of the loop by a handler
                if task.done():
                    raise
            except RuntimeError:  # what asyncio says when somebody called the loop's stop()
                if task.done() or self._runner.get_loop().is_closed():
                    raise

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
            self._runner.run(_wait_for(task, []))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        # Not the runner's own close(): it waits for every task and for every thread of the loop's executor.
        loop = self._runner.get_loop()
        try:
            run_in_spite_of_exits(lambda: loop.run_until_complete(_end_tasks()))
        finally:
            asyncio.set_event_loop(None)
            loop.close()


async def _wait_for(task: asyncio.Task[Any], cancelled: list[bool]) -> None:
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        cancelled.append(True)
        raise


async def wait_in_spite_of_cancels(event: asyncio.Event) -> None:
    """Wait for an event although a handler may cancel every task of its loop, this one too."""
    while not event.is_set():
        try:
            await event.wait()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()


async def _end_tasks() -> None:
    loop = asyncio.get_running_loop()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=PATIENCE)
    await asyncio.wait({loop.create_task(loop.shutdown_asyncgens())}, timeout=PATIENCE)


def run_in_spite_of_exits(run: Callable[[], Result]) -> Result:
    """Run an event loop on although tasks end with ``SystemExit`` or ``KeyboardInterrupt``.

    asyncio raises these two out of the loop, besides giving them to whoever awaits the task, so that ``sys.exit()`` in
    a task that a handler started would end the host. The loop loses nothing when it is just run again.

    :param run: runs the loop; called again after each exit.
    """
    while True:
        try:
            return run()
        except (SystemExit, KeyboardInterrupt):
            continue
