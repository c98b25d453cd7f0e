"""Notices an event loop that a handler blocks, from a thread that the loop cannot block.

One thread for the process's host looks at the hearts of its loops. A loop silent for longer than the threshold is
reported once: the function whose task runs, the stack, into the log at once (the loop itself could not say it), and a
`Stall` that health checks on other listeners show while it lasts. Its length is counted while it grows.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

from serverfull.observability.handles import CURRENT
from serverfull.runtimes.loops import HEARTBEAT, Heart
from serverfull.runtimes.threads import THREAD_CALLER

TASK_PREFIX = "serverfull-invocation:"
"""Tasks of handlers are named by this and their function."""

UNKNOWN = "unknown"
"""Stands for the function where no handler can be found that keeps a loop from turning."""


class Stall(NamedTuple):
    """A loop that does not turn.

    :param function: whose handler blocks it; ``unknown`` where the running code belongs to no function.
    :param seconds: how long it had been silent when it was seen.
    :param stack: the loop thread's stack, innermost call last.
    """

    function: str
    seconds: float
    stack: str


class _Watched:
    """What is known of a loop; written by the watchdog's thread alone.

    ``since`` is the loop's last beat before the stall, ``counted`` the seconds of the stall that were told.
    """

    __slots__ = ("counted", "since", "stall")

    def __init__(self) -> None:
        self.stall: Stall | None = None
        self.since = 0.0
        self.counted = 0.0


class Watchdog:
    """Watches hearts from a thread of its own.

    :param threshold: seconds of silence that make a stall.
    :param on_stall: called on the watchdog's thread when one begins.
    :param on_seconds: called on the watchdog's thread while a stall lasts, with the stall and the seconds by which it
        has grown since the last time.
    :param on_recovery: called on the watchdog's thread with the stall and its length in seconds.
    """

    def __init__(
        self,
        threshold: float,
        on_stall: Callable[[Stall], None],
        on_seconds: Callable[[Stall, float], None],
        on_recovery: Callable[[Stall, float], None],
    ) -> None:
        self._threshold = threshold
        self._on_stall = on_stall
        self._on_seconds = on_seconds
        self._on_recovery = on_recovery
        self._hearts: dict[Heart, _Watched] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def stall_of(self, heart: Heart) -> Stall | None:
        """Give the stall of a loop that is going on now, if any; readable from any thread."""
        watched = self._hearts.get(heart)
        stall = None if watched is None else watched.stall
        if watched is None or stall is None or heart.last != watched.since:  # it may have beaten since the last look
            return None
        return stall._replace(seconds=max(stall.seconds, heart.silence()))

    def watch(self, heart: Heart) -> None:
        """Look after one more loop."""
        self._hearts[heart] = _Watched()

    def forget(self, heart: Heart) -> None:
        """Stop looking after a loop."""
        self._hearts.pop(heart, None)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._watch, name="serverfull-watchdog", daemon=True)
        contextvars.Context().run(self._thread.start)

    def stop(self) -> None:
        """End the thread. Stopping twice is fine."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1)

    def _watch(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            for heart, watched in list(self._hearts.items()):
                if heart.thread_id:
                    self._look(heart, watched)

    def _look(self, heart: Heart, watched: _Watched) -> None:
        last = heart.last
        silence = time.monotonic() - last - HEARTBEAT
        if watched.stall is not None and last != watched.since:
            # It has beaten, though it may be silent again: this thread too may wait long for its turn.
            stall, watched.stall = watched.stall, None
            self._on_recovery(stall, watched.counted)
        if silence <= self._threshold:
            return
        if watched.stall is None:
            found = _describe(heart, silence)
            if heart not in self._hearts:
                return  # given up meanwhile
            watched.since, watched.counted, watched.stall = last, 0.0, found
            self._on_stall(found)
        self._on_seconds(watched.stall, silence - watched.counted)
        watched.counted = silence


def _describe(heart: Heart, silence: float) -> Stall:
    frame = sys._current_frames().get(heart.thread_id)
    stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
    return Stall(function=_running_function(heart.loop), seconds=silence, stack=stack)


def _functions_on_threads() -> str:
    """Name the functions whose ``def`` handlers run now: one of them keeps the interpreter's lock from the loop."""
    found = set()
    for frame in sys._current_frames().values():
        inner: FrameType | None = frame
        while inner is not None and inner.f_code.co_name != THREAD_CALLER:
            inner = inner.f_back
        if inner is not None:
            found.add(str(inner.f_locals["self"].identity.name))
    return ", ".join(sorted(found))


def _running_function(loop: asyncio.AbstractEventLoop) -> str:
    task: Any = asyncio.current_task(loop)
    if task is None:
        return _functions_on_threads() or UNKNOWN
    name = str(task.get_name())
    if name.startswith(TASK_PREFIX):
        return name.removeprefix(TASK_PREFIX)
    get_context = getattr(task, "get_context", None)  # CPython 3.12 and newer: tasks that the handler started
    if get_context is not None:
        identity = getattr(get_context().get(CURRENT), "identity", None)
        if identity is not None:
            return str(identity.name)
    return UNKNOWN
