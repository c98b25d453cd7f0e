"""Takes the snapshot of a version: starts a process that loads the code, and says how that went.

External extensions run beside it while it does, as in any environment, so that the code finds what they offer. They are
told of the end then, and are in no snapshot: a fork copies one process. Each environment starts them anew.

Everything here runs on the host's loop.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/snapstart.html
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

from serverfull.domain.json_functions import loads
from serverfull.runtimes.runtime_api.extensions import TOO_MANY, ExtensionFailed
from serverfull.runtimes.sandboxes.extended import Extended
from serverfull.runtimes.sandboxes.launching import Gone
from serverfull.runtimes.sandboxes.loading import Loading
from serverfull.runtimes.sandboxes.restoring import SNAP_START, SnapshotFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from serverfull.interfaces import FunctionIdentity, InvocationLog
    from serverfull.runtimes.process.launcher import ProcessLauncher
    from serverfull.runtimes.process.processes import Process
    from serverfull.runtimes.runtime_api.api import Answer
    from serverfull.runtimes.runtime_api.extensions import FunctionFacts

LEAST_PATIENCE = 130.0
"""Seconds that code may take to load for a snapshot, or the function's timeout where that is longer; hooks included.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
"""


async def take(
    launcher: ProcessLauncher, identity: FunctionIdentity, facts: FunctionFacts, log: InvocationLog, runtime: str
) -> Process:
    """Start a process that others can be made of, and wait until it has loaded the code.

    :param facts: what its extensions are told.
    :param log: of loading the code: nothing that comes later is in it.
    :param runtime: of the version, such as ``python3.12``.
    :returns: the process; its `hindrance` says where no other can be made of it.
    :raises SnapshotFailed: the code cannot be loaded.
    :raises InternalFailure: the process cannot be started.
    """
    return await _Taking(launcher, identity, facts, log).take(runtime)


class _Taking:
    """One attempt; to the extensions, what they are part of."""

    def __init__(
        self, launcher: ProcessLauncher, identity: FunctionIdentity, facts: FunctionFacts, log: InvocationLog
    ) -> None:
        self._launcher = launcher
        self._log: InvocationLog | None = log
        self._patience = max(LEAST_PATIENCE, identity.timeout)
        self._until = time.monotonic() + self._patience
        self._extended = Extended(identity, facts, self._until, self)
        self._loading = Loading(identity, SNAP_START)
        self._process: Process | None = None

    async def take(self, runtime: str) -> Process:
        self._loading.begin(self._log, self._extended.telemetry, runtime)
        try:
            process = await self._load()
            await self._part(process)
        except BaseException as error:
            if isinstance(error, SnapshotFailed):
                await self._extended.end("failure")
            if self._process is not None:
                await self._process.aclose()
            await self._extended.telemetry.aclose()
            raise
        finally:
            self._log = None
        return process

    async def _load(self) -> Process:
        try:
            process, answer = await self._answer()
        except TimeoutError:
            said = f"The code did not load within {self._patience:g} seconds"
            raise self._failed("timeout", "", said, "FunctionError.InitTimeout") from None
        except Gone as gone:
            said = f"Runtime exited with error: {gone.why}" if gone.why else "Runtime exited without providing a reason"
            raise self._failed("error", "Runtime.ExitError", said) from None
        except ExtensionFailed as failed:
            said = f"{failed.error_type}: {failed.why}"
            raise self._failed("error", failed.error_type, said, _code_of(failed)) from None
        if answer is not None:
            kind, message = _error(answer.payload)
            error_type = kind if answer.error_type == "Runtime.Unknown" else answer.error_type
            raise self._failed("error", error_type, f"{kind}: {message}")
        if process.api.hindrance:
            self.write(f"No snapshot is made of this version: it has {process.api.hindrance} once it is loaded.\n")
        self._end("success")
        return process

    async def _answer(self) -> tuple[Process, Answer | None]:
        """Start the process, and wait for what it says about the code."""
        extended = self._extended
        process = self._process = await self._launcher.snapshot(partial(extended.write, ""), extended.extensions)
        extended.started(process)
        process.watch()
        try:
            async with asyncio.timeout(max(0.0, self._until - time.monotonic())):
                answer = await process.api.loaded()
                if answer is None:
                    await extended.extensions.ready()
        finally:
            process.unwatch()
        return process, answer

    async def _part(self, process: Process) -> None:
        """End the extensions: each environment has its own."""
        if self._extended.present:
            await self._extended.part()
            process.drain()
        await process.part()

    def _failed(
        self, status: str, error_type: str, said: str, code: str = "FunctionError.RuntimeInitError"
    ) -> SnapshotFailed:
        self._end(status, error_type)
        return SnapshotFailed(said, code)

    def _end(self, status: str, error_type: str = "") -> None:
        if self._process is not None:
            self._process.drain()
        self._extended.initialised()
        self._loading.end(self._log, status, error_type)

    # ------------------------------------------------------------------------------------ what the extensions call

    def write(self, text: str) -> None:
        """Put something into the log."""
        if self._log is not None:
            self._log.write(text)

    def note(self, tell: Callable[[InvocationLog], object]) -> None:
        """Have the log told something."""
        if self._log is not None:
            tell(self._log)

    def end_of_use(self, reason: str) -> None:
        """Hear that an extension has failed: whoever waits for the code is told so too."""


def _code_of(failed: ExtensionFailed) -> str:
    if failed.why == TOO_MANY:
        return "FunctionError.TooManyExtensions"
    return "FunctionError.PermissionDenied" if "permission denied" in failed.why else "FunctionError.ExtensionInitError"


def _error(document: bytes) -> tuple[str, str]:
    """Take type and message out of what a runtime posted."""
    try:
        said = loads(document)
        return str(said["errorType"]), str(said["errorMessage"])
    except (ValueError, TypeError, KeyError):
        return "Runtime.Unknown", document[:1000].decode("utf-8", "replace")
