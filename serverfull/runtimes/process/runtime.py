"""Runs deployed functions in processes of their own, each in a pool of sandboxes.

A function's pool lives as long as the handler object that the fetcher gives for it, so a change of code or
configuration begins with new processes, and one of limits or tags does not.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, finalize

from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.interfaces import Environment, Runtime
from serverfull.runtimes.pool import Pool, PooledEnvironment, PoolPolicy
from serverfull.runtimes.process.machine import Machine
from serverfull.runtimes.process.programs import CLIENT_TAG
from serverfull.runtimes.process.sandbox import PROVISIONED, ProcessSandbox
from serverfull.runtimes.reserve import UNCOUNTED

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from serverfull.domain.functions import Function
    from serverfull.domain.readiness import Readiness, Unfit
    from serverfull.interfaces import FunctionIdentity
    from serverfull.runtimes.process.recipes import Recipes
    from serverfull.runtimes.reserve import ReserveFigures


@dataclass(slots=True)
class _Kept:
    """The pool of a handler.

    :param made_of: what sandboxes depend on beside the handler.
    """

    made_of: tuple[object, ...]
    pool: Pool


class ProcessRuntime(Runtime):
    """Makes environments whose invocations run in processes. Close it when nothing runs any more.

    :param recipes: says what a function's sandboxes are made of.
    :param machine: what the sandboxes share.
    :param policy: how long they live.
    :param figures: gives what hears of a function's provisioned sandboxes.
    """

    def __init__(
        self,
        recipes: Recipes,
        machine: Machine,
        policy: PoolPolicy,
        logger: Any,
        figures: Callable[[str], ReserveFigures] = lambda _name: UNCOUNTED,
    ) -> None:
        self._recipes = recipes
        self._machine = machine
        self._policy = policy
        self._logger = logger
        self._figures = figures
        self._pools: WeakKeyDictionary[DeployedHandler, _Kept] = WeakKeyDictionary()
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def aclose(self) -> None:
        """End all sandboxes, and give back what they shared."""
        self._closed = True
        for kept in list(self._pools.values()):
            kept.pool.close()
        while self._ending:
            await asyncio.wait(self._ending)
        await self._machine.spares.aclose()
        await self._recipes.aclose()
        await self._machine.aclose()

    def get_ready(self) -> None:
        """Look what the machine can do, and say it in the log."""
        if not self._closed:
            self._spawn(self._machine.open())

    def check(self, function: Function) -> None:
        """Nothing can be said before the interpreter has been looked for, which takes too long here."""

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
            identity.function.tags.get(CLIENT_TAG),
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
        return await self._recipes.unfit(identity, handler)

    def provision(self, identity: FunctionIdentity, count: int, changed: Callable[[Readiness], None]) -> None:
        """Keep so many of a function's sandboxes ready."""
        if not self._closed:
            self._pool(identity).provision(count, changed)

    def _new_pool(self, identity: FunctionIdentity, handler: DeployedHandler) -> Pool:
        # Nothing in here may hold the handler: the pool ends with it.
        identity = replace(identity, function=replace(identity.function, handler=None))
        find = self._recipes.of(identity, handler)
        make = partial(ProcessSandbox, identity, find, self._machine)
        ready = partial(make, initialization=PROVISIONED)
        pool = Pool(make, self._policy, self._spawn, make_ready=ready, figures=self._figures(identity.name))
        finalize(handler, pool.close).atexit = False
        return pool

    def _spawn(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._logged(ending))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _logged(self, ending: Coroutine[Any, Any, None]) -> None:
        try:
            await ending
        except Exception as error:  # a task's boundary
            self._logger.error("sandbox not started or closed", exc_info=error)
