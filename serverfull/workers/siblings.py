"""How workers ask each other: by name, over Unix sockets that have no file.

The supervisor opens a door for each worker before it starts any, and keeps them: the kernel names them, nobody can take
such a name, and who knocks while a worker is being replaced is answered by its successor. A request is a line of JSON,
its answer all that follows. Only processes of this user are answered.

Everything here runs on the worker's event loop; each request that came is a task of `Siblings.answering`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from serverfull.domain.json_functions import dumps, loads
from serverfull.errors import InternalFailure

PATIENCE = 5.0
"""Seconds for an answer: longer than a worker takes to be replaced that has served for a while."""

_WAITING = 1024
"""Requests that the kernel holds for a worker that does not take them yet."""

_MOST_BYTES = 64 << 20
"""Bytes of a request or an answer; an event and its result have seven million at most."""

_NO_ROOM = 0.005
"""Seconds until it is tried again to connect to a worker that has more requests waiting than the kernel holds."""

_ATTEMPTS = 3
"""Times that a question is asked of workers that end before they have answered: it may be what ends them."""

_PIECE = 1 << 18
_CREDENTIALS = struct.Struct("3i")


class SiblingSilent(InternalFailure):
    """A worker did not answer another one.

    :param number: which.
    :param reason: in words.
    """

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"Worker {number} {reason}.")
        self.number = number
        self.reason = f"it {reason}"


def open_doors(count: int) -> list[socket.socket]:
    """Listen for so many workers, at names that the kernel chooses."""
    doors = []
    for _ in range(count):
        door = socket.socket(socket.AF_UNIX)
        door.bind("")
        door.listen(_WAITING)
        door.setblocking(False)
        doors.append(door)
    return doors


class Siblings:
    """A worker among the others.

    :param number: this worker's, and that of its door.
    :param doors: of all workers.
    """

    def __init__(self, number: int, doors: Sequence[socket.socket]) -> None:
        self.number = number
        self._door = doors[number]
        self._addresses = [door.getsockname() for door in doors]
        self._answers: dict[str, Callable[..., Awaitable[Any]]] = {}

    @property
    def count(self) -> int:
        """How many workers there are."""
        return len(self._addresses)

    def offer(self, name: str, answer: Callable[..., Awaitable[Any]]) -> None:
        """Say what answers a question: a function that takes what JSON is made of, and gives that."""
        self._answers[name] = answer

    async def ask(self, number: int, name: str, **arguments: Any) -> Any:
        """Ask a worker, or this one itself; its successor where it ends before it has answered.

        So what is asked may be done twice, which must make no difference.

        :param name: of the question, which the other has offered to answer.
        :param arguments: what JSON is made of.
        :raises SiblingSilent: it did not answer in time; it may have done what it was asked, all the same.
        """
        return await self._asked(number, name, arguments, attempts=_ATTEMPTS)

    async def ask_once(self, number: int, name: str, **arguments: Any) -> Any:
        """Ask a worker something that must not be done twice; as `ask`."""
        return await self._asked(number, name, arguments, attempts=1)

    async def _asked(self, number: int, name: str, arguments: Mapping[str, Any], attempts: int) -> Any:
        if number == self.number:
            return await self._answers[name](**arguments)
        question = dumps({"ask": name, "with": arguments}).encode() + b"\n"
        try:
            async with asyncio.timeout(PATIENCE):
                for _ in range(attempts):
                    if (answer := await self._exchange(number, question)).endswith(b"\n"):
                        break
                else:
                    raise SiblingSilent(number, "has ended before it had answered")
        except TimeoutError:
            raise SiblingSilent(number, f"did not answer within {PATIENCE:g} seconds") from None
        document = loads(answer)
        if "failure" in document:
            raise SiblingSilent(number, f"has failed: {document['failure']}")
        return document["answer"]

    async def _exchange(self, number: int, question: bytes) -> bytes:
        """Ask once; gives what came, which is no whole line where the other has ended."""
        with socket.socket(socket.AF_UNIX) as line, suppress(ConnectionError):
            line.setblocking(False)
            await _connect(line, self._addresses[number])
            await asyncio.get_running_loop().sock_sendall(line, question)
            return await _read(line)
        return b""

    @asynccontextmanager
    async def answering(self, logger: Any) -> AsyncIterator[None]:
        """Answer what other workers ask, until the end of the context.

        :param logger: hears of what should not have happened.
        """
        listening = asyncio.get_running_loop().create_task(self._listen(logger), name="serverfull-siblings")
        try:
            yield
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self, logger: Any) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    line, _ = await loop.sock_accept(self._door)
                except OSError:  # no descriptors, mostly
                    await asyncio.sleep(0.1)
                    continue
                group.create_task(self._answer(line, logger))

    async def _answer(self, line: socket.socket, logger: Any) -> None:
        with line, suppress(OSError, TimeoutError):
            line.setblocking(False)
            if not _is_of_this_user(line):
                return
            async with asyncio.timeout(PATIENCE):
                question = await _read(line, until_newline=True)
            if not question.endswith(b"\n") or _is_gone(line):
                return
            text = dumps(await self._answered(loads(question), logger))
            async with asyncio.timeout(PATIENCE):
                await asyncio.get_running_loop().sock_sendall(line, text.encode() + b"\n")

    async def _answered(self, question: Mapping[str, Any], logger: Any) -> dict[str, Any]:
        try:
            return {"answer": await self._answers[question["ask"]](**question["with"])}
        except InternalFailure as failure:
            return {"failure": failure.message.rstrip(".")}
        except Exception as failure:  # a task's boundary: the others hear of it, and this worker goes on
            logger.exception("question of another worker failed", asked=question.get("ask"))
            return {"failure": f"{type(failure).__name__}: {failure}"}


async def _connect(line: socket.socket, address: Any) -> None:
    """Connect, which the kernel does at once, or not at all while too many wait there."""
    while True:
        try:
            return line.connect(address)
        except BlockingIOError:
            await asyncio.sleep(_NO_ROOM)


async def _read(line: socket.socket, *, until_newline: bool = False) -> bytes:
    """Read to the end of what comes, or of its first line; what is too long counts as cut off."""
    loop = asyncio.get_running_loop()
    pieces, size = [], 0
    while size < _MOST_BYTES and (piece := await loop.sock_recv(line, _PIECE)):
        pieces.append(piece)
        size += len(piece)
        if until_newline and piece.endswith(b"\n"):
            break
    return b"".join(pieces)


def _is_gone(line: socket.socket) -> bool:
    """Say whether whoever asked has stopped waiting: it must not be done then, for nobody would hear of it."""
    try:
        return line.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


def _is_of_this_user(line: socket.socket) -> bool:
    asked = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(asked)[1] == os.geteuid())
