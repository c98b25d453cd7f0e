"""The deadlines of invocations, with one timer for all of them.

A timer of the loop's own for each invocation costs it 1 µs, and almost none ever fires. Here an invocation is noted and
crossed off; the timer is set for the earliest that was noted, and looks then which are still there.

Called on the host's loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

_NEVER = float("inf")
_TICK = 0.001
"""Seconds: uvloop counts whole milliseconds, so that a timer may fire this much early and is then set once more."""


class Deadlines:
    """Calls what is to be done about invocations that have had their time."""

    def __init__(self) -> None:
        self._pending: dict[object, tuple[float, Callable[..., object], tuple[Any, ...]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = _NEVER

    def note(self, what: object, at: float, expire: Callable[..., object], *args: Any) -> None:
        """Have something called when its time has come, unless it is crossed off before.

        :param what: stands for it; one thing has one deadline.
        :param at: in seconds of `time.monotonic`.
        :param expire: called with the arguments that follow.
        """
        self._pending[what] = at, expire, args
        if at < self._looks_at:
            self._look_at(at)

    def cross_off(self, what: object) -> None:
        """Forget it, if its time has not come yet."""
        self._pending.pop(what, None)

    def close(self) -> None:
        """Forget all. Closing twice is fine."""
        self._pending.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._looks_at = None, _NEVER

    def _look_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = at
        self._timer = asyncio.get_running_loop().call_later(max(_TICK, at - time.monotonic()), self._look)

    def _look(self) -> None:
        self._timer, self._looks_at = None, _NEVER
        now = time.monotonic()
        overdue = [what for what, (at, _, _) in self._pending.items() if at <= now]
        calls = [self._pending.pop(what) for what in overdue]
        if self._pending:
            self._look_at(min(at for at, _, _ in self._pending.values()))
        for _, expire, args in calls:
            try:
                expire(*args)
            except Exception as error:  # must not take the others their answers
                context = {"message": "a deadline could not be kept", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
