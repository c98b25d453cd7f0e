"""SnapStart: environments of a version that begin as copies of one that has loaded its code.

A `RestoredSandbox` differs from others in how it begins. The `RestoringRuntime` has the snapshots of the versions that
want it, each for as long as the handler object that the fetcher gives for the version.

Everything here runs on the host's loop.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/snapstart.html
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary, finalize

from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.json_functions import loads
from serverfull.domain.readiness import NOT_WITH_SNAP_START, Fitness, Readiness, Unfit
from serverfull.errors import FunctionNotReady, SnapStartFailed, SnapStartTimeout
from serverfull.runtimes.runtime_api.extensions import ExtensionFailed
from serverfull.runtimes.sandboxes.endings import error_type_of_end
from serverfull.runtimes.sandboxes.extended import Extended
from serverfull.runtimes.sandboxes.launching import Gone
from serverfull.runtimes.sandboxes.runtime import SandboxRuntime
from serverfull.runtimes.sandboxes.sandbox import LaunchedSandbox
from serverfull.runtimes.telemetry.reports import beginning

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from serverfull.domain.invocations import Outcome
    from serverfull.interfaces import FunctionIdentity, InvocationLog
    from serverfull.runtimes.deadlines import Deadlines
    from serverfull.runtimes.pool import PoolPolicy
    from serverfull.runtimes.reserve import ReserveFigures
    from serverfull.runtimes.runtime_api.api import Answer
    from serverfull.runtimes.runtime_api.extensions import Extensions, FunctionFacts
    from serverfull.runtimes.sandboxes.launching import Instance, Launchers
    from serverfull.runtimes.sandboxes.runtime import MakeSandbox

SNAP_START = "snap-start"
"""How such an environment is initialised; what `AWS_LAMBDA_INITIALIZATION_TYPE` says."""

RESTORE_TIMEOUT = 10.0
"""Seconds that a copy may take to begin, with its hooks.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
"""


class SnapshotFailed(Exception):
    """The code of a version cannot be loaded for a snapshot.

    :param reason: what is wrong, for the function's owner.
    :param code: a value of the model's ``StateReasonCode``.
    """

    def __init__(self, reason: str, code: str = "FunctionError.RuntimeInitError") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Snapshot(Protocol):
    """What a version's environments are made of: a `Launcher`.

    :ivar runtime: of the version, such as ``python3.12``.
    """

    runtime: str

    @property
    def copies(self) -> bool:
        """Whether `launch` gives instances that have loaded the code already. Known once there is a snapshot."""

    async def take(self) -> None:
        """Make the snapshot, unless it is there, or there can be none.

        :raises SnapshotFailed: the code cannot be loaded.
        :raises FunctionNotReady: nothing here runs the function.
        """

    async def prepare(self) -> None:
        """As `Launcher.prepare`; has the snapshot made once more where it is gone.

        :raises SnapStartRegenerationFailure: the code cannot be loaded.
        """

    async def launch(
        self, variables: Mapping[str, str], write: Callable[[str], object], extensions: Extensions
    ) -> Instance:
        """As `Launcher.launch`."""

    def close(self) -> None:
        """Give back what it holds. Closing twice is fine."""


class Snapshots(Protocol):
    """Makes the snapshots of versions."""

    def of(
        self,
        identity: FunctionIdentity,
        handler: DeployedHandler,
        facts: FunctionFacts,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> Snapshot:
        """Make the snapshot of a version, which takes it when it is needed. It must not keep the handler alive.

        :param facts: what its extensions are told.
        :param spawn: keeps a task alive until it ends.
        """


class RestoredSandbox(LaunchedSandbox):
    """An instance that begins as the copy of one that has loaded the code of a version.

    :param snapshot: makes it.
    """

    def __init__(
        self, identity: FunctionIdentity, snapshot: Snapshot, deadlines: Deadlines, facts: FunctionFacts
    ) -> None:
        super().__init__(identity, snapshot, deadlines, facts, SNAP_START)
        self._snapshot = snapshot

    async def _begin(self, request_id: str, until: float) -> Outcome | None:
        """Have it copied; where there can be no snapshot, load the code.

        :raises SnapStartTimeout: the copy or its hooks take too long.
        :raises SnapStartFailed: they fail.
        """
        began = time.monotonic()
        await self._snapshot.prepare()
        if not self._snapshot.copies:
            return await super()._begin(request_id, until + time.monotonic() - began)
        extended = self._extended = Extended(self._identity, self._facts, time.monotonic() + RESTORE_TIMEOUT, self)
        restoring = _Restoring(self._identity, self._log, self._snapshot.runtime, extended)
        try:
            async with asyncio.timeout(RESTORE_TIMEOUT):
                running = await self._snapshot.launch(self._variables(), self._write, extended.extensions)
                self._running = running
                restoring.loaded()
                extended.started(running)
                if self._closed:  # while it was started
                    await self.aclose()
                    return None
                running.watch()
                answer = await running.api.initialised()
                if answer is None:
                    await extended.extensions.ready()
        except TimeoutError:
            self._drain()
            restoring.end("timeout")
            raise SnapStartTimeout from None
        except ExtensionFailed as failed:
            self._drain()
            restoring.end("error", failed.error_type)
            raise SnapStartFailed(f"{failed.error_type}: {failed.why}") from None
        except Gone as gone:
            self._drain()
            restoring.end("error", error_type_of_end(gone))
            raise SnapStartFailed(f"Runtime exited with error: {gone.why}") from None
        finally:
            if self._running is not None:
                self._running.unwatch()
        self._drain()
        if answer is not None:
            restoring.end("error", answer.error_type)
            raise SnapStartFailed(_said(answer))
        restoring.end("success")
        if not extended.present:  # nothing of it is needed for any call
            self._extended = None
        self._ready = True
        return None

    def _drain(self) -> None:
        """Take all that it has written until now."""
        if self._running is not None:
            self._running.drain()
        if self._extended is not None:
            self._extended.initialised()

    def _variables(self) -> Mapping[str, str]:
        """Let the code know how it is started. As on AWS, it is not told where its log goes."""
        return {"AWS_LAMBDA_INITIALIZATION_TYPE": SNAP_START}


class _Restoring:
    """How long it took, for telemetry and for the log of the invocation that it was for."""

    def __init__(self, identity: FunctionIdentity, log: InvocationLog | None, runtime: str, extended: Extended) -> None:
        self._log = log
        self._extended = extended
        self._began = self._loaded = time.monotonic()
        extended.telemetry.platform("restoreStart", beginning(identity))
        if log is not None:
            log.restoring(time.time(), runtime)

    def loaded(self) -> None:
        """What follows is the function's own time."""
        self._loaded = time.monotonic()

    def end(self, status: str, error_type: str = "") -> None:
        now = time.monotonic()
        seconds, billed = now - self._began, now - self._loaded
        record = {"status": status, "errorType": error_type} if error_type else {"status": status}
        self._extended.telemetry.platform("restoreRuntimeDone", record)
        metrics = {"durationMs": round(seconds * 1000.0, 3)}
        self._extended.telemetry.platform("restoreReport", {**record, "metrics": metrics})
        self._extended.restored(seconds, billed)
        if self._log is not None:
            self._log.restored(seconds, billed, status, error_type)


