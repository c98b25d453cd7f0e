"""What a zygote is asked to start, and how what it has started ends."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serverfull.domain.json_functions import dumps
from serverfull.errors import ServerfullError

if TYPE_CHECKING:
    from serverfull.runtimes.process.zygotes import Launched


class LaunchFailed(ServerfullError):
    """A process could not be started; the message says why."""


class NotExecutable(LaunchFailed):
    """The kernel does not execute the program that was ordered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be started.

    :param environment: all variables of the process.
    :param cwd: its folder.
    :param confinement: what ``child/confine.py`` does to it.
    :param command: what is executed; None: the runtime client.
    :param client: what the runtime client is told: ``socket``, ``handler``, ``root`` and ``path``.
    :param source: the snapshot that is copied, and has all else already; None: it is started anew.
    :param held: such a copy waits until its host lets it go on.
    :param log: the descriptor that gets its output; stays the caller's.
    :param channel: of a process that is apart from the network, the descriptor of a socket that brings its host the
        listener of its Runtime API; stays the caller's. -1: it finds that otherwise.
    """

    environment: Mapping[str, str]
    cwd: Path
    confinement: Mapping[str, Any] = field(default_factory=dict)
    command: Sequence[str] | None = None
    client: Mapping[str, Any] | None = None
    source: Launched | None = None
    held: bool = False
    log: int
    channel: int = -1

    @property
    def given(self) -> list[int]:
        """The descriptors that go with it."""
        return [self.log] if self.channel < 0 else [self.log, self.channel]

    def message(self, number: int) -> bytes:
        """Give what the zygote reads of it: nothing that is the function's own, which all others could find there."""
        client, walls = self.client or {}, self.confinement.get("strict")
        fields: dict[str, Any] = {"launch": number, "snapshot": bool(client.get("snapshot"))}
        fields["walls"] = None if walls is None else {"join": walls.get("join", 0)}
        if self.source is not None:
            fields.update({"from": self.source.number, "socket": client["socket"]})
        return dumps(fields).encode()

    def content(self) -> bytes:
        """Give what the started process reads of it."""
        fields: dict[str, Any] = {
            "environment": dict(self.environment),
            "cwd": str(self.cwd),
            "limits": dict(self.confinement),
            "command": None if self.command is None else list(self.command),
            "client": None if self.client is None else dict(self.client),
        }
        if self.source is not None:
            fields["held"] = self.held
        return dumps(fields, default=os.fspath).encode()


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended.

    :param status: as `os.waitpid` gives it.
    :param max_rss_kb: the most memory that it had at one time; 0 where nobody could say.
    """

    status: int
    max_rss_kb: int

    @property
    def why(self) -> str:
        """Why it has ended, as AWS words it; empty for a process that ended with status 0."""
        code = os.waitstatus_to_exitcode(self.status)
        if code >= 0:
            return f"exit status {code}" if code else ""
        name = (signal.strsignal(-code) or f"signal {-code}").lower()
        return f"signal: {name}"


@contextlib.contextmanager
def in_memory(content: bytes) -> Iterator[int]:
    """Put something where whoever gets the descriptor can read it, and nobody else.

    :raises LaunchFailed: there is no room.
    """
    try:
        descriptor = os.memfd_create("order")
    except OSError as error:
        raise LaunchFailed(f"an order cannot be written down: {error.strerror}") from None
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        file.write(content)
        yield descriptor
