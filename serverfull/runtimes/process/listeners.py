"""Tells whose a port is on which something listens: telemetry goes to nobody but the sandbox that asked for it.

A sandbox names a port of loopback, which it shares with all that runs on the machine. What the host would send there is
in part what the function wrote, so a port of another program must not be named by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_LISTENS = "0A"
_LOOPBACK = "0100007F"
_ANY = {"00000000", "0" * 32, "0" * 24 + "01000000"}


def listens(pids: Iterable[int], port: int) -> bool:
    """Say whether one of these processes listens on that port of 127.0.0.1. Looks into /proc, which takes some ms.

    :param pids: of one sandbox; those that have ended do not matter.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    return bool(sockets) and any(not sockets.isdisjoint(_descriptors(pid)) for pid in pids)


def _listening(port: int) -> Iterator[str]:
    """Give the numbers of the sockets that connections to that port could come to."""
    suffix = f":{port:04X}"
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                address, state, inode = fields[1], fields[3], fields[9]
                host = address.removesuffix(suffix)
                if state == _LISTENS and host != address and (host == _LOOPBACK or host in _ANY):
                    yield inode


def _descriptors(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                yield str(entry.readlink())
