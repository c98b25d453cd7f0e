"""Keeps so many sandboxes of a function ready before they are needed, and makes new ones where they end.

A `Pool` has one, and lends from it first. Code that cannot be loaded is not started again until a count is asked for
once more; what ends after that is replaced, later and later where it happens again without a call in between.

Everything here runs on the host's loop.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/provisioned-concurrency.html
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from serverfull.domain.json_functions import loads
from serverfull.domain.readiness import Readiness
from serverfull.errors import FunctionNotReady

if TYPE_CHECKING:
    from serverfull.domain.invocations import Outcome
    from serverfull.interfaces import Sandbox

INIT_FAILURE = "FUNCTION_ERROR_INIT_FAILURE"
"""What AWS says where code cannot be loaded."""

_AT_ONCE = 4
"""Sandboxes that are started at the same time."""

_LONGEST_BACKOFF = 30.0
"""Seconds between two attempts at what fails or ends each time, at most."""


def backoff(times: int) -> float:
    """Give the seconds until a sandbox is started once more, after so many in a row that failed or ended."""
    return min(2.0 ** (times - 2), _LONGEST_BACKOFF) * (times > 1)


class ReserveFigures(Protocol):
    """What hears how many there are, and whether they were enough."""

    def provisioned_ready(self, change: int) -> None:
        """So many more are ready or busy, or fewer."""

    def provisioned_started(self) -> None:
        """A call was lent one."""

    def provisioned_ended(self) -> None:
        """A call has given one back."""

    def spilled_over(self) -> None:
        """A call came that found none."""


class _Uncounted(ReserveFigures):
    """Counts nothing."""

    def provisioned_ready(self, change: int) -> None:
        """Pass."""

    def provisioned_started(self) -> None:
        """Pass."""

    def provisioned_ended(self) -> None:
        """Pass."""

    def spilled_over(self) -> None:
        """Pass."""


UNCOUNTED: ReserveFigures = _Uncounted()
"""For whoever shows no figures."""


class Reserve:
    """The sandboxes that are kept ready.

    :param make: makes one that is not started yet.
    :param spawn: keeps a task alive until it ends.
    :param figures: hears how many there are.
    """

    def __init__(self, make: Callable[[], Sandbox], spawn: Callable[[Any], object], figures: ReserveFigures) -> None:
        self._make = make
        self._spawn = spawn
        self._figures = figures
        self._counted = 0  # what the figures know
        self._loop = asyncio.get_running_loop()
        self._wanted = 0
        self._changed: Callable[[Readiness], None] = lambda _readiness: None
        self._idle: deque[Sandbox] = deque()
        self._busy: set[Sandbox] = set()
        self._starting: set[Sandbox] = set()
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._failure: str | None = None
        self._ends = 0  # since a call went well
        self._timer: asyncio.TimerHandle | None = None

    @property
    def size(self) -> int:
        """How many there are, those that are being started too."""
        return len(self._idle) + len(self._busy) + len(self._starting)

    def resize(self, wanted: int, changed: Callable[[Readiness], None]) -> None:
        """Keep so many from now on.

        :param changed: told how far that is, now and whenever it changes.
        """
        self._wanted, self._changed = wanted, changed
        self._failure = None
        self._fill()

    def take(self) -> Sandbox | None:
        """Give one that is idle, if there is any; hand it back with `give_back`."""
        if not self._idle:
            if self._wanted:
                self._figures.spilled_over()
            return None
        sandbox = self._idle.pop()
        self._busy.add(sandbox)
        self._figures.provisioned_started()
        return sandbox

    def give_back(self, sandbox: Sandbox, *, worn: bool) -> bool:
        """Take one back after a call; says whether it was lent from here.

        :param worn: whether it has done enough, and is to be replaced.
        """
        if sandbox not in self._busy:
            return False
        self._busy.remove(sandbox)
        self._figures.provisioned_ended()
        if sandbox.usable and not worn and self.size < self._wanted:
            self._ends = 0
            self._idle.append(sandbox)
        else:
            self._end(sandbox)
            self._fill()
        return True

    def freeze(self) -> None:
        """Stop what idle ones have left running."""
        for sandbox in self._idle:
            if not sandbox.frozen:
                sandbox.freeze()

    def close(self) -> None:
        """End those that run nothing, and the others after what they run. Closing twice is fine."""
        self._wanted = 0
        if self._timer is not None:
            self._timer.cancel()
        for sandbox in (*self._idle, *self._starting):
            self._end(sandbox)
        self._idle.clear()
        self._starting.clear()
        self._count()

    def _fill(self) -> None:
        while self._failure is None and self.size < self._wanted:
            sandbox = self._make()
            self._starting.add(sandbox)
            self._spawn(self._start(sandbox))
        while self.size > self._wanted and self._idle:
            self._end(self._idle.popleft())
        self._tell()

    def _tell(self) -> None:
        self._changed(Readiness(self._wanted, self._count(), self._failure))

    def _count(self) -> int:
        ready = len(self._idle) + len(self._busy)
        if ready != self._counted:
            self._figures.provisioned_ready(ready - self._counted)
            self._counted = ready
        return ready

    async def _start(self, sandbox: Sandbox) -> None:
        failure: str | None = "The host failed to start an environment; see its log."
        try:
            async with self._gate:
                failure = _reason(await sandbox.start()) if sandbox in self._starting else None
        except FunctionNotReady as refusal:
            failure = refusal.why
        finally:
            self._started(sandbox, failure)

    def _started(self, sandbox: Sandbox, failure: str | None) -> None:
        if sandbox not in self._starting:  # ended meanwhile, but perhaps before it had a process
            self._end(sandbox)
            return
        self._starting.remove(sandbox)
        if failure is not None:
            self._failure = failure
        if failure is None and sandbox.usable and self.size < self._wanted:
            self._idle.append(sandbox)
            sandbox.when_ended(partial(self._ended, sandbox))
            sandbox.freeze()
        else:
            self._end(sandbox)
        self._fill()

    def _ended(self, sandbox: Sandbox) -> None:
        """Replace one that has ended while it was idle; one that runs something comes back by `give_back`."""
        with suppress(ValueError):
            self._idle.remove(sandbox)
            self._end(sandbox)
            self._ends += 1
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(backoff(self._ends), self._fill)
            self._tell()

    def _end(self, sandbox: Sandbox) -> None:
        self._spawn(sandbox.aclose())


def _reason(failed: Outcome | None) -> str | None:
    """Say how the start of code failed, out of its error document; None where it did not."""
    if failed is None:
        return None
    said: Any = {}
    with suppress(ValueError):
        said = loads(failed.payload)
    if not isinstance(said, dict):
        said = {}
    parts = [str(said[member]) for member in ("errorType", "errorMessage") if said.get(member)]
    return ": ".join([INIT_FAILURE, *parts])
