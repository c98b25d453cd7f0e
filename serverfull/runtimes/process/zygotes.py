"""Starts processes through a zygote: a warm Python interpreter that forks a process in 2 ms and kills it on request.

One `Zygote` for each interpreter; ``serverfull/runtimes/child/zygote.py`` is the other side and describes the messages.
Everything here runs on the host's loop. The zygote is watched by one task, which ends with it. Where it dies, all that
it has started dies with it and the next launch starts another; where it does not answer, it is killed.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import itertools
import os
import signal
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serverfull.domain.json_functions import dumps, loads
from serverfull.runtimes.process.orders import Exit, LaunchFailed, NotExecutable, Order, in_memory

PROGRAM = Path(__file__).parent.parent / "child" / "__main__.py"

START_TIMEOUT = 20.0
"""Seconds until an interpreter must have started."""

ANSWER_TIMEOUT = 10.0
"""Seconds within which a process must begin, and within which the zygote must confirm that it has killed one."""

SIGN_TIMEOUT = 2.0
"""Seconds within which a zygote that has not begun a process in time must say anything at all."""

END_TIMEOUT = 6.0
"""Seconds that it may take to end when it is asked to; it kills what it has started first, for up to 5."""

_LARGEST = 65_536
_MOST_SAID = 8_192
"""Bytes of its last words that are kept: why an interpreter does not start."""


class Launched:
    """A process that has been started. It may have ended already.

    :ivar exited: done when it has ended; never fails.
    """

    def __init__(self, zygote: _Running, number: int) -> None:
        self.zygote = zygote
        self.number = number
        loop = asyncio.get_running_loop()
        self.pid = 0
        self.exited: asyncio.Future[Exit] = loop.create_future()
        self.begun: asyncio.Future[None] = loop.create_future()

    def kill(self) -> None:
        """Kill it, and everything that it has started. Does nothing once it has ended."""
        if not self.exited.done():
            self.zygote.kill(self.number)

    async def reach(self) -> socket.socket:
        """Have a TCP socket made that is in its network, where that is its own; it blocks nobody.

        :raises OSError: it has ended.
        """
        return await self.zygote.reach(self.pid)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A process that waits for its order, unless it has ended."""

    zygote: _Running
    number: int


class Zygote:
    """Starts processes for the host. Start it, and close it when none of its processes is needed any more.

    :param interpreter: a Python, 3.8 or later.
    :param logger: hears what goes wrong.
    """

    def __init__(self, interpreter: Path, logger: Any) -> None:
        self._interpreter = interpreter
        self._logger = logger
        self._running: _Running | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""
        return None if self._running is None or self._running.ended else self._running.pid

    async def start(self) -> None:
        """Start the interpreter, unless it runs.

        :raises LaunchFailed: it does not start.
        """
        await self._get()

    async def spare(self, groups: Sequence[str], *, is_strict: bool = False) -> Waiting:
        """Have a process made that is in its groups already when it is launched.

        :param groups: the files by which a process enters them.
        :param is_strict: whether it is in namespaces of its own too, as a launch with ``strict`` limits is.
        :raises LaunchFailed: the interpreter does not start.
        """
        running = await self._get()
        return Waiting(running, running.spare(groups, is_strict=is_strict))

    async def launch(self, order: Order, waiting: Waiting | None = None) -> Launched:
        """Start a process, and wait until its own program begins. Cancelling this kills it.

        :param waiting: what is taken for it, where it is still there; it is in the groups of the order.
        :raises NotExecutable: its program cannot be executed.
        :raises LaunchFailed: it cannot be started for another reason; the process is not there then.
        """
        try:
            running = await self._get()
            number = waiting.number if waiting is not None and waiting.zygote is running else None
            return await running.launch(order, number)
        except _ZygoteDied:
            pass  # perhaps between two launches, with nobody there to notice
        try:
            return await (await self._get()).launch(order)
        except _ZygoteDied as died:
            raise LaunchFailed(str(died)) from None

    @staticmethod
    async def copy(order: Order) -> Launched:
        """Start a process as the copy of a snapshot, and wait until it begins. Cancelling this kills it.

        :raises LaunchFailed: it cannot be started, or the snapshot has ended.
        """
        assert order.source is not None
        try:
            return await order.source.zygote.launch(order)
        except _ZygoteDied as died:
            raise LaunchFailed(str(died)) from None

    async def aclose(self) -> None:
        """Kill all that it has started, and end it. Closing twice is fine."""
        self._closed = True
        async with self._starting:
            running, self._running = self._running, None
            if running is not None:
                await running.aclose()

    async def _get(self) -> _Running:
        async with self._starting:
            if self._closed:
                raise LaunchFailed("the host is about to end")
            if self._running is None or self._running.ended:
                if self._running is not None:
                    await self._running.aclose()
                self._running = await _Running.start(self._interpreter, self._logger)
            return self._running


