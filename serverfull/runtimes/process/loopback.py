"""The loopback of a sandbox that shares the machine's network: an address of its own, and whose a port on it is.

Two environments of one function run the same extension, which listens on the port that it always does. So AWS's names
for the loopback stand for another address of the machine's in each of them. An extension that listens on these names is
in nobody's way; one that listens on ``localhost``, or on all addresses, is.

A sandbox names a port, and what the host would send there is in part what the function wrote: a port of another program
must not be named by it.
"""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from serverfull.runtimes.runtime_api.extension_messages import SANDBOX_NAMES

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Callable, Iterable, Iterator, Sequence

_HOSTS = Path("/etc/hosts")
_USUAL = "127.0.0.1"
_LISTENS = "0A"
_ANY = {"00000000", "0" * 32, "0" * 24 + "01000000"}


class Loopback:
    """That of one sandbox.

    :ivar address: its own.
    """

    def __init__(self) -> None:
        numbers = random.choices(range(1, 255), k=3)  # noqa: S311 - they are no secret
        self.address = ".".join(map(str, (127, *numbers)))

    @property
    def line(self) -> str | None:
        """The last line of what the sandbox sees as ``/etc/hosts``; None: the machine has no such file."""
        return f"{self.address} {' '.join(SANDBOX_NAMES)}" if _HOSTS.is_file() else None

    async def connect(self, port: int, members: Callable[[], Iterable[int]]) -> tuple[StreamReader, StreamWriter]:
        """Connect to a port on which one of its processes listens.

        :param members: gives them; called on a thread.
        :raises OSError: none does.
        """
        address = await asyncio.to_thread(lambda: listening(members(), port, (self.address, _USUAL)))
        if address is None:
            raise ConnectionRefusedError(f"nothing in the environment listens on port {port}")
        return await asyncio.open_connection(address, port)


def listening(pids: Iterable[int], port: int, addresses: Sequence[str]) -> str | None:
    """Give the first of these addresses on which one of these processes listens. Looks into /proc: it takes some ms.

    :param pids: of one sandbox; those that have ended do not matter.
    """
    found = list(_listening(port))
    if not found:
        return None
    theirs = {descriptor for pid in pids for descriptor in _descriptors(pid)}
    for address in addresses:
        hosts = {socket.inet_aton(address)[::-1].hex().upper(), *_ANY}
        if any(host in hosts and f"socket:[{inode}]" in theirs for host, inode in found):
            return address
    return None


def _listening(port: int) -> Iterator[tuple[str, str]]:
    """Give the addresses and the numbers of the sockets that listen on that port."""
    suffix = f":{port:04X}"
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                address, state, inode = fields[1], fields[3], fields[9]
                if state == _LISTENS and address.endswith(suffix):
                    yield address.removesuffix(suffix), inode


def _descriptors(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                yield str(entry.readlink())
