"""What a sandbox does for its extensions: it tells them of invocations, waits for them, and gives them time to end.

A `LaunchedSandbox` has an `Extended` where its function has extensions, and nothing of this where it has none. An
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
from operator import methodcaller
from typing import TYPE_CHECKING

from serverfull.runtimes.runtime_api.extensions import ExtensionFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from serverfull.interfaces import InvocationLog
    from serverfull.runtimes.runtime_api.extensions import Extensions
    from serverfull.runtimes.runtime_api.messages import Work
    from serverfull.runtimes.sandboxes.launching import Instance

SHUTDOWN_EXTERNAL = 2.0
"""Seconds from the end's beginning until what is left is killed, where there are external extensions."""

SHUTDOWN_INTERNAL = 0.5
"""The same where there are none but internal ones."""

RUNTIME_SHARE = 0.3
"""How much of the first one the runtime may take, before its extensions are told."""

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


class Extended:
    """The extensions of a sandbox that has started, and what they are part in.

    :param on_end: called when the sandbox is of no use any more, with the reason: ``failure`` or ``timeout``.
    """

    def __init__(self, extensions: Extensions, instance: Instance, on_end: Callable[[str], object]) -> None:
        self._extensions = extensions
        self._instance = instance
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._running = False
        self._settling: asyncio.Task[None] | None = None

    def begin(self, work: Work) -> None:
        """Tell of an invocation that the runtime is about to get."""
        self._running = True
        self._extensions.invoke(work)

    def answered(self, deadline: float, overdue: Callable[[], object]) -> asyncio.Future[None] | None:
        """Say that the runtime is done with it; gives what is done when all extensions are, None: they are.

        :param deadline: of the invocation, in seconds of the monotonic clock.
        :param overdue: called where they are not by then.
        """
        self._running = False
        if not self._extensions.busy:
            return None
        self._settling = self._loop.create_task(self._settle(deadline, overdue))
        return self._settling

    async def _settle(self, deadline: float, overdue: Callable[[], object]) -> None:
        self._instance.watch()
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._extensions.settled()
        except TimeoutError:
            self._on_end("timeout")
            overdue()
        except ExtensionFailed:
            self._on_end("failure")
        finally:
            self._instance.unwatch()

    def failed(self, why: ExtensionFailed) -> None:
        """End what waits for the runtime: an extension has failed."""
        self._on_end("failure")
        idle = not self._running and (self._settling is None or self._settling.done())
        self._instance.api.end(why)
        if idle:  # nobody waits here who would end it
            self._instance.kill()

    async def shut_down(self, reason: str) -> None:
        """Give the runtime and the extensions their time to end, then kill what is left.

        :param reason: ``spindown``, ``timeout`` or ``failure``.
        """
        extensions, instance = self._extensions, self._instance
        external = extensions.external
        seconds = SHUTDOWN_EXTERNAL if external else SHUTDOWN_INTERNAL
        until = time.monotonic() + seconds
        deadline_ms = int((time.time() + seconds) * 1000)
        extensions.expect_ends()
        instance.thaw()
        await self._end_runtime(seconds * RUNTIME_SHARE if external else seconds)
        if external:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    await extensions.shut_down(reason, deadline_ms)
        instance.kill()
        instance.drain()

    async def _end_runtime(self, seconds: float) -> None:
        instance = self._instance
        if not instance.alive:
            return
        ended = self._loop.create_future()
        instance.when_ended(lambda: None if ended.done() else ended.set_result(None))
        instance.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await ended
        instance.send_signal(signal.SIGKILL)


def tell_states(extensions: Extensions, tell: Callable[[Callable[[InvocationLog], object]], object]) -> None:
    """Tell the log how the initialisation of each extension went.

    :param tell: calls what it gets with the log, as soon as there is one.
    """
    for extension in extensions.all:
        tell(methodcaller("extension", extension.name, extension.state, extension.events, extension.error_type))