class _ZygoteDied(Exception):
    pass


class _Running:
    """A zygote that runs, until it has ended."""

    def __init__(
        self, process: asyncio.subprocess.Process, line: socket.socket, interpreter: Path, logger: Any
    ) -> None:
        self.pid = process.pid
        self.ended = False
        self._process = process
        self._line = line
        self._interpreter = interpreter
        self._logger = logger
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._launches: dict[int, Launched] = {}
        self._outbox: deque[tuple[bytes, Sequence[int], asyncio.Future[None] | None]] = deque()
        self._killing: dict[int, asyncio.TimerHandle] = {}
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._words = b""
        self._heard = asyncio.Event()
        self._closing = False
        self._killed = False
        self._loop.add_reader(line.fileno(), self._hear)
        self._task = self._loop.create_task(self._watch())

    @classmethod
    async def start(cls, interpreter: Path, logger: Any) -> _Running:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(interpreter, "-I", PROGRAM, "zygote", str(theirs.fileno()), str(os.getpid())),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    pass_fds=(theirs.fileno(),),
                    env={"PATH": os.pathsep.join(os.get_exec_path()), "LC_ALL": "C.UTF-8"},
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise LaunchFailed(f"{interpreter} does not start: {error}") from None
            except BaseException:
                ours.close()
                raise
        running = cls(process, ours, interpreter, logger)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await running._ready
        except BaseException as error:
            await running.aclose()
            if isinstance(error, (_ZygoteDied, TimeoutError)):
                raise LaunchFailed(f"{interpreter} does not start: {str(error) or 'it takes too long'}") from None
            raise
        return running

    def spare(self, groups: Sequence[str], *, is_strict: bool) -> int:
        number = next(self._numbers)
        self._send(dumps({"spare": number, "groups": list(groups), "strict": is_strict}).encode())
        return number

    async def launch(self, order: Order, number: int | None = None) -> Launched:
        if self.ended:
            raise _ZygoteDied(self._why())
        number = number or next(self._numbers)
        launched = self._launches[number] = Launched(self, number)
        sent: asyncio.Future[None] = self._loop.create_future()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                with in_memory(order.content()) as content:
                    self._send(order.message(number), [content, *order.given], sent)
                    await sent
                await launched.begun
        except TimeoutError:
            self._give_up(launched, number, sent)
            if not await self._gives_a_sign():
                raise _ZygoteDied("it did not answer") from None
            raise LaunchFailed("the process did not begin in time") from None
        except BaseException:
            self._give_up(launched, number, sent)
            raise
        return launched

    def _give_up(self, launched: Launched, number: int, sent: asyncio.Future[None]) -> None:
        if sent.done() and not sent.cancelled() and sent.exception() is None:
            launched.kill()
        else:  # it has never been asked for
            self._launches.pop(number, None)

    def kill(self, number: int) -> None:
        if number in self._launches and number not in self._killing and not self.ended:
            # It answers at once; the process itself may take longer where the kernel holds it.
            self._killing[number] = self._loop.call_later(ANSWER_TIMEOUT, self._stuck)
            self._send(dumps({"kill": number}).encode())

    async def reach(self, pid: int) -> socket.socket:
        ours, theirs = socket.socketpair()
        with ours:
            sent: asyncio.Future[None] = self._loop.create_future()
            with theirs:
                self._send(dumps({"reach": pid}).encode(), [theirs.fileno()], sent)
                try:
                    await sent
                except (_ZygoteDied, LaunchFailed) as error:
                    raise ConnectionRefusedError(str(error)) from None
            ours.settimeout(ANSWER_TIMEOUT)
            _, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, ours, 1, 1)
        if not descriptors:
            raise ConnectionRefusedError("the process has ended")
        made = socket.socket(fileno=descriptors[0])
        made.setblocking(False)
        return made

    async def aclose(self) -> None:
        """Let it kill everything and end; kill it if that takes too long."""
        self._closing = True
        self._hang_up()
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await asyncio.shield(self._task)
        except TimeoutError:
            self._stuck()
            await self._task

    async def _gives_a_sign(self) -> bool:
        """See whether the zygote still takes messages. Where it does not, it is killed, and gone when this returns."""
        self._heard.clear()
        self._send(dumps({"kill": 0}).encode())  # of nobody: it is answered all the same
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SIGN_TIMEOUT):
                await self._heard.wait()
        if self._heard.is_set():
            return True
        self._stuck()
        await asyncio.shield(self._task)
        return False

    def _stuck(self) -> None:
        """Kill the zygote, and so everything that it has started: it does not answer."""
        if not self.ended and not self._killed:
            self._killed = True
            self._logger.error("zygote does not answer", interpreter=str(self._interpreter), pid=self.pid)
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    # ------------------------------------------------------------------------------------------------------- messages

    def _send(self, message: bytes, given: Sequence[int] = (), sent: asyncio.Future[None] | None = None) -> None:
        self._outbox.append((message, given, sent))
        if len(self._outbox) == 1:
            self._write()

    def _write(self) -> None:
        while self._outbox:
            message, given, sent = self._outbox[0]
            if sent is None or not sent.done():
                beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", given))] if given else []
                try:
                    self._line.sendmsg([message], beside)
                except BlockingIOError:
                    self._loop.add_writer(self._line.fileno(), self._write)
                    return
                except OSError as error:
                    if sent is not None:
                        sent.set_exception(_failed_to_send(error))
                else:
                    if sent is not None:
                        sent.set_result(None)
            self._outbox.popleft()
        if self._line.fileno() >= 0:
            self._loop.remove_writer(self._line.fileno())

    def _hear(self) -> None:
        while True:
            try:
                data = self._line.recv(_LARGEST)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._hang_up()
                return
            self._take(loads(data))

    def _take(self, message: dict[str, Any]) -> None:
        self._heard.set()
        if "ready" in message:
            if not self._ready.done():
                self._ready.set_result(None)
        elif "launched" in message:
            launched = self._launches[message["launched"]]
            launched.pid = message["pid"]
            if not launched.begun.done():
                launched.begun.set_result(None)
        elif "killed" in message:
            self._answered(message["killed"])
        elif "failed" in message:
            launched = self._launches.pop(message["failed"])
            if not launched.begun.done():
                failure = NotExecutable if message.get("unexecutable") else LaunchFailed
                launched.begun.set_exception(failure(message["why"]))
            launched.exited.set_result(Exit(127 << 8, 0))
        else:
            launched = self._launches.pop(message["exited"])
            launched.exited.set_result(Exit(message["status"], message["maxrss_kb"]))

    def _answered(self, number: int) -> None:
        timer = self._killing.pop(number, None)
        if timer is not None:
            timer.cancel()

    # ------------------------------------------------------------------------------------------------------------ end

    async def _watch(self) -> None:
        """Hear what it writes until it ends; then everything that it has started has ended."""
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(_MOST_SAID):
            self._words = (self._words + data)[-_MOST_SAID:]
        await self._process.wait()
        self._hear_last()
        self.ended = True
        if not self._closing:
            self._logger.error("zygote ended", interpreter=str(self._interpreter), why=self._why())
        self._lose_all()

    def _hear_last(self) -> None:
        if self._line.fileno() >= 0:
            self._hear()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._line.fileno() >= 0:
            self._loop.remove_reader(self._line.fileno())
            self._loop.remove_writer(self._line.fileno())
            self._line.close()

    def _lose_all(self) -> None:
        died = _ZygoteDied(self._why())
        if not self._ready.done():
            self._ready.set_exception(died)
        for number in list(self._killing):
            self._answered(number)
        launches, self._launches = self._launches, {}
        for launched in launches.values():
            if launched.pid:  # what it has left in its group; the process itself has died with the zygote
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(launched.pid, signal.SIGKILL)
            if not launched.begun.done():
                launched.begun.set_exception(died)
                launched.begun.exception()  # nobody waits for it where the launch was cancelled
            launched.exited.set_result(Exit(signal.SIGKILL, 0))
        for _, _, sent in self._outbox:
            if sent is not None and not sent.done():
                sent.set_exception(died)
                sent.exception()
        self._outbox.clear()

    def _why(self) -> str:
        words = self._words.decode("utf-8", "replace").strip()
        return f"it ended with status {self._process.returncode}" + (f": {words}" if words else "")


def _failed_to_send(error: OSError) -> Exception:
    if isinstance(error, (BrokenPipeError, ConnectionResetError)) or error.errno == 9:
        return _ZygoteDied("it has hung up")
    return LaunchFailed(f"the zygote cannot be told what to start: {error.strerror}")
