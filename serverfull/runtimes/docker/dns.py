"""A name server for containers: what they call this machine has its address; all else the machine's resolvers know.

SDKs put buckets before the host's name: ``bucket.localhost.localstack.cloud``. Docker knows no such wildcard, and
everybody else says that these names are 127.0.0.1, which in a container is the container. So a container is given this
server as its resolver.

It listens on the machine's address in the containers' network alone, and answers nobody who is not in that network.
Everything happens on the host's loop and nothing waits there: what is known is answered at once, and what is not is a
task of the server's own, of which there is a bounded number. It ends with the host.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from serverfull.errors import StartupError
from serverfull.runtimes.docker.dns_messages import Code, NoQuestion, read_question
from serverfull.runtimes.docker.resolvers import Resolvers

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from serverfull.runtimes.docker.dns_messages import Question

PORT = 53
"""There is no way to tell a container another one."""

TTL = 60
"""Seconds that containers may remember this machine's address."""

MOST_ASKED = 256
"""Questions that the machine's resolvers are asked at once."""

MOST_ASKED_OF_ONE = 64
"""Of these, by one container: no function keeps the others from finding names."""

MOST_STREAMS = 128
MOST_STREAMS_OF_ONE = 16
IDLE = 10.0
"""Seconds that a connection may be silent."""

_MOST_QUESTION = 4096
"""Bytes. Real ones have less than 300."""


