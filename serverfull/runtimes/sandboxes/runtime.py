"""Runs deployed functions in sandboxes, each function in a pool of its own.

A function's pool lives as long as the handler object that the fetcher gives for it, so a change of code or
configuration begins with new instances, and one of limits or tags does not.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, finalize

from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.interfaces import Environment, Runtime
from serverfull.runtimes.deadlines import Deadlines
from serverfull.runtimes.pool import Pool, PooledEnvironment, PoolPolicy
from serverfull.runtimes.reserve import UNCOUNTED
from serverfull.runtimes.runtime_api.extensions import FunctionFacts
from serverfull.runtimes.sandboxes.sandbox import PROVISIONED, LaunchedSandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from serverfull.domain.functions import Function
    from serverfull.domain.readiness import Readiness, Unfit
    from serverfull.interfaces import FunctionIdentity, Sandbox
    from serverfull.runtimes.reserve import ReserveFigures
    from serverfull.runtimes.sandboxes.launching import Launchers

    MakeSandbox = Callable[[], Sandbox]

OWN_TAGS = "serverfull:"
"""What the tags begin with by which a function chooses how it is run."""


@dataclass(slots=True)
class _Kept:
    """The pool of a handler.

    :param made_of: what sandboxes depend on beside the handler.
    """

    made_of: tuple[object, ...]
    pool: Pool


class SandboxRuntime(Runtime):
    """Makes environments whose invocations run in sandboxes. Close it when nothing runs any more.

    :param launchers: starts what is in the sandboxes.
    :param policy: how long they live.
    :param figures: gives what hears of a function's provisioned sandboxes.
    """

    def __init__(
        self,
        launchers: Launchers,
        policy: PoolPolicy,
        logger: Any,
        figures: Callable[[str], ReserveFigures] = lambda _name: UNCOUNTED,
    ) -> None:
        self._launchers = launchers
        self._policy = policy
        self._logger = logger
        self._figures = figures
        self._pools: WeakKeyDictionary[DeployedHandler, _Kept] = WeakKeyDictionary()
        self._deadlines = Deadlines()
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def aclose(self) -> None:
        """End all sandboxes, and give back what they shared."""
        self._closed = True
        for kept in list(self._pools.values()):
            kept.pool.close()
        while self._ending:
            await asyncio.wait(self._ending)
        self._deadlines.close()
        await self._launchers.aclose()

    def get_ready(self) -> None:
        """Look what the machine can do, and say it in the log."""
        if not self._closed:
            self._spawn(self._launchers.open())

    def check(self, function: Function) -> None:
        """Nothing can be said before what runs it has been looked for, which takes too long here."""

    def environment(self, identity: FunctionIdentity) -> Environment:
        """Make the environment of a function, with the pool that its handler has already if it has one."""
        return PooledEnvironment(self._pool(identity))

    def _pool(self, identity: FunctionIdentity) -> Pool:
        handler = identity.function.handler
        assert isinstance(handler, DeployedHandler)
        made_of = (
            identity.timeout,
            identity.memory_size,
            identity.log_format,
            identity.log_group,
            identity.application_log_level,
            identity.system_log_level,
            tuple(sorted(identity.function.environment.items())),
            tuple(sorted(tag for tag in identity.function.tags.items() if tag[0].startswith(OWN_TAGS))),
        )
        kept = self._pools.get(handler)
        if kept is None or kept.made_of != made_of:
            if kept is not None:
                kept.pool.close()
            kept = self._pools[handler] = _Kept(made_of, self._new_pool(identity, handler))
        return kept.pool

    async def unfit(self, identity: FunctionIdentity) -> Unfit | None:
        """Say why nothing here runs a function."""
        handler = identity.function.handler
        assert isinstance(handler, DeployedHandler)
        return await self._launchers.unfit(identity, handler)

    def provision(self, identity: FunctionIdentity, count: int, changed: Callable[[Readiness], None]) -> None:
        """Keep so many of a function's sandboxes ready."""
        if not self._closed:
            self._pool(identity).provision(count, changed)

    def _new_pool(self, identity: FunctionIdentity, handler: DeployedHandler) -> Pool:
        # Nothing in here may hold the handler: the pool ends with it.
        account = "" if identity.partition is None else identity.partition.account
        facts = FunctionFacts(name=identity.name, version=identity.version, handler=handler.name, account=account)
        identity = replace(identity, function=replace(identity.function, handler=None))
        make, ready = self._sandboxes(identity, handler, facts)
        pool = Pool(make, self._policy, self._spawn, make_ready=ready, figures=self._figures(identity.name))
        finalize(handler, pool.close).atexit = False
        return pool

    def _sandboxes(
        self, identity: FunctionIdentity, handler: DeployedHandler, facts: FunctionFacts
    ) -> tuple[MakeSandbox, MakeSandbox]:
        """Give what makes the sandboxes of a function, and what makes those that are to be ready before calls come."""
        make = partial(LaunchedSandbox, identity, self._launchers.of(identity, handler), self._deadlines, facts)
        return make, partial(make, initialization=PROVISIONED)

    def _spawn(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._logged(ending))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _logged(self, ending: Coroutine[Any, Any, None]) -> None:
        try:
            await ending
        except Exception as error:  # a task's boundary
            self._logger.error("sandbox not started or closed", exc_info=error)
