"""Keeps the sandboxes of one function: makes them when calls come, lends the one used last first, and ends idle ones.

A *sandbox* is what AWS calls an execution environment: a process, later a container, with the code of one version of a
function, which runs one invocation at a time. Everything here runs on the host's loop.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serverfull.domain.readiness import Readiness
from serverfull.errors import InvocationNotBegun, TooManyRequests
from serverfull.interfaces import Environment, Sandbox
from serverfull.runtimes.marshal import decode_event
from serverfull.runtimes.reserve import UNCOUNTED, Reserve, ReserveFigures, backoff

if TYPE_CHECKING:
    from serverfull.domain.invocations import Invocation, Outcome
    from serverfull.interfaces import InvocationLog

TOO_MANY = "ConcurrentInvocationLimitExceeded"
"""The reason of a refusal where a function has as many sandboxes as it may have."""

_NEVER = float("inf")

_FREEZE_AFTER = 0.1
"""Seconds that a sandbox is idle before what it left running is stopped."""


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """How long sandboxes live.

    :param idle_timeout: seconds without an invocation after which one ends; 0: each invocation has its own.
    :param most: sandboxes of a function at once; 0: as many as calls.
    :param uses: invocations after which one is replaced; 0: never.
    :param memory_mb: resident megabytes after which one is replaced; 0: never.
    """

    idle_timeout: float = 300.0
    most: int = 0
    uses: int = 0
    memory_mb: int = 0

    def is_worn(self, sandbox: Sandbox) -> bool:
        """Say whether a sandbox has done enough."""
        return self.idle_timeout <= 0 or (0 < self.uses <= sandbox.uses) or (0 < self.memory_mb <= sandbox.memory_mb)


class Pool:
    """The sandboxes of one version of a function.

    :param make: makes one that is not started yet.
    :param spawn: keeps a task alive until it ends, also when the pool is gone.
    :param make_ready: makes one that is to be started before it is needed.
    :param figures: hears of those.
    """

    def __init__(
        self,
        make: Callable[[], Sandbox],
        policy: PoolPolicy,
        spawn: Callable[[Any], object],
        make_ready: Callable[[], Sandbox] | None = None,
        figures: ReserveFigures = UNCOUNTED,
    ) -> None:
        self._make = make
        self._policy = policy
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._idle: deque[tuple[float, Sandbox]] = deque()  # used last on the right, with the time of that
        self._reserve = Reserve(make_ready or make, spawn, figures)
        self._settling: set[asyncio.Future[None]] = set()
        self._warming: asyncio.Future[None] | None = None  # done when the sandbox is that is started for the next call
        self._alive = 0  # beside those of the reserve
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._tends_at = _NEVER
        self._crashes = _Crashes()

    async def run(self, invocation: Invocation, log: InvocationLog) -> Outcome:
        """Run an invocation in an idle sandbox, or in a new one.

        :raises TooManyRequests: there are as many as there may be, and all are busy.
        """
        while True:
            sandbox = self._take()
            if sandbox is None:
                failed = self._crashes.remembered(invocation.request_id)
                if failed is not None:
                    return failed
                if (warming := self._warming) is not None:
                    self._warming = None  # for one call alone: others need more than this one
                    await asyncio.wait([warming])
                    continue
                sandbox = self._new()
            try:
                outcome = await sandbox.run(invocation, log)
            except BaseException as ended:
                if not self._reserve.give_back(sandbox, worn=True):
                    self._discard(sandbox)
                if isinstance(ended, InvocationNotBegun):
                    continue  # an idle one has just ended: each attempt leaves one less of them
                raise
            if sandbox.init_failure is not None or self._crashes.some:
                self._crashes.note(sandbox.init_failure)
            if sandbox.settling is None:
                self._give_back(sandbox)
            else:
                self._spawn(self._give_back_settled(sandbox, sandbox.settling))
            return outcome

    async def warm(self) -> None:
        """Start a sandbox for the next call, unless one is idle; what fails then, fails in a call again.

        A call that comes meanwhile waits for it: two that start side by side are both late.
        """
        most = self._policy.most
        full = bool(most) and self._alive + self._reserve.size >= most
        if self._closed or self._idle or full or self._policy.idle_timeout <= 0:
            return
        sandbox = self._new()
        self._warming = warming = self._loop.create_future()
        try:
            failed = await sandbox.start()
        except BaseException:
            self._discard(sandbox)
            raise
        else:
            if failed is None:
                self._give_back(sandbox)
            else:
                self._discard(sandbox)
        finally:
            if self._warming is warming:
                self._warming = None
            warming.set_result(None)

    def provision(self, count: int, changed: Callable[[Readiness], None]) -> None:
        """Keep so many sandboxes ready, which calls get before any other.

        :param changed: told how far that is, now and whenever it changes.
        """
        most = self._policy.most
        if most and count > most:
            self._reserve.resize(0, lambda _readiness: None)
            changed(Readiness(count, 0, f"A function may have {most} environments here (execution.max_environments)."))
        elif not self._closed:
            self._reserve.resize(count, changed)

    def close(self) -> None:
        """End the idle sandboxes now, and the others after what they run. Closing twice is fine."""
        self._closed = True
        self._reserve.close()
        if self._timer is not None:
            self._timer.cancel()
        for settling in self._settling:
            settling.cancel()
        while self._idle:
            self._discard(self._idle.popleft()[1])

    def _take(self) -> Sandbox | None:
        ready = self._reserve.take()
        if ready is not None:
            return ready
        while self._idle:
            _, sandbox = self._idle.pop()
            if sandbox.usable:
                return sandbox
            self._discard(sandbox)
        return None

    def _new(self) -> Sandbox:
        if self._policy.most and self._alive + self._reserve.size >= self._policy.most:
            raise TooManyRequests(TOO_MANY)
        sandbox = self._make()
        self._alive += 1
        return sandbox

    def _give_back(self, sandbox: Sandbox) -> None:
        worn = self._policy.is_worn(sandbox)
        now = time.monotonic()
        if self._reserve.give_back(sandbox, worn=worn):
            self._tend_by(now + _FREEZE_AFTER)
            return
        if worn or self._closed or not sandbox.usable:
            self._discard(sandbox)
            return
        self._idle.append((now, sandbox))
        if self._tends_at > now + _FREEZE_AFTER:
            self._tend_by(now + _FREEZE_AFTER)

    async def _give_back_settled(self, sandbox: Sandbox, settling: asyncio.Future[None]) -> None:
        """Take back a sandbox that has answered its caller, when it is free; at once where the pool is closed."""
        sandbox.settling = None
        self._settling.add(settling)
        if self._closed:
            settling.cancel()
        await asyncio.wait([settling])
        self._settling.discard(settling)
        self._give_back(sandbox)

    def _tend_by(self, due: float) -> None:
        """Tend soon. A look that is due much later, when others have been idle for too long, is not soon enough."""
        if self._tends_at > due:
            if self._timer is not None:
                self._timer.cancel()
            self._tends_at = due
            self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), _tend, weakref.ref(self))

    def tend(self) -> None:
        """Freeze what is idle, and end what has been so for too long."""
        self._timer, self._tends_at = None, _NEVER
        now, timeout = time.monotonic(), self._policy.idle_timeout
        while self._idle and now - self._idle[0][0] >= timeout:
            self._discard(self._idle.popleft()[1])
        waits = timeout
        self._reserve.freeze()
        for since, sandbox in self._idle:
            if sandbox.frozen:
                waits = min(waits, since + timeout - now)
            elif now - since >= _FREEZE_AFTER:
                sandbox.freeze()
                waits = min(waits, since + timeout - now)
            else:
                waits = min(waits, since + _FREEZE_AFTER - now)
        if self._idle:
            self._tend_by(now + max(waits, 0.01))

    def _discard(self, sandbox: Sandbox) -> None:
        self._alive -= 1
        self._spawn(sandbox.aclose())


def _tend(pool: weakref.ref[Pool]) -> None:
    alive = pool()
    if alive is not None:
        alive.tend()


class _Crashes:
    """Remembers that code fails when it is loaded, so that calls do not start it over and over."""

    def __init__(self) -> None:
        self._count = 0
        self._until = 0.0
        self._last: Callable[[str], Outcome] | None = None

    @property
    def some(self) -> bool:
        """Whether the code failed when it was loaded last."""
        return self._count > 0

    def note(self, failure: Callable[[str], Outcome] | None) -> None:
        """Note how the start of a sandbox went.

        :param failure: makes the outcome for a request id; None where it went well.
        """
        if failure is None:
            self._count = 0
            self._last = None
            return
        self._count += 1
        self._last = failure
        self._until = time.monotonic() + backoff(self._count)

    def remembered(self, request_id: str) -> Outcome | None:
        """Give the outcome of an invocation that must not start the code again yet."""
        if self._last is None or time.monotonic() >= self._until:
            return None
        return self._last(request_id)


class PooledEnvironment(Environment):
    """Runs the invocations of a function in the sandboxes of its pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @property
    def failure(self) -> str | None:
        """Nothing that a sandbox does makes a function Failed: the next one is a new process."""
        return None

    def run(self, invocation: Invocation, log: InvocationLog) -> Coroutine[Any, Any, Outcome]:
        """Run one invocation in a sandbox of its own for as long.

        :raises InvalidRequestContent: the payload is not JSON.
        :raises TooManyRequests: the function has as many sandboxes as it may have.
        """
        decode_event(invocation.payload)
        return self._pool.run(invocation, log)

    async def warm(self) -> None:
        """Start a sandbox for the next call."""
        await self._pool.warm()

    async def aclose(self) -> None:
        """End the sandboxes."""
        self._pool.close()
