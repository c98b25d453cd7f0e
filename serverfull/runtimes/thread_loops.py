"""Gives ``def`` handlers the event loop that they have on AWS, where they run in the main thread of a process.

There `asyncio.get_event_loop` makes a loop where none is, and libraries count on it; for other threads it makes none.
So while a host runs, the policy that it asks has a ``get_event_loop`` of ours, which makes one for each handler thread
that asks, and leaves all other threads to what was there before. A loop is closed when its thread is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

from serverfull.runtimes.patches import Patch


class HandlerThread(threading.Thread):
    """A thread that runs ``def`` handlers; to them it is the main thread of their process."""


class _Kept:
    """Closes a loop that nobody has closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __del__(self) -> None:
        if not self._loop.is_running():
            with contextlib.suppress(Exception):  # the interpreter may be half gone
                self._loop.close()


_of_thread = threading.local()


class ThreadLoops(Patch):
    """Lets handler threads ask for a loop, and takes that back."""

    @classmethod
    def _apply(cls) -> Sequence[Callable[[], None]]:
        return [_give_loops()]


def _give_loops() -> Callable[[], None]:
    # From Python 3.14 on the public name warns, and what get_event_loop() itself asks has this one.
    policy: Any = getattr(asyncio.events, "_get_event_loop_policy", asyncio.get_event_loop_policy)()
    real = policy.get_event_loop

    def get_event_loop() -> asyncio.AbstractEventLoop:
        try:
            found: asyncio.AbstractEventLoop = real()
        except RuntimeError:
            if not isinstance(threading.current_thread(), HandlerThread):
                raise
            found = policy.new_event_loop()
            policy.set_event_loop(found)
            _of_thread.kept = _Kept(found)
        return found

    with contextlib.suppress(AttributeError):  # a policy of a user's that takes no attributes: it stays as it is
        policy.get_event_loop = get_event_loop

    def undo() -> None:
        if getattr(policy, "__dict__", {}).get("get_event_loop") is get_event_loop:
            del policy.get_event_loop

    return undo
