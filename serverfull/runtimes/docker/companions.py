"""The external extensions of a container: processes that the engine starts in it, before its runtime goes on.

The container begins with a shell that holds the runtime back (`shells.HOLDING`). Everything here runs on the host's
loop, but what asks the engine.

Engine: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Exec
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serverfull.domain.json_functions import dumps
from serverfull.runtimes.docker.attached import AttachedLog, upgraded
from serverfull.runtimes.docker.engine import EngineGone
from serverfull.runtimes.docker.options import OPT
from serverfull.runtimes.docker.shells import said_by_engine
from serverfull.runtimes.sandboxes.launching import Gone

if TYPE_CHECKING:
    from serverfull.runtimes.docker.engine import Engine
    from serverfull.runtimes.runtime_api.extensions import Extensions


class Companions:
    """The extensions of one container.

    :param folder: that the container sees as `HOST`.
    """

    def __init__(self, engine: Engine, extensions: Extensions, folder: Path) -> None:
        self._engine = engine
        self._extensions = extensions
        self._loop = asyncio.get_running_loop()
        self._logs: list[AttachedLog] = []
        self._tasks: set[asyncio.Task[None]] = set()
        for name in ("go", "ended"):
            os.mkfifo(folder / name)
            (folder / name).chmod(0o666)
        # Open for both, so that neither end has to be there before the other.
        self._go = os.open(folder / "go", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._ended = os.open(folder / "ended", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    async def start(self, container: str, names: Sequence[str], runtime_ended: Callable[[int], object]) -> None:
        """Start them, wait until they have registered, and let the runtime begin.

        :param runtime_ended: called with the status of the runtime, as a shell has it.
        :raises ExtensionFailed: one of them has failed.
        :raises TimeoutError: one of them has not registered in time.
        :raises EngineGone: the engine cannot be asked.
        """
        self._loop.add_reader(self._ended, self._hear, runtime_ended)
        for name in names:
            await self._start(container, name)
        await self._extensions.registered()
        os.write(self._go, b"go\n")

    async def _start(self, container: str, name: str) -> None:
        path = f"{OPT}/extensions/{name}"
        ended = self._loop.create_future()
        log = AttachedLog(self._extensions.expect(name), partial(_end, ended))
        self._logs.append(log)
        exec_id, line, said = await self._engine.ask(
            partial(_execute, address=self._engine.address, container=container, path=path)
        )
        log.take(line, said)
        task = self._loop.create_task(self._watch(name, path, exec_id, ended))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, name: str, path: str, exec_id: str, ended: asyncio.Future[None]) -> None:
        """Tell how it has ended."""
        await ended
        code = 137
        with suppress(EngineGone, Exception):
            code = await self._engine.ask(lambda client: client.exec_inspect(exec_id)["ExitCode"])
        why = None if self._extensions.has_registered(name) else said_by_engine(code)
        if why is not None:
            with suppress(Exception):  # those who wait for it hear of it
                self._extensions.unstartable(name, f"fork/exec {path}: {why}")
        else:
            self._extensions.ended(name, Gone.with_code(code if code <= 128 else 128 - code).why)

    def _hear(self, runtime_ended: Callable[[int], object]) -> None:
        with suppress(BlockingIOError, ValueError, IndexError):  # the function can write there too
            status = int(os.read(self._ended, 64).split()[0])
            self._loop.remove_reader(self._ended)
            runtime_ended(status)

    def drain(self) -> None:
        """Take what they have written until now."""
        for log in self._logs:
            log.drain()

    def expect_end(self) -> None:
        """Say that they are about to be killed."""
        self._extensions.expect_ends()

    def close(self) -> None:
        """Take what they have written last, and give back what they held. Closing twice is fine."""
        for log in self._logs:
            log.close()
        for task in self._tasks:
            task.cancel()
        go, self._go = self._go, -1
        if go >= 0:
            self._loop.remove_reader(self._ended)
            os.close(go)
            os.close(self._ended)


def _end(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def _execute(client: Any, address: str, container: str, path: str) -> tuple[str, socket.socket, bytes]:
    """Have the engine start a process in a container.

    Gives its id, the line that its output comes by, and what has come by it already.
    """
    exec_id = client.exec_create(container, [path], stdout=True, stderr=True)["Id"]
    return exec_id, *upgraded(address, f"/exec/{exec_id}/start", dumps({"Detach": False, "Tty": False}).encode())
