"""What a sandbox does for its extensions: it tells them of invocations, waits for them, and gives them time to end.

A `LaunchedSandbox` has an `Extended` while its code is loaded, and keeps it where there are extensions then. An
invocation is answered when the runtime has answered; the sandbox is free again when all extensions that were told of it
have asked for their next event, within the time of the invocation. At its end the runtime is told by SIGTERM, then the
extensions by SHUTDOWN, and what is left after two seconds is killed; half a second where all are threads of the
runtime.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-shutdown
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Protocol

from serverfull.runtimes.runtime_api.extensions import ExtensionFailed, Extensions
from serverfull.runtimes.telemetry.hub import Telemetry
from serverfull.runtimes.telemetry.reports import Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from serverfull.domain.invocations import Outcome
    from serverfull.interfaces import FunctionIdentity, InvocationLog
    from serverfull.runtimes.runtime_api.extensions import FunctionFacts
    from serverfull.runtimes.runtime_api.messages import Work
    from serverfull.runtimes.sandboxes.launching import Instance

SHUTDOWN_EXTERNAL = 2.0
"""Seconds from the end's beginning until what is left is killed, where there are external extensions."""

SHUTDOWN_INTERNAL = 0.5
"""The same where there are none but internal ones."""

RUNTIME_SHARE = 0.3
"""How much of the first one the runtime may take, before its extensions are told."""

FLUSHING = 0.5
"""Seconds in which listeners can take the telemetry that is left, before the extensions are told of the end."""

LONGEST_LINE = 65_536
"""Characters without a newline that are held back before they are passed on as they are."""


