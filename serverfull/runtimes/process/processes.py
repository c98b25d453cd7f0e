"""A process with a function's code: its Runtime API, its log pipe, its limits, and the folder that they are in.

Extensions are processes beside it, in the same limits.

It is started by a zygote as a `Recipe` says, and of no use once it has ended. Everything here runs on the host's loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from serverfull.errors import InternalFailure
from serverfull.runtimes.process.companions import Companions
from serverfull.runtimes.process.confinement import Confinement
from serverfull.runtimes.process.loopback import Loopback
from serverfull.runtimes.process.orders import LaunchFailed, NotExecutable, Order
from serverfull.runtimes.process.zygotes import Zygote
from serverfull.runtimes.runtime_api.api import RuntimeApi
from serverfull.runtimes.runtime_api.door import Door
from serverfull.runtimes.runtime_api.extensions import ENDING
from serverfull.runtimes.sandboxes.launching import Gone, Unstartable
from serverfull.runtimes.sandboxes.leftovers import remove_tree
from serverfull.runtimes.sandboxes.log_pipe import LogPipe

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from serverfull.runtimes.process.machine import Machine
    from serverfull.runtimes.process.orders import Exit
    from serverfull.runtimes.process.recipes import Recipe
    from serverfull.runtimes.process.zygotes import Launched, Waiting
    from serverfull.runtimes.runtime_api.extensions import Extensions

INSIDE = "127.0.0.1:9001"
"""Where a process in a network of its own finds its Runtime API, as on AWS; ``child/strict.py`` listens there."""

CLOSING = 2.0
"""Seconds within which a killed process must be gone."""


class Process:
    """A started process with its Runtime API, its log pipe and its limits: an `Instance`.

    :ivar alive: whether it runs.
    """

    def __init__(
        self, machine: Machine, folder: Path, confinement: Confinement, api: RuntimeApi, pipe: LogPipe
    ) -> None:
        self._machine = machine
        self.folder = folder
        self.confinement = confinement
        self.api = api
        self.pipe = pipe
        self.launched: Launched | None = None
        self.alive = False
        self._companions: Companions | None = None
        self._door: Door | None = None
        self._loopback = Loopback()
        self._waiting: Waiting | None = None
        self._inside: RuntimeApi | Door | None = None

    @classmethod
    async def start(
        cls, recipe: Recipe, memory_mb: int, machine: Machine, write: Callable[[str], object], extensions: Extensions
    ) -> Process:
        """Start it, after its extensions; what fails on the way leaves nothing behind.

        :raises Unstartable: its program cannot be executed.
        :raises ExtensionFailed: one of its extensions has failed.
        :raises TimeoutError: one of its extensions has not registered in time.
        :raises InternalFailure: it cannot be started for another reason.
        """
        spare, loopback = machine.spares.take(recipe.zygote), Loopback()
        folder = machine.new_folder() if spare is None else spare.folder
        prepare = _preparation(
            recipe,
            memory_mb,
            machine,
            folder,
            loopback,
            opt=recipe.opt,
            hidden=machine.hidden,
            shared=machine.shared,
        )
        try:
            confinement = await _in_thread(prepare) if spare is None else prepare(group=spare.group)
        except BaseException:
            remove_tree(folder)
            raise
        process = await cls._open(machine, folder, confinement, recipe, write, extensions)
        if (recipe.client or {}).get("snapshot"):
            process.api.keep_snapshot()
        process._loopback = loopback
        process._waiting = None if spare is None else spare.waiting
        await process._begin(recipe, extensions, lambda: process._start(recipe, extensions))
        return process

    @classmethod
    async def restore(
        cls,
        snapshot: Process,
        recipe: Recipe,
        variables: Mapping[str, str],
        memory_mb: int,
        machine: Machine,
        write: Callable[[str], object],
        extensions: Extensions,
    ) -> Process:
        """Start it as a copy of another, in limits of its own; what fails on the way leaves nothing behind.

        Its extensions are no copies. They are started once it is there, and it goes on when they have registered.

        :param snapshot: a process whose client was told to be a snapshot, and has said that it is ready.
        :param recipe: of the same function.
        :param variables: of the environment, beside those that all of the function have: the snapshot has those.
        :raises ExtensionFailed: one of its extensions has failed.
        :raises TimeoutError: one of its extensions has not registered in time.
        :raises InternalFailure: it cannot be started.
        """
        folder, loopback = machine.new_folder(), Loopback()
        prepare = _preparation(recipe, memory_mb, machine, folder, loopback, opt=None)  # the snapshot has that already
        try:
            confinement = await _in_thread(prepare)
        except BaseException:
            remove_tree(folder)
            raise
        process = await cls._open(machine, folder, confinement, recipe, write, extensions)
        process._loopback = loopback
        process.api.restored(held=bool(recipe.extensions))
        await process._begin(recipe, extensions, lambda: process._copy(snapshot, recipe, variables, extensions))
        return process

    @classmethod
    async def _open(
        cls,
        machine: Machine,
        folder: Path,
        confinement: Confinement,
        recipe: Recipe,
        write: Callable[[str], object],
        extensions: Extensions,
    ) -> Process:
        """Open what a process is connected with."""
        try:
            if machine.is_strict and recipe.client is None:
                api = RuntimeApi.unheard(INSIDE, extensions)
            else:
                path = None if recipe.client is None else folder / "api"
                api = await RuntimeApi.open(socket=path, extensions=extensions if path is None else None)
        except BaseException:
            confinement.close()
            remove_tree(folder)
            raise
        process = cls(machine, folder, confinement, api, LogPipe(write))
        if recipe.client is not None:
            api.on_abuse = process._abused
        elif machine.is_strict:
            process._inside = api
        return process

    async def _begin(self, recipe: Recipe, extensions: Extensions, launch: Callable[[], Awaitable[Launched]]) -> None:
        try:
            if recipe.extensible and recipe.client is not None:
                if self._machine.is_strict:
                    self._door = self._inside = Door.unheard(extensions, INSIDE)
                else:
                    self._door = await Door.open(extensions)
            launched = self.launched = await launch()
        except NotExecutable as failed:
            await self.aclose()
            raise Unstartable(str(failed)) from None
        except LaunchFailed as failed:
            try:
                if recipe.extensions:  # it may be that the runtime cannot join one that has just ended
                    await extensions.failing(ENDING)
            finally:
                await self.aclose()
            raise InternalFailure from failed
        except BaseException:
            await self.aclose()
            raise
        finally:
            self.pipe.close_writer()
        self.alive = True
        launched.exited.add_done_callback(self._exited)

    async def _start(self, recipe: Recipe, extensions: Extensions) -> Launched:
        """Start its extensions, and then the runtime's process."""
        await self._accompany(recipe, self._variables(recipe), extensions)
        return await self._launch(recipe.zygote, self._order(recipe))

    async def _launch(self, zygote: Zygote, order: Order) -> Launched:
        """Start one of its processes.

        The first one takes the spare, if there is any, and brings the listener of what is served in their own network.
        """
        waiting, self._waiting = self._waiting, None
        inside, self._inside = self._inside, None
        if inside is None:
            return await zygote.launch(order, waiting)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            launched = await zygote.launch(replace(order, channel=theirs.fileno()), waiting)
            ours.setblocking(False)  # what it sends is here: it has begun
            try:
                _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
            except BlockingIOError:
                descriptors = []
        if not descriptors:
            launched.kill()
            raise LaunchFailed("the listener of its Runtime API has not arrived")
        await inside.hear(socket.socket(fileno=descriptors[0]), INSIDE.partition(":")[0])
        return launched

    async def _copy(
        self, snapshot: Process, recipe: Recipe, variables: Mapping[str, str], extensions: Extensions
    ) -> Launched:
        """Start the runtime's process as a copy, and then its extensions."""
        order = self._order(replace(recipe, environment=variables))
        order = replace(order, source=snapshot.launched, held=bool(recipe.extensions))
        launched = self.launched = await Zygote.copy(order)
        everything = self._variables(replace(recipe, environment={**recipe.environment, **variables}))
        await self._accompany(recipe, everything, extensions, launched.pid)
        self.api.release()
        return launched

    async def _accompany(
        self, recipe: Recipe, variables: Mapping[str, str], extensions: Extensions, beside: int = 0
    ) -> None:
        """Start the extensions that have processes of their own, and wait until they have registered."""
        if recipe.extensions:
            self._companions = Companions(partial(self._launch, recipe.zygote), extensions, self.confinement, beside)
            await self._companions.start(recipe.extensions, variables)

    async def part(self) -> None:
        """End its extensions, and go on without them."""
        companions, self._companions = self._companions, None
        if companions is not None:
            companions.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSING):
                    await companions.gone()
            companions.close()

    @property
    def pid(self) -> int:
        """Of the runtime's process."""
        return 0 if self.launched is None else self.launched.pid

    def most_memory_mb(self) -> int:
        """Give the most megabytes that it and what it has started have used so far.

        :raises OSError: the kernel does not tell.
        """
        if self.launched is None or self.alive:
            return self.confinement.memory_mb(self.pid)
        exited = self.launched.exited
        lost = exited.cancelled() or exited.exception() is not None
        return self.confinement.memory_mb(0, ended=0 if lost else exited.result().max_rss_kb * 1024)

    def check_memory(self) -> None:
        """Kill the process where it has more memory than it may."""
        others = [] if self._companions is None else self._companions.pids
        if self.alive and self.confinement.over(self.pid, others):
            self.kill()

    def drain(self) -> None:
        """Take what is in the log pipes now."""
        self.pipe.drain()
        if self._companions is not None:
            self._companions.drain()

    def kill(self) -> None:
        """Kill the processes and everything that they have started."""
        if self._companions is not None:
            self._companions.kill()
        if self.launched is not None:
            self.launched.kill()
        self.confinement.kill(self.pid)

    def when_ended(self, call: Callable[[], None]) -> None:
        """Have this called when the runtime's process has ended."""
        assert self.launched is not None
        self.launched.exited.add_done_callback(lambda _exited: call())

    def watch(self) -> None:
        """Look at its memory, where that is needed."""
        if self.confinement.watched:
            self._machine.watcher.add(self)

    def unwatch(self) -> None:
        """Look no more."""
        self._machine.watcher.discard(self)

    def freeze(self) -> bool:
        """Stop the processes' groups; says whether there was that of the runtime."""
        stopped = self._signal(signal.SIGSTOP)
        if stopped and self._companions is not None:
            self._companions.send_signal(signal.SIGSTOP)
        return stopped

    def thaw(self) -> None:
        """Let the processes' groups go on."""
        self._signal(signal.SIGCONT)
        if self._companions is not None:
            self._companions.send_signal(signal.SIGCONT)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the group of the runtime's process."""
        self._signal(number)

    def _signal(self, number: signal.Signals) -> bool:
        if not self.alive:
            return False
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    async def connect(self, port: int) -> tuple[StreamReader, StreamWriter]:
        """Connect to a port of loopback, where one of its processes listens.

        :raises OSError: none does.
        """
        if self._machine.is_strict:
            return await self._connect_inside(port)
        first = [self.pid, *([] if self._companions is None else self._companions.pids)]
        return await self._loopback.connect(port, lambda: self.confinement.members(first))

    async def _connect_inside(self, port: int) -> tuple[StreamReader, StreamWriter]:
        """Connect within the network of its own, where whatever listens is its own too."""
        running = [] if self._companions is None else self._companions.running
        if self.alive and self.launched is not None:
            running = [self.launched, *running]
        if not running:
            raise ConnectionRefusedError("the environment has ended")
        line = await running[0].reach()
        try:
            await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", port))
            return await asyncio.open_connection(sock=line)
        except BaseException:
            line.close()
            raise

    async def aclose(self) -> None:
        """Kill it, wait until it is gone, and give back what it held."""
        self.kill()
        self.api.end(Gone("signal: killed"))
        if self.launched is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSING):
                    await asyncio.shield(self.launched.exited)
        await self.part()
        self.pipe.close()
        if self._door is not None:
            self._door.close()
        await self.api.aclose()
        await asyncio.to_thread(self._clean_up)

    def _abused(self) -> None:
        """End what has spoken on its client's line: nothing that comes there can be trusted any more."""
        with suppress(OSError, ValueError):
            self.most_memory_mb()  # while there is something to be seen: what it gives is remembered
        self.api.end(Gone("signal: killed"))
        self.kill()

    def _clean_up(self) -> None:
        self.confinement.close()
        remove_tree(self.folder)

    def _exited(self, exited: asyncio.Future[Exit]) -> None:
        self.alive = False
        lost = exited.cancelled() or exited.exception() is not None
        self.api.end(Gone("signal: killed" if lost else exited.result().why))

    def _order(self, recipe: Recipe) -> Order:
        return Order(
            environment=self._variables(recipe),
            cwd=recipe.root,
            confinement=self.confinement.orders if self._companions is None else self._companions.orders,
            command=recipe.command,
            client=None if recipe.client is None else {**recipe.client, "socket": self.api.address},
            log=self.pipe.writer,
        )

    def _variables(self, recipe: Recipe) -> dict[str, str]:
        environment = {**recipe.environment, **self.confinement.environment}
        if self._door is not None:
            environment["AWS_LAMBDA_RUNTIME_API"] = self._door.address
        elif recipe.client is None:
            environment["AWS_LAMBDA_RUNTIME_API"] = self.api.address
        return environment


def _preparation(
    recipe: Recipe, memory_mb: int, machine: Machine, folder: Path, loopback: Loopback, **more: Any
) -> Callable[..., Confinement]:
    """Give what makes the limits of one process; ``more`` is for `Confinement.prepare`, as they are."""
    return partial(
        Confinement.prepare,
        machine.means,
        machine.level,
        memory_mb=memory_mb,
        ephemeral_mb=recipe.ephemeral_mb,
        folder=folder,
        visible=[recipe.root, *recipe.visible],
        exact=[recipe.root] if recipe.live else [],
        hosts=loopback.line if recipe.extensible else None,
        **more,
    )


async def _in_thread(prepare: Callable[[], Confinement]) -> Confinement:
    """Make limits on a thread; where the caller gives up meanwhile, they are removed."""
    preparing = asyncio.ensure_future(asyncio.to_thread(prepare))
    try:
        return await asyncio.shield(preparing)
    except asyncio.CancelledError:
        preparing.add_done_callback(lambda made: None if made.exception() else made.result().close())
        raise
