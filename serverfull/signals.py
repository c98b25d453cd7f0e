"""How the process hears of signals and says that it is ready, whatever state its loop and its streams are in.

A loop that a handler blocks for ever hears of no signal. So these are plain signal handlers of the main thread, which
run between two steps of whatever Python code blocks it: they tell the loop, and start a thread that ends the process
when the loop has not come to an end in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

ALLOWANCE = 3.0
"""Seconds for closing what is left, after the drain's own time or after a second signal."""

KILLED = 137
"""Exit status of a process that had to be ended: as if by SIGKILL."""


class Signals:
    """Turns signals into two events: the first one, and any further one. Use it as a context manager on the loop.

    Outside of the main thread it hears nothing, as the system does not allow it.

    :param numbers: the signals.
    :param patience: seconds that a drain may take.
    """

    def __init__(self, numbers: tuple[int, ...], patience: float) -> None:
        self._numbers = numbers
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._before: dict[int, Any] = {}
        self._ended = threading.Event()
        self.number = 0
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    @property
    def name(self) -> str:
        """The first signal's name."""
        return signal.Signals(self.number).name if self.number else ""

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._heard) for number in self._numbers}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def over(self) -> None:
        """Say that the process ends by itself now."""
        self._ended.set()

    def drain(self, number: int) -> None:
        """Set the first event, as a signal does; once it is set, nothing. Called on the loop."""
        if not self.first.is_set():
            self.number = number
            self.first.set()

    def _heard(self, number: int, _: FrameType | None) -> None:
        first = not self.number
        if first:
            self.number = number
        self._end_within((self._patience if first else 0.0) + ALLOWANCE)
        self._loop.call_soon_threadsafe((self.first if first else self.second).set)

    def _end_within(self, seconds: float) -> None:
        def end() -> None:
            if not self._ended.wait(seconds):
                os._exit(KILLED)

        contextvars.Context().run(threading.Thread(target=end, name="serverfull-end", daemon=True).start)


def say(line: str) -> None:
    """Write a line to standard output at once; where nobody can be told, go on without.

    Past the stream's own buffer where there is a descriptor: what a buffer cannot get rid of fails again at exit.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        try:
            descriptor = sys.stdout.fileno()
        except (OSError, ValueError, AttributeError):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        else:
            sys.stdout.flush()
            os.write(descriptor, f"{line}\n".encode())
