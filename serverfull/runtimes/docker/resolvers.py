"""Asks name servers on behalf of others: those that the operator names, or the machine's own of ``/etc/resolv.conf``.

That file is looked at again when it has changed: machines move between networks. Questions go out under numbers and
from ports that nobody can guess.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path

from serverfull.runtimes.docker.dns_messages import MOST_BYTES, Code, Question, code_of, number_of, numbered

RESOLV_CONF = Path("/etc/resolv.conf")

_LOOK_AGAIN = 5.0
"""Seconds between two looks whether the file has changed."""

_ATTEMPTS = 3
_PATIENCE = 1.5
"""Seconds for one attempt. All of them together end before the 5 s after which clients ask again."""

_MOST_SERVERS = 3
"""As the C library."""

_DNS_PORT = 53
_TROUBLED = (Code.SERVER_FAILURE, Code.NOT_IMPLEMENTED, Code.REFUSED)
_random = random.SystemRandom()


class Resolvers:
    """The name servers that are asked.

    :param own: the address of our own server, which is never asked.
    :param named: their addresses; empty: those of the machine.
    :param file: that names the machine's.
    :param port: of theirs.
    """

    def __init__(self, own: str, named: Sequence[str] = (), *, file: Path = RESOLV_CONF, port: int = _DNS_PORT) -> None:
        self._own = own
        self._file = file
        self._port = port
        self._servers: Sequence[str] = named
        self._are_named = bool(named)
        self._read: object = None
        self._look_at = 0.0

    @property
    def servers(self) -> Sequence[str]:
        """The addresses, in the order that they are asked in; a small file is read where it is new."""
        now = time.monotonic()
        if not self._are_named and now >= self._look_at:
            self._look_at = now + _LOOK_AGAIN
            with suppress(OSError):
                found = self._file.stat()
                version = (found.st_mtime_ns, found.st_size, found.st_ino)
                if version != self._read:
                    self._servers = tuple(name_servers(self._file.read_text("utf-8", "replace")))
                    self._read = version
        return tuple(server for server in self._servers if server != self._own)

    async def ask(self, question: Question, *, stream: bool) -> bytes | None:
        """Ask them one after the other; gives the answer under the question's own number, None where there is none.

        :param stream: over TCP, as whoever asks did.
        """
        ask = self._ask_stream if stream else self._ask_datagram
        trouble = None
        for server in islice(cycle(self.servers), _ATTEMPTS):
            number = _random.getrandbits(16)
            with suppress(OSError, EOFError, TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    answer = await ask(server, question, number)
                answer = numbered(answer, number_of(question.message))
                if code_of(answer) not in _TROUBLED:
                    return answer
                trouble = answer
        return trouble

    async def _ask_datagram(self, server: str, question: Question, number: int) -> bytes:
        loop = asyncio.get_running_loop()
        family, kind, _, _, address = socket.getaddrinfo(
            server, self._port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )[0]
        # Not an endpoint of the loop's: uvloop forgets those that are given up while they are made.
        with socket.socket(family, kind) as asking:
            asking.setblocking(False)
            asking.connect(address)  # does not wait, and lets in nobody else's packets
            await loop.sock_sendall(asking, numbered(question.message, number))
            while True:  # until its time is over
                answer = await loop.sock_recv(asking, MOST_BYTES)
                if question.is_answered_by(answer, number):
                    return answer

    async def _ask_stream(self, server: str, question: Question, number: int) -> bytes:
        reader, writer = await asyncio.open_connection(server, self._port)
        try:
            message = numbered(question.message, number)
            writer.write(len(message).to_bytes(2, "big") + message)
            answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        finally:
            writer.close()
        if not question.is_answered_by(answer, number):
            raise EOFError
        return answer


def name_servers(text: str) -> Iterator[str]:
    """Give the first addresses that a ``resolv.conf`` names.

    Linux: https://man7.org/linux/man-pages/man5/resolv.conf.5.html
    """
    named = (line.split()[1:2] for line in text.splitlines() if line.split()[:1] == ["nameserver"])
    return islice((server for words in named for server in words if _is_address(server)), _MOST_SERVERS)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
