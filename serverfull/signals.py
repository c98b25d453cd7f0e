"""How the process hears of signals, says that it is ready, and ends, whatever state loop, streams and threads are in.

A loop that a handler blocks for ever hears of no signal. So these are plain signal handlers of the main thread, which
run between two steps of whatever Python code blocks it: they tell the loop, and start a thread that ends the process
when the loop has not come to an end in time. `AtOnce` is for the time before there is a loop and after it.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

ALLOWANCE = 3.0
"""Seconds for closing what is left, after the drain's own time or after a second signal."""

KILLED = 137
"""Exit status of a process that had to be ended: as if by SIGKILL."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells expect it."""


class AtOnce:
    """Ends the process at the first SIGTERM or SIGINT, without a word, while there is nothing to drain.

    The command that serves has it from its first step to the interpreter's last, except while `Signals` hears. Python's
    own KeyboardInterrupt would not do: it can come up in a callback of the import system or of the garbage collector,
    which prints a traceback and goes on; and SIGTERM does nothing at all to the first process of a container.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        """What the process ends with as it is; None: what the signal stands for."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._heard)
            atexit.register(self._deaf)  # the first one registered is the last one called

    def keep(self, numbers: tuple[int, ...]) -> None:
        """Leave signals to what Python does with them, all but these."""
        for number, usual in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
            if number not in numbers and signal.getsignal(number) == self._heard:
                signal.signal(number, usual)

    def _heard(self, number: int, _: FrameType | None) -> None:
        usual = INTERRUPTED if number == signal.SIGINT else 0
        with contextlib.suppress(Exception):  # closed, full, or being written to in this very moment
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(usual if self.status is None else self.status)

    def _deaf(self) -> None:
        """Hold signals back for the moment until the end, when Python handles them no more."""
        numbers = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) == self._heard]
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


class Signals:
    """Turns signals into two events: the first one, and any further one. Use it as a context manager on the loop.

    Outside of the main thread it hears nothing, as the system does not allow it.

    :param numbers: the signals.
    :param patience: seconds that a drain may take.
    """

    def __init__(self, numbers: tuple[int, ...], patience: float) -> None:
        import asyncio  # late: the command line uses this module before it imports anything that takes time

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


def leave_stuck_threads_behind(status: int) -> None:
    """End the process where a thread of a handler's, or of a module's, would keep it from ending."""
    stuck = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    deadline = time.monotonic() + 1.0  # for all of them together
    for thread in stuck:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in stuck):
        with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads them any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