class RestoringRuntime(SandboxRuntime):
    """A runtime of sandboxes that has snapshots of versions with SnapStart.

    :param launchers: starts what is in the sandboxes.
    :param snapshots: makes what those of versions with SnapStart are copies of.
    """

    def __init__(
        self,
        launchers: Launchers,
        policy: PoolPolicy,
        logger: Any,
        figures: Callable[[str], ReserveFigures],
        snapshots: Snapshots,
    ) -> None:
        super().__init__(launchers, policy, logger, figures)
        self._make_snapshots = snapshots
        self._snapshots: WeakKeyDictionary[DeployedHandler, Snapshot] = WeakKeyDictionary()

    async def aclose(self) -> None:
        """End all sandboxes and snapshots, and give back what they shared."""
        for snapshot in list(self._snapshots.values()):
            snapshot.close()
        await super().aclose()

    async def snapshot(self, identity: FunctionIdentity) -> Fitness:
        """Take the snapshot of a version before it is invoked."""
        self._pool(identity)
        handler = identity.function.handler
        assert isinstance(handler, DeployedHandler)
        snapshot = self._snapshots[handler]
        try:
            await snapshot.take()
        except SnapshotFailed as failed:
            return Fitness(Unfit(failed.reason, failed.code))
        except FunctionNotReady as refusal:
            return Fitness(Unfit(refusal.why))
        return Fitness(restores=snapshot.copies)

    def provision(self, identity: FunctionIdentity, count: int, changed: Callable[[Readiness], None]) -> None:
        """Keep so many of a function's sandboxes ready; none of a version with SnapStart, as on AWS."""
        handler = identity.function.handler
        if count and isinstance(handler, DeployedHandler) and handler.snap_start:
            changed(Readiness(count, 0, NOT_WITH_SNAP_START))
        else:
            super().provision(identity, count, changed)

    def _sandboxes(
        self, identity: FunctionIdentity, handler: DeployedHandler, facts: FunctionFacts
    ) -> tuple[MakeSandbox, MakeSandbox]:
        if not handler.snap_start:
            return super()._sandboxes(identity, handler, facts)
        if handler in self._snapshots:
            self._snapshots[handler].close()
        snapshot = self._snapshots[handler] = self._make_snapshots.of(identity, handler, facts, self._spawn)
        finalize(handler, snapshot.close).atexit = False
        make = partial(RestoredSandbox, identity, snapshot, self._deadlines, facts)
        return make, make


def _said(answer: Answer) -> str:
    with suppress(ValueError, TypeError, KeyError):
        document = loads(answer.payload)
        return f"{document['errorType']}: {document['errorMessage']}"
    return answer.error_type
