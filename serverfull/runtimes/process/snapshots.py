"""The snapshot of a version: a process that has loaded its code, and that its environments are copies of.

It is made when the version is published, and ends with it; where it has not been needed for long, or its zygote has
died, the next environment has another one made first. A version whose process has what a fork does not copy, such as
threads, has none: its environments load the code themselves, with the same hooks.

Everything here runs on the host's loop.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/snapstart.html
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from serverfull.errors import InternalFailure, SnapStartRegenerationFailure
from serverfull.runtimes.process.taking import take
from serverfull.runtimes.reserve import backoff
from serverfull.runtimes.sandboxes.restoring import SnapshotFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from serverfull.domain.deployed_handler import DeployedHandler
    from serverfull.interfaces import FunctionIdentity, InvocationLog
    from serverfull.runtimes.process.launcher import ProcessLauncher, ProcessLaunchers
    from serverfull.runtimes.process.processes import Process
    from serverfull.runtimes.runtime_api.extensions import Extensions, FunctionFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPolicy:
    """How the snapshots of a host are kept.

    :param idle_timeout: seconds after the last copy until a snapshot's process ends; 0: never.
    :param new_log: gives what takes the log of loading the code of a version.
    :param logger: hears why a version has no snapshot.
    :param found: hears, whenever that has been found out, whether the environments of a version are copies.
    """

    idle_timeout: float
    new_log: Callable[[FunctionIdentity], InvocationLog]
    logger: Any
    found: Callable[[FunctionIdentity, bool], object]


class ProcessSnapshots:
    """Makes the snapshots of versions that run in processes.

    :param launchers: starts the processes.
    """

    def __init__(self, launchers: ProcessLaunchers, policy: SnapshotPolicy) -> None:
        self._launchers = launchers
        self._policy = policy

    def of(
        self,
        identity: FunctionIdentity,
        handler: DeployedHandler,
        facts: FunctionFacts,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> FunctionSnapshot:
        """Make the snapshot of a version, which takes it when it is needed. It does not keep the handler alive."""
        launcher = self._launchers.of(identity, handler)
        return FunctionSnapshot(launcher, identity, handler.runtime, facts, self._policy, spawn)


class FunctionSnapshot:
    """The snapshot of one version: a `Launcher` of copies.

    :param launcher: starts the processes of the version.
    :param runtime: of the version, such as ``python3.12``.
    :param facts: what its extensions are told.
    :param spawn: keeps a task alive until it ends.
    """

    def __init__(
        self,
        launcher: ProcessLauncher,
        identity: FunctionIdentity,
        runtime: str,
        facts: FunctionFacts,
        policy: SnapshotPolicy,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.runtime = runtime
        self._launcher = launcher
        self._identity = identity
        self._facts = facts
        self._policy = policy
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._taking = asyncio.Lock()
        self._process: Process | None = None
        self._hindrance = ""
        self._failures = 0
        self._failed: tuple[float, SnapshotFailed] | None = None
        self._copying = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def copies(self) -> bool:
        """Whether `launch` gives processes that have loaded the code already."""
        return not self._hindrance

    async def take(self) -> None:
        """Make the snapshot, unless it is there, or there can be none.

        :raises SnapshotFailed: the code cannot be loaded.
        :raises FunctionNotReady: nothing here runs the function.
        :raises InternalFailure: the process cannot be started.
        """
        async with self._taking:
            if self._closed:
                raise InternalFailure
            if self._failed is not None and time.monotonic() < self._failed[0]:
                raise SnapshotFailed(self._failed[1].reason, self._failed[1].code)
            if self._hindrance or (self._process is not None and self._process.alive):
                return
            await self._launcher.prepare()
            self._hindrance = await self._launcher.obstacle()
            if self._hindrance:
                log = self._policy.new_log(self._identity)
                log.write(f"No snapshot is made of this version: in the way is {self._hindrance}.\n")
            else:
                await self._make()
            if self._hindrance:
                self._policy.logger.warning(
                    "version is not restored from a snapshot",
                    function=self._identity.name,
                    version=self._identity.version,
                    why=self._hindrance,
                )
            self._policy.found(self._identity, self.copies)
        self._rest()

    async def prepare(self) -> None:
        """Have the snapshot there for `launch`.

        :raises SnapStartRegenerationFailure: it had to be made once more, and the code cannot be loaded.
        """
        try:
            await self.take()
        except SnapshotFailed as failed:
            raise SnapStartRegenerationFailure(failed.reason) from None

    async def launch(
        self, variables: Mapping[str, str], write: Callable[[str], object], extensions: Extensions
    ) -> Process:
        """Start a process, as a copy where it can be one.

        :raises InternalFailure: it cannot be started.
        """
        if self._hindrance:
            return await self._launcher.launch(variables, write, extensions)
        if self._process is None or not self._process.alive:
            raise InternalFailure
        self._copying += 1
        try:
            return await self._launcher.copy(self._process, variables, write, extensions)
        finally:
            self._copying -= 1
            self._rest()

    def close(self) -> None:
        """End the process, and make no other. Closing twice is fine."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        process, self._process = self._process, None
        if process is not None:
            self._spawn(process.aclose())

    def _rest(self) -> None:
        """End the process when nobody has wanted a copy of it for long enough."""
        if self._timer is not None:
            self._timer.cancel()
        if self._process is not None and self._policy.idle_timeout > 0:
            self._timer = self._loop.call_later(self._policy.idle_timeout, self._rested)

    def _rested(self) -> None:
        if self._copying:
            self._rest()
        else:
            self._end()

    async def _make(self) -> None:
        try:
            log = self._policy.new_log(self._identity)
            process = await take(self._launcher, self._identity, self._facts, log, self.runtime)
        except SnapshotFailed as error:  # it is not tried again for each call
            self._failures += 1
            self._failed = time.monotonic() + backoff(self._failures), error
            raise
        self._failures, self._failed = 0, None
        self._hindrance = process.api.hindrance
        if self._hindrance or self._closed:
            await process.aclose()
        else:
            self._process = process
            process.when_ended(partial(self._lost, process))

    def _lost(self, process: Process) -> None:
        """Give back at once what a process held that has ended by itself."""
        if self._process is process:
            self._end()
