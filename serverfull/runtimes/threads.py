"""Threads of our own for plain ``def`` handlers, and the hand-over between them and the event loop.

The loop puts a `Job` on a queue; one of the threads takes it, executes it, appends it to the finished jobs and wakes
the loop. One wake-up serves all jobs that finished before the loop looks: the thread appends first and tests the flag
after, the loop clears the flag first and looks after, so no wake-up is lost. Against ``run_in_executor`` this saves
about 12 µs a call and a third of the throughput (``make bench``: sync handler).

A job whose time is up is *abandoned*: its caller has been answered, its thread is counted as lost until it ends, and
another one takes its place. A lost thread is asked to stop by an asynchronous exception; where it is stuck in C it
stays.

Everything here but `HandlerThreads._work` runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import contextvars
import logging
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, Generic, TypeVar

from serverfull.runtimes.thread_loops import HandlerThread, ThreadLoops

Result = TypeVar("Result")


THREAD_CALLER = "_execute_handler"
"""The name of the function of ours that calls ``def`` handlers on their threads."""

HANDLER_CALLERS = (THREAD_CALLER, "run_coroutine")
"""The names of the functions of ours that call handlers; what is called from there on is the user's code."""


class Abandoned(BaseException):
    """Raised inside a handler's thread after its invocation timed out; it is nobody's to catch."""


class Job(Generic[Result]):
    """One piece of work for a thread.

    :param work: called on the thread, in a fresh context; must not raise.
    :param waiter: gets the result on the loop, unless it is done by then.
    """

    __slots__ = ("abandoned", "finished", "lost", "result", "retired", "thread", "waiter", "work")

    def __init__(self, work: Callable[[], Result], waiter: asyncio.Future[Result]) -> None:
        self.work = work
        self.waiter = waiter
        self.result: Result | None = None
        self.thread: threading.Thread | None = None
        self.finished = False  # set by the thread, before it looks at `abandoned`
        self.abandoned = False  # set by the loop, before it looks at `thread` and `finished`
        self.lost = False  # the loop has written the thread off
        self.retired = False  # the thread ends after this job


class Completions:
    """Brings finished jobs from any thread to the loop, many with one wake-up."""

    __slots__ = ("_finished", "_loop", "_on_done", "_waking")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_done: Callable[[Job[Any]], None] | None = None) -> None:
        self._loop = loop
        self._finished: deque[Job[Any]] = deque()
        self._waking = False
        self._on_done = on_done

    def add(self, job: Job[Any]) -> None:
        """Hand a finished job over; called on the job's thread."""
        self._finished.append(job)
        if not self._waking:
            self._waking = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: nobody waits for the result any more
                self._waking = False

    def add_quietly(self, job: Job[Any]) -> None:
        """Hand over a job that nobody waits for, without waking the loop.

        A thread that may be stopped at any moment must not be the one that has promised a wake-up.
        """
        self._finished.append(job)

    def _deliver(self) -> None:
        self._waking = False
        finished = self._finished
        while finished:
            job = finished.popleft()
            if self._on_done is not None:
                self._on_done(job)
            if not job.waiter.done():
                job.waiter.set_result(job.result)


class HandlerThreads:
    """As many threads as there are jobs at once, kept for the next ones.

    :param loop: the loop that submits and awaits.
    :param name: prefix of the threads' names.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str = "serverfull-handler") -> None:
        self._name = name
        self._queue: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._completions = Completions(loop, self._on_done)
        self._running = 0
        self._alive = 0
        self._born = 0
        self._closed = False
        ThreadLoops.install()

    def submit(self, job: Job[Any]) -> None:
        """Let a thread execute the job; its waiter gets the result."""
        self._running += 1
        if self._running > self._alive:
            self._start_thread()
        self._queue.put(job)

    def abandon(self, job: Job[Any]) -> threading.Thread | None:
        """Give up waiting for a job.

        :return: the thread that is lost to it; None where the job has just ended or will not begin.
        """
        job.abandoned = True
        if job.finished or job.thread is None:  # its result is on the way, or its thread will skip it
            return None
        job.lost = True
        self._running -= 1
        self._alive -= 1
        return job.thread

    def close(self) -> None:
        """End the idle threads now and each busy one after its job. Closing twice is fine."""
        if not self._closed:
            self._closed = True
            ThreadLoops.uninstall()
            for _ in range(self._alive):
                self._queue.put(None)

    def _on_done(self, job: Job[Any]) -> None:
        if not job.lost:
            self._running -= 1
            self._alive -= job.retired

    def _start_thread(self) -> None:
        self._born += 1
        self._alive += 1
        # An empty context: a thread outlives the invocation during which it is started.
        thread = HandlerThread(target=self._work, name=f"{self._name}-{self._born}", daemon=True)
        contextvars.Context().run(thread.start)

    def _work(self) -> None:
        take, finish, me = self._queue.get, self._completions.add, threading.current_thread()
        try:
            while (job := take()) is not None:
                job.thread = me
                if not job.abandoned:
                    job.result = contextvars.Context().run(job.work)
                job.finished = True
                if job.abandoned:  # an asynchronous exception may be under way to this thread: it takes no further job
                    job.retired = True
                    self._completions.add_quietly(job)
                    return
                finish(job)
                del job
        except Abandoned:
            return


def interrupt(thread: threading.Thread) -> bool:
    """Ask a lost thread to stop by raising `Abandoned` in it; one stuck in C sees it when the C call returns.

    A thread that is just inside the host's own code, an import, or the standard library's locks and logging is left
    alone, because stopping it there could leave a lock taken that others wait for.

    :return: False where it was left alone and may be asked again later.
    """
    import ctypes  # late: few hosts ever lose a thread

    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None:
        return True
    if _is_guarded(frame):
        return False
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Abandoned))
    return True


_OURS = str(Path(__file__).parent.parent) + "/"
_CALLS_HANDLERS = str(Path(__file__).parent / "handlers.py")
_LOCKING = (threading, logging, queue, concurrent.futures.thread)
_GUARDED = (_OURS, "<frozen importlib", *(str(module.__file__) for module in _LOCKING))
_DEEPEST = 500


def _is_guarded(frame: FrameType) -> bool:
    """Say whether a thread runs code that must not be stopped, from its innermost call out to the handler's."""
    inner: FrameType | None = frame
    for _ in range(_DEEPEST):
        if inner is None or inner.f_code.co_name in HANDLER_CALLERS:
            return False
        file = inner.f_code.co_filename
        if file.startswith(_GUARDED) and file != _CALLS_HANDLERS:
            return True
        inner = inner.f_back
    return False
