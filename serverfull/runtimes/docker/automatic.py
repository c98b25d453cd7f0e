"""Decides whether a function runs in a process or in a container: in a container where its interpreter is not here.

It stands where the operator has mapped images (``docker.images``) and leaves the choice to the host. Only functions of
a mapped runtime have to be decided on, with their first call at the latest; for all others it costs nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.interfaces import Environment, Runtime
from serverfull.runtimes.process.interpreters import Missing

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Coroutine

    from serverfull.domain.functions import Function
    from serverfull.domain.invocations import Invocation, Outcome
    from serverfull.domain.readiness import Fitness, Readiness, Unfit
    from serverfull.interfaces import FunctionIdentity, InvocationLog
    from serverfull.runtimes.process.interpreters import Interpreters


class AutomaticRuntime(Runtime):
    """Gives each function to processes or to containers.

    :param of: gives the runtime of a mode, ``process`` or ``docker``.
    :param mapped: the runtimes that there is an image for.
    :param interpreters: looks for what runs a runtime here; what is not quite that does not count.
    """

    def __init__(self, of: Callable[[str], Runtime], mapped: Container[str], interpreters: Interpreters) -> None:
        self._of = of
        self._mapped = mapped
        self._interpreters = interpreters
        self._tasks: set[asyncio.Task[None]] = set()

    def check(self, function: Function) -> None:
        """Nothing can be said before an interpreter has been looked for."""

    def get_ready(self) -> None:
        """Let processes get ready."""
        self._of("process").get_ready()

    def environment(self, identity: FunctionIdentity) -> Environment:
        """Make the environment of a function."""
        if not self._is_open(identity):
            return self._of("process").environment(identity)
        return _Undecided(self, identity)

    async def unfit(self, identity: FunctionIdentity) -> Unfit | None:
        """Say why nothing here runs a function."""
        return await (await self.choose(identity)).unfit(identity)

    async def snapshot(self, identity: FunctionIdentity) -> Fitness:
        """Take the snapshot of a version where it runs."""
        return await (await self.choose(identity)).snapshot(identity)

    def provision(self, identity: FunctionIdentity, count: int, changed: Callable[[Readiness], None]) -> None:
        """Keep environments of a function ready."""
        if not self._is_open(identity):
            self._of("process").provision(identity, count, changed)
            return
        self._spawn(self._provision(identity, count, changed))

    async def choose(self, identity: FunctionIdentity) -> Runtime:
        """Decide what runs a function; an interpreter is looked for on a thread."""
        if not self._is_open(identity):
            return self._of("process")
        found = await asyncio.to_thread(self._interpreters.find, _runtime(identity))
        return self._of("docker" if isinstance(found, Missing) else "process")

    async def aclose(self) -> None:
        """Decide no more. Closing twice is fine."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _provision(self, identity: FunctionIdentity, count: int, changed: Callable[[Readiness], None]) -> None:
        (await self.choose(identity)).provision(identity, count, changed)

    def _is_open(self, identity: FunctionIdentity) -> bool:
        return _runtime(identity) in self._mapped

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Undecided(Environment):
    """The environment of a function until its first call, and what stands before it from then on."""

    def __init__(self, runtime: AutomaticRuntime, identity: FunctionIdentity) -> None:
        self._runtime = runtime
        self._identity = identity
        self._inner: Environment | None = None
        self._closed = False

    @property
    def failure(self) -> str | None:
        """Nothing that a sandbox does makes a function Failed."""
        return None if self._inner is None else self._inner.failure

    async def run(self, invocation: Invocation, log: InvocationLog) -> Outcome:
        """Run one invocation where it was decided that the function runs."""
        return await (self._inner or await self._decided()).run(invocation, log)

    async def warm(self) -> None:
        """Have that begin with what the next call would wait for."""
        await (self._inner or await self._decided()).warm()

    async def _decided(self) -> Environment:
        chosen = await self._runtime.choose(self._identity)
        self._inner = chosen.environment(self._identity)  # of the same sandboxes, whoever asks first
        if self._closed:
            await self._inner.aclose()
        return self._inner

    async def aclose(self) -> None:
        """End the sandboxes."""
        self._closed = True
        if self._inner is not None:
            await self._inner.aclose()


def _runtime(identity: FunctionIdentity) -> str:
    handler = identity.function.handler
    assert isinstance(handler, DeployedHandler)
    return handler.runtime
