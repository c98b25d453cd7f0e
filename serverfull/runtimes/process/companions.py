"""The processes of a sandbox's external extensions: started before its runtime, in the same limits and mounts.

The first one makes the namespaces that the sandbox is to have; the others, and the runtime, join it there. A runtime
that is the copy of a snapshot has namespaces already: it waits while its extensions are started, which join it. Each
has a log pipe of its own. Everything here runs on the host's loop.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from serverfull.errors import InternalFailure
from serverfull.runtimes.process.orders import LaunchFailed, NotExecutable, Order
from serverfull.runtimes.sandboxes.log_pipe import LogPipe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from serverfull.runtimes.process.confinement import Confinement
    from serverfull.runtimes.process.orders import Exit
    from serverfull.runtimes.process.zygotes import Launched
    from serverfull.runtimes.runtime_api.extensions import Extensions

_OF_THE_RUNTIME = frozenset(
    {
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_XRAY_CONTEXT_MISSING",
        "AWS_XRAY_DAEMON_ADDRESS",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
        "_AWS_XRAY_DAEMON_ADDRESS",
        "_AWS_XRAY_DAEMON_PORT",
        "_HANDLER",
    }
)
"""Variables that extensions do not get, as on AWS."""


class Companions:
    """The extensions of one sandbox, as processes.

    :param launch: starts a process of the sandbox.
    :param extensions: hears of them.
    :param confinement: the limits of the sandbox.
    :param beside: the process whose namespaces they join; 0: they are the first.
    """

    def __init__(
        self,
        launch: Callable[[Order], Awaitable[Launched]],
        extensions: Extensions,
        confinement: Confinement,
        beside: int = 0,
    ) -> None:
        self._launch = launch
        self._extensions = extensions
        self._confinement = confinement
        self._beside = beside
        self._launched: list[Launched] = []
        self._pipes: list[LogPipe] = []

    async def start(self, programs: Sequence[Path], variables: Mapping[str, str]) -> None:
        """Start them, and wait until they have registered.

        :param variables: of the function.
        :raises ExtensionFailed: one of them has failed.
        :raises TimeoutError: one of them has not registered in time.
        :raises InternalFailure: one cannot be started for a reason that is the host's.
        """
        environment = {name: value for name, value in variables.items() if name not in _OF_THE_RUNTIME}
        for program in programs:
            await self._start(program, environment)
        await self._extensions.registered()

    async def _start(self, program: Path, environment: Mapping[str, str]) -> None:
        name = program.name
        pipe = LogPipe(self._extensions.expect(name))
        self._pipes.append(pipe)
        order = Order(
            environment=environment,
            cwd=Path("/"),
            confinement=self.orders,
            command=[str(program)],
            log=pipe.writer,
        )
        try:
            launched = await self._launch(order)
        except NotExecutable as failed:
            self._extensions.unstartable(name, str(failed))
        except LaunchFailed as failed:
            raise InternalFailure from failed
        else:
            self._launched.append(launched)
            launched.exited.add_done_callback(partial(self._ended, name, pipe))
        finally:
            pipe.close_writer()

    def _ended(self, name: str, pipe: LogPipe, exited: asyncio.Future[Exit]) -> None:
        pipe.drain()
        self._extensions.ended(name, exited.result().why)

    @property
    def orders(self) -> Mapping[str, object]:
        """What the next process of the sandbox is to do: to make its namespaces, or to join those that are there."""
        first = self._launched[0].pid if self._launched and not self._beside else self._beside
        return self._confinement.joining(first) if first else self._confinement.orders

    @property
    def running(self) -> list[Launched]:
        """Those that have not ended."""
        return [launched for launched in self._launched if not launched.exited.done()]

    @property
    def pids(self) -> list[int]:
        """The process ids of those."""
        return [launched.pid for launched in self.running]

    def drain(self) -> None:
        """Take what is in their log pipes now."""
        for pipe in self._pipes:
            pipe.drain()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to them and what they have started."""
        for pid in self.pids:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)

    def kill(self) -> None:
        """Kill them and everything that they have started."""
        self._extensions.expect_ends()
        for launched in self._launched:
            launched.kill()

    async def gone(self) -> None:
        """Wait until they have ended."""
        for launched in self._launched:
            await asyncio.shield(launched.exited)

    def close(self) -> None:
        """Take what they have written last. Closing twice is fine."""
        for pipe in self._pipes:
            pipe.close()