class NameServer:
    """Answers the containers of one network. Opened and closed on the host's loop.

    :param suffixes: such as ``localhost.localstack.cloud``: these names and all below them are this machine.
    :param address: of this machine in that network.
    :param clients: the addresses of that network.
    :param resolvers: who is asked for all other names; None: those of this machine.
    :param port: other than 53 where nobody needs to be told.
    """

    def __init__(
        self,
        suffixes: Sequence[str],
        address: str,
        clients: str,
        logger: Any,
        *,
        resolvers: Resolvers | None = None,
        port: int = PORT,
    ) -> None:
        self.address = address
        self.port = port
        self._suffixes = tuple(tuple(suffix.lower().encode().split(b".")) for suffix in suffixes)
        self._packed = ipaddress.IPv4Address(address).packed
        self._clients = ipaddress.ip_network(clients)
        self._logger = logger
        self._resolvers = resolvers or Resolvers(address)
        self._asking: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_lost = False
        self._datagrams: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen, over UDP and TCP.

        :raises StartupError: the address cannot be had; the message says what to do.
        """
        sockets: list[socket.socket] = []
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                sockets.append(socket.socket(socket.AF_INET, kind))
                if kind == socket.SOCK_STREAM:  # connections that have just ended do not keep the next host from it
                    sockets[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sockets[-1].setblocking(False)
                sockets[-1].bind((self.address, self.port))
                self.port = sockets[-1].getsockname()[1]
            stream, datagram = sockets
            self._server = await asyncio.start_server(
                self._serve_stream, sock=stream, limit=_MOST_QUESTION, backlog=MOST_STREAMS
            )
            loop = asyncio.get_running_loop()
            self._datagrams, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=datagram)
        except BaseException as wrong:
            for opened in sockets:
                opened.close()
            await self.aclose()
            if isinstance(wrong, OSError):
                raise StartupError(_advice(f"{self.address}:{self.port}", wrong)) from None
            raise

    async def aclose(self) -> None:
        """Listen no more, and give up what is being asked. Closing twice is fine."""
        datagrams, self._datagrams = self._datagrams, None
        if datagrams is not None:
            datagrams.close()
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def take_datagram(self, message: bytes, sender: tuple[str, int], transport: asyncio.DatagramTransport) -> None:
        """Answer a message at once, or have it answered."""
        if not self._knows(sender[0]):
            return
        try:
            question = read_question(message)
        except NoQuestion as wrong:
            if wrong.answer is not None:
                transport.sendto(wrong.answer, sender)
            return
        known = self._known(question, sender[0])
        if known is not None:
            transport.sendto(known, sender)
            return
        self._asking[sender[0]] += 1
        self._spawn(self._answer_datagram(question, sender, transport))

    def _knows(self, address: str) -> bool:
        """Say whether somebody is in the containers' network: packets of others may be routed to this address."""
        return ipaddress.ip_address(address) in self._clients

    def _known(self, question: Question, sender: str) -> bytes | None:
        """Give the answer where nobody has to be asked for it."""
        if question.is_of_internet and any(question.name[-len(suffix) :] == suffix for suffix in self._suffixes):
            return question.answer(self._packed, TTL)
        if question.is_transfer:
            return question.failure(Code.NOT_IMPLEMENTED)
        if self._asking.total() >= MOST_ASKED or self._asking[sender] >= MOST_ASKED_OF_ONE:
            return question.failure(Code.SERVER_FAILURE)
        return None

    async def _answer_datagram(
        self, question: Question, sender: tuple[str, int], transport: asyncio.DatagramTransport
    ) -> None:
        answer = await self._asked(question, sender[0], stream=False)
        transport.sendto(question.fitting(answer), sender)

    async def _asked(self, question: Question, sender: str, *, stream: bool) -> bytes:
        """Have the machine's resolvers answer a question, which has been counted."""
        try:
            answer = await self._resolvers.ask(question, stream=stream)
        finally:
            _count_down(self._asking, sender)
        self._say_whether_lost(answer is None)
        return question.failure(Code.SERVER_FAILURE) if answer is None else answer

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one question after the other."""
        sender = str((writer.get_extra_info("peername") or ("",))[0])
        crowded = self._streams.total() >= MOST_STREAMS or self._streams[sender] >= MOST_STREAMS_OF_ONE
        if crowded or not sender or not self._knows(sender):
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._streams[sender] += 1
        try:
            with suppress(OSError, EOFError, TimeoutError):
                while (answer := await self._next_answer(reader, sender)) is not None:
                    writer.write(len(answer).to_bytes(2, "big") + answer)
                    async with asyncio.timeout(IDLE):
                        await writer.drain()
        finally:
            writer.close()
            _count_down(self._streams, sender)
            self._tasks.discard(task)

    async def _next_answer(self, reader: asyncio.StreamReader, sender: str) -> bytes | None:
        """Read the next question of a connection and give its answer; None: it is not worth going on."""
        async with asyncio.timeout(IDLE):
            length = int.from_bytes(await reader.readexactly(2), "big")
            if length > _MOST_QUESTION:
                return None
            message = await reader.readexactly(length)
        try:
            question = read_question(message)
        except NoQuestion as wrong:
            return wrong.answer
        known = self._known(question, sender)
        if known is not None:
            return known
        self._asking[sender] += 1
        return await self._asked(question, sender, stream=True)

    def _say_whether_lost(self, lost: bool) -> None:
        if lost == self._is_lost:
            return
        self._is_lost = lost
        servers = ", ".join(self._resolvers.servers) or "none"
        if lost:
            self._logger.warning("containers cannot look up names: no resolver answers", resolvers=servers)
        else:
            self._logger.info("containers can look up names again", resolvers=servers)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:  # a task's boundary
            self._logger.error("a container's question was not answered", exc_info=error)


class _Datagrams(asyncio.DatagramProtocol):
    """Gives what arrives over UDP to the server."""

    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Take a message."""
        self._server.take_datagram(data, addr, self._transport)


def _count_down(counter: Counter[str], name: str) -> None:
    counter[name] -= 1
    if not counter[name]:
        del counter[name]


def _advice(address: str, wrong: OSError) -> str:
    said = f"the name server for containers (docker.dns_suffixes) cannot listen on {address}"
    if wrong.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{said}: only root may use such a port. Give the host the capability CAP_NET_BIND_SERVICE, or allow it to "
            f"all with sysctl net.ipv4.ip_unprivileged_port_start={PORT}; or unset docker.dns_suffixes"
        )
    if wrong.errno == errno.EADDRINUSE:
        return (
            f"{said}: another name server has it, or another host. Have that listen on addresses of its own (dnsmasq: "
            "bind-interfaces), or use another docker.network, or unset docker.dns_suffixes"
        )
    if wrong.errno == errno.EADDRNOTAVAIL:
        return (
            f"{said}: this machine has no such address. The engine and its network have to be on this machine; "
            "unset docker.dns_suffixes where they are not"
        )
    return f"{said}: {wrong.strerror or wrong}"