class Lines:
    """Holds back the beginning of a line until all of it is there: two processes write to one log.

    :param write: gets whole lines.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._partial = ""

    def feed(self, text: str) -> None:
        """Take text as it was written."""
        lines, newline, rest = (self._partial + text).rpartition("\n")
        if not newline and len(rest) > LONGEST_LINE:
            lines, rest = rest, ""
        self._partial = rest
        if lines or newline:
            self._write(lines + "\n")

    def finish(self) -> None:
        """Take the last line for whole."""
        if self._partial:
            text, self._partial = self._partial + "\n", ""
            self._write(text)


class Owner(Protocol):
    """The sandbox."""

    def write(self, text: str) -> None:
        """Put something into the log of the call that runs now, or ran last."""

    def note(self, tell: Callable[[InvocationLog], object]) -> None:
        """Have that log told something, as soon as there is one."""

    def end_of_use(self, reason: str) -> None:
        """Hear that nothing can run in it any more: for a ``failure`` or a ``timeout``."""


class Extended:
    """The extensions of a sandbox, and what they are told.

    :param facts: of the function, for its extensions.
    :param until: seconds of the monotonic clock until which external ones must have registered.
    :ivar extensions: who they are.
    :ivar telemetry: what they have subscribed to.
    """

    def __init__(self, identity: FunctionIdentity, facts: FunctionFacts, until: float, owner: Owner) -> None:
        self._identity = identity
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._lines: dict[str, Lines] = {}
        self._instance: Instance | None = None
        self._initialised = False
        self._restored: tuple[float, float] | None = None  # how long that took, for the invocation that it was for
        self._report: Report | None = None  # of the invocation that the runtime has
        self._settling: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self.extensions = Extensions(facts, self.write, until)
        self.telemetry = Telemetry(json_log=identity.log_format == "JSON", subscribed=self._subscribed)
        self.extensions.subscriptions = self.telemetry

    @property
    def present(self) -> bool:
        """Whether there are any extensions."""
        return bool(self.extensions.all)

    # --------------------------------------------------------------------------------------------------- initialisation

    def started(self, instance: Instance) -> None:
        """Take what the extensions are part of."""
        self._instance = instance
        self.extensions.on_failure = self._failed
        self.telemetry.open(instance.connect)

    def initialised(self) -> None:
        """Say how it went for each extension: none can come after that, and none can subscribe."""
        self._initialised = True
        self._finish_lines()
        for extension in self.extensions.all:
            name, state, events, error = extension.name, extension.state, extension.events, extension.error_type
            self._owner.note(methodcaller("extension", name, state, events, error))
            record = {"name": name, "state": state, "events": list(events)}
            self.telemetry.platform("extension", {**record, "errorType": error} if error else record)
        self.telemetry.close_subscriptions()

    def restored(self, seconds: float, billed: float) -> None:
        """Have the next invocation's report say how long it took to restore the environment for it.

        :param billed: seconds of these that were the function's own.
        """
        self._restored = seconds, billed

    def _subscribed(self, api: str, name: str, types: tuple[str, ...]) -> None:
        self._owner.note(methodcaller("subscribed", api, name, types))

    # ---------------------------------------------------------------------------------------------------------- the log

    def write(self, extension: str, text: str) -> None:
        """Take what has been written.

        :param extension: by which one; empty: by the runtime.
        """
        lines = self._lines.get(extension)
        if lines is None:
            stream = "extension" if extension else "function"
            lines = self._lines[extension] = Lines(partial(self._pass_on, stream))
        lines.feed(text)

    def _pass_on(self, stream: str, text: str) -> None:
        self._owner.write(text)
        self.telemetry.lines(stream, text)

    def _finish_lines(self) -> None:
        for lines in self._lines.values():
            lines.finish()

    # ------------------------------------------------------------------------------------------------------ invocations

    def begin(self, work: Work) -> None:
        """Tell of an invocation that the runtime is about to get."""
        self.telemetry.resume()
        self._report = report = Report(self._identity, work, self._restored)
        self._restored = None
        self.telemetry.platform("start", report.start)
        self.extensions.invoke(work)

    def done(self, outcome: Outcome, deadline: float, log: InvocationLog) -> asyncio.Future[None] | None:
        """Say how it has ended; gives what is done when all extensions are, None: they are, or their end has come.

        :param deadline: of the invocation, in seconds of the monotonic clock.
        :param log: of the invocation.
        """
        report, self._report = self._report, None
        assert report is not None
        if "" in self._lines:
            self._lines[""].finish()
        fault = report.take(outcome)
        if fault:
            self.telemetry.fault(fault)
        self.telemetry.platform("runtimeDone", report.runtime_done)
        if fault or not self.extensions.busy:
            self.telemetry.platform("report", report.finish())
            return None
        self._settling = self._loop.create_task(self._settle(deadline, log, report))
        return self._settling

    async def _settle(self, deadline: float, log: InvocationLog, report: Report) -> None:
        assert self._instance is not None
        status = ""
        self._instance.watch()
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self.extensions.settled()
        except TimeoutError:
            self._owner.end_of_use("timeout")
            log.timed_out()
            status = "timeout"
        except ExtensionFailed:
            self._owner.end_of_use("failure")
            status = "error"
        finally:  # also where nobody waits any more: the end is told in any case
            self._instance.unwatch()
            self.telemetry.platform("report", report.finish(status, waited=True))

    def _failed(self, why: ExtensionFailed) -> None:
        """End what waits for the runtime: an extension has failed."""
        assert self._instance is not None
        self._owner.end_of_use("failure")
        waited_for = self._report is not None or (self._settling is not None and not self._settling.done())
        self._instance.api.end(why)
        if self._initialised and not waited_for:  # nobody waits here who would end it
            self._ending = self._loop.create_task(self._end("failure"))

    # -------------------------------------------------------------------------------------------------------------- end

    async def end(self, reason: str) -> None:
        """Give the runtime and the extensions their time to end, then kill what is left.

        :param reason: ``spindown``, ``timeout`` or ``failure``; empty: nobody has any time.
        """
        if self._ending is None:
            await self._end(reason)
        else:  # one has failed while nothing was to be done
            await asyncio.wait([self._ending])

    async def _end(self, reason: str) -> None:
        instance = self._instance
        if instance is not None and reason and self.present:
            self.telemetry.resume()
            await self._shut_down(instance, reason)
            instance.kill()
            instance.drain()
            self._finish_lines()
        await self.telemetry.aclose()

    async def part(self) -> None:
        """Give the external extensions their time to end, and leave the runtime as it is."""
        instance = self._instance
        assert instance is not None
        if self.extensions.external:
            await self._end_external(instance, "spindown", time.monotonic() + SHUTDOWN_EXTERNAL)
        await self.telemetry.aclose()

    async def _shut_down(self, instance: Instance, reason: str) -> None:
        external = self.extensions.external
        seconds = SHUTDOWN_EXTERNAL if external else SHUTDOWN_INTERNAL
        until = time.monotonic() + seconds
        self.extensions.expect_ends()
        instance.thaw()
        await self._end_runtime(instance, seconds * RUNTIME_SHARE if external else seconds)
        if external:
            await self._end_external(instance, reason, until)

    async def _end_external(self, instance: Instance, reason: str, until: float) -> None:
        """Tell external extensions of the end, and wait for theirs.

        :param until: seconds of the monotonic clock at which they will be killed.
        """
        deadline_ms = int((time.time() + until - time.monotonic()) * 1000)
        self.extensions.expect_ends()
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSHING):
                instance.drain()
                await self.telemetry.flush()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await self.extensions.shut_down(reason, deadline_ms)

    async def _end_runtime(self, instance: Instance, seconds: float) -> None:
        if not instance.alive:
            return
        ended = self._loop.create_future()
        instance.when_ended(lambda: None if ended.done() else ended.set_result(None))
        instance.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await ended
        instance.send_signal(signal.SIGKILL)
