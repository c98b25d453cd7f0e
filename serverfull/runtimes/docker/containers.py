"""A container with a function's code: its Runtime API, its log, the engine's name for it. An `Instance`.

It is started as a `Wish` says, and of no use once it has ended. Its end is seen by the kernel's handle on its first
process, and it is killed by that too, where the host may: the engine is slower, and may be away. Everything here runs
on the host's loop; the engine is asked on threads.
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from serverfull.errors import InternalFailure
from serverfull.runtimes.docker.attached import AttachedLog
from serverfull.runtimes.docker.companions import Companions
from serverfull.runtimes.docker.engine import EngineGone
from serverfull.runtimes.docker.options import FUNCTION, HOST, MEGABYTE, Held, Shown, Wish, configuration
from serverfull.runtimes.docker.shells import said_by_shell
from serverfull.runtimes.docker.starting import ENDING, UNEXECUTED, exit_code, start, why_not_executed
from serverfull.runtimes.runtime_api.api import RuntimeApi
from serverfull.runtimes.runtime_api.door import Door
from serverfull.runtimes.sandboxes.launching import Gone, Unstartable
from serverfull.runtimes.sandboxes.leftovers import remove_tree
from serverfull.runtimes.sandboxes.log_pipe import LogPipe

if TYPE_CHECKING:
    import socket

    from serverfull.domain.hot_paths import FolderIdentity
    from serverfull.runtimes.docker.site import Site
    from serverfull.runtimes.docker.starting import Started
    from serverfull.runtimes.docker.vitals import Vitals
    from serverfull.runtimes.runtime_api.extensions import Extensions

CLOSING = 2.0
"""Seconds within which a killed container must be gone."""

_DEADLY = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 24, 25, 31))
"""Signals that end containers. The engine tells them as statuses above 128, with which programs exit by themselves too:
the entry point of AWS's images with 142, where it gets no handler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the containers of a function are made of.

    :param wish: all but what each has for itself.
    :param name: of the function.
    :param program: that is executed in the end.
    :param first: that the engine executes: the same, or a shell.
    :param path: the folders that it is looked for in.
    :param own_client: our own client runs in them.
    :param led: their output goes into the named pipe.
    :param extensions: the names of their external extensions.
    :param package: the folder that has to be their package, where somebody may put another in its place; None: nobody.
    """

    wish: Wish
    name: str
    program: str
    first: str
    path: str
    own_client: bool
    led: bool
    extensions: Sequence[str] = ()
    package: FolderIdentity | None = None


class Log(Protocol):
    """What gets the output of a container."""

    def drain(self) -> None:
        """Pass on what is there now."""

    def close(self) -> None:
        """Pass on what is left, and close. Closing twice is fine."""


class Folder:
    """The folder that a container sees with the ends of its lines to the host. Close it when it is not needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def short(self) -> Path:
        """A path of it that is never too long for the address of a socket."""
        return Path(f"/proc/self/fd/{self._descriptor}")

    def close(self) -> None:
        """Remove it. Closing twice is fine."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        remove_tree(self.path)


class Container:
    """A started container: an `Instance`."""

    def __init__(self, site: Site, recipe: Recipe, folder: Folder, api: RuntimeApi, log: Log) -> None:
        self._site = site
        self._program = recipe.program
        self._first = {"program": recipe.first, "path": recipe.path}
        self._memory = recipe.wish.memory_mb * MEGABYTE
        self._folder = folder
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._vitals: Vitals | None = None
        self._ended = asyncio.Event()  # its processes are gone
        self._settled = self._loop.create_future()  # and it is known how
        self._closing: asyncio.Task[None] | None = None
        self._companions: Companions | None = None
        self._door: Door | None = None
        self._address = ""
        self.api = api
        self.alive = True
        self.name = f"serverfull-{recipe.name}-{uuid.uuid4().hex[:12]}"
        self.id = ""

    @classmethod
    async def start(
        cls,
        recipe: Recipe,
        held: Held,
        site: Site,
        variables: Mapping[str, str],
        write: Callable[[str], object],
        extensions: Extensions,
    ) -> Container:
        """Start it; what fails on the way leaves nothing behind.

        :param variables: of this container alone.
        :param extensions: hears of its extensions; of internal ones where the runtime knows host and port.
        :raises Unstartable: its program cannot be executed.
        :raises ExtensionFailed: one of its extensions has failed.
        :raises TimeoutError: one of its extensions has not registered in time.
        :raises ImageGone: its image is not there.
        :raises PackageReplaced: what has been mounted is not its package.
        :raises InternalFailure: it cannot be started for another reason.
        """
        folder = Folder(site.new_folder())
        listener: socket.socket | None = None
        log: LogPipe | AttachedLog | None = None
        api: RuntimeApi | None = None
        made: Container | None = None
        door: Door | None = None
        try:
            log = LogPipe(write, folder.path / "log") if recipe.led else AttachedLog(write)
            if recipe.own_client:
                api = await RuntimeApi.open(socket=folder.short / "api")
                (folder.path / "api").chmod(0o666)
                if recipe.extensions:
                    listener = await site.listener(held.network)
                    door = Door.unheard(extensions, "{}:{}".format(*listener.getsockname()))
                    variables = {**variables, "AWS_LAMBDA_RUNTIME_API": door.address}
            else:
                listener = await site.listener(held.network)
                api = RuntimeApi.unheard("{}:{}".format(*listener.getsockname()), extensions)
                variables = {**variables, "AWS_LAMBDA_RUNTIME_API": api.address}
            made = cls(site, recipe, folder, api, log)
            if recipe.own_client:
                api.on_abuse = made._abused
            made._door = door
            if recipe.extensions:
                made._companions = Companions(site.engine, extensions, folder.path)
            made._address = await made._start(recipe, held, variables, log)
            if listener is not None:
                await (door or api).hear(listener, made._address)
            if made._companions is not None:
                await made._companions.start(made.id, recipe.extensions, made._runtime_ended)
        except BaseException as error:
            if listener is not None:
                listener.close()
            if door is not None:
                door.close()
            await _undo(made, log, api, folder)
            if isinstance(error, (EngineGone, OSError)) and not isinstance(error, TimeoutError):
                site.tell("container not started", error)
                raise InternalFailure from error
            raise
        return made

    async def _start(self, recipe: Recipe, held: Held, variables: Mapping[str, str], log: Log) -> str:
        """Have the engine make and start it; gives its address on its network.

        Where the caller gives up meanwhile, it is removed once it is there.
        """
        wish = recipe.wish
        wish = replace(
            wish,
            variables={**wish.variables, **variables},
            shown=(*wish.shown, Shown(str(self._folder.path), HOST)),
            labels={**self._site.labels, FUNCTION: recipe.name},
        )
        attached = log if isinstance(log, AttachedLog) else None
        body = configuration(wish, held)
        attach = _no_more if attached is None else partial(attached.attach, self._site.engine.address)
        work = partial(start, name=self.name, body=body, program=self._program, attach=attach, package=recipe.package)
        starting = asyncio.ensure_future(self._site.engine.ask(work))
        try:
            found = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(partial(_give_up, self._site, self.name))
            raise
        except EngineGone:
            self._site.remove(self.name)
            raise
        if attached is not None:
            attached.read()
        self.id = found.id
        self._vitals = found.vitals
        if found.vitals is None:
            self._gone()
        else:
            self._loop.add_reader(found.vitals.handle, self._gone)
        return found.address

    def when_ended(self, call: Callable[[], None]) -> None:
        """Have this called, once, when it has ended."""
        self._settled.add_done_callback(lambda _settled: call())

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the runtime, which the engine's own init passes on."""
        if self._companions is not None and number == signal.SIGKILL:
            number = signal.SIGUSR1  # to what holds it: killing that would end all
        if self.alive and self._vitals is not None:
            self._vitals.send_signal(number)

    async def connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to what listens on a port of its address in its network, which its own names stand for.

        :raises OSError: nothing does, or it has no address.
        """
        if not self._address:
            raise ConnectionRefusedError("the container has no address")
        return await asyncio.open_connection(self._address, port)

    def watch(self) -> None:
        """Look at its memory: what is in ``/tmp`` counts for the kernel, and so it lets processes have more."""
        self._site.watcher.add(self)

    def unwatch(self) -> None:
        """Look no more."""
        self._site.watcher.discard(self)

    def check_memory(self) -> None:
        """Kill it where its processes have more memory than they may."""
        if self.alive and self._vitals is not None and self._vitals.used() > self._memory:
            self.kill()

    def drain(self) -> None:
        """Take what it has written to its log until now."""
        self._log.drain()
        if self._companions is not None:
            self._companions.drain()

    def most_memory_mb(self) -> int:
        """Give the most megabytes that its processes have used so far.

        :raises OSError: the kernel does not tell.
        """
        most = 0 if self._vitals is None else min(self._vitals.most(), self._memory)
        if not most:
            raise OSError("the memory of a container cannot be seen here")
        return -(-most // MEGABYTE)

    def freeze(self) -> bool:
        """Stop it; says whether that was done."""
        return self._vitals is not None and self.alive and self._vitals.freeze(frozen=True)

    def thaw(self) -> None:
        """Let it go on."""
        if self._vitals is not None and self.alive:
            self._vitals.freeze(frozen=False)

    def kill(self) -> None:
        """Kill all that is in it, and do not wait."""
        if self._companions is not None:
            self._companions.expect_end()
        if not self._ended.is_set() and (self._vitals is None or not self._vitals.kill()):
            self._site.spawn(self._kill_by_engine())

    async def _kill_by_engine(self) -> None:
        with suppress(Exception):  # it has ended, or the engine is away: then it is removed when that is back
            await self._site.engine.ask(lambda client: client.kill(self.name))

    async def aclose(self) -> None:
        """Kill it, wait until it is gone, and give back what it held. Closing twice is fine."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self.kill()
        self.api.end(Gone("signal: killed"))
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING):
                await self._ended.wait()
        self._gone()
        if self._companions is not None:
            self._companions.close()
        if self._door is not None:
            self._door.close()
        self._log.close()
        await self.api.aclose()
        if self._vitals is not None:
            self._vitals.close()
        self._site.retire(self.name)
        await asyncio.to_thread(self._folder.close)

    def _abused(self) -> None:
        """End what has spoken on its client's line: nothing that comes there can be trusted any more."""
        with suppress(OSError):
            self.most_memory_mb()
        self.api.end(Gone("signal: killed"))
        self.kill()

    def _gone(self) -> None:
        """Its processes have ended."""
        if self._ended.is_set():
            return
        self.alive = False
        self._ended.set()
        if self._vitals is not None:
            self._loop.remove_reader(self._vitals.handle)
        self._site.spawn(self._settle())

    def _runtime_ended(self, status: int) -> None:
        """The runtime has ended, and its extensions have not."""
        self.alive = False
        self.api.end(self._end_with(status))
        if not self._settled.done():
            self._settled.set_result(None)

    async def _settle(self) -> None:
        """Ask how it has ended, and tell it."""
        end: Gone | Unstartable = Gone.with_code(-signal.SIGKILL)
        with suppress(EngineGone, Exception):
            async with asyncio.timeout(ENDING):
                code = await self._site.engine.ask(partial(exit_code, name=self.name))
                end = self._end_with(code)
                if code in UNEXECUTED and not self.api.begun:
                    why = await self._site.engine.ask(partial(why_not_executed, name=self.name, **self._first))
                    end = end if why is None else self._unstartable(why)
        self.api.end(end)
        if not self._settled.done():
            self._settled.set_result(None)

    def _end_with(self, code: int) -> Gone | Unstartable:
        """Word a status: that of a shell which could not execute the program, or that of the program."""
        why = None if self.api.begun else said_by_shell(code)
        return _gone_with(code) if why is None else self._unstartable(why)

    def _unstartable(self, why: str) -> Unstartable:
        return Unstartable(f"fork/exec {self._program}: {why}")


def _no_more(container: str) -> None:
    """Leave it to the container where its output goes."""


def _gone_with(code: int) -> Gone:
    """Word a status that is a signal's where it is more than 128."""
    return Gone.with_code(128 - code if code - 128 in _DEADLY else code)


def _give_up(site: Site, name: str, started: asyncio.Future[Started]) -> None:
    if not started.cancelled() and started.exception() is None:
        vitals = started.result().vitals
        if vitals is not None:
            vitals.kill()
            vitals.close()
    site.remove(name)


async def _undo(made: Container | None, log: Log | None, api: RuntimeApi | None, folder: Folder) -> None:
    """Give back what a container that was not started held."""
    if made is not None and made.id:
        await made.aclose()
        return
    if log is not None:
        log.close()
    if api is not None:
        await api.aclose()
    folder.close()
