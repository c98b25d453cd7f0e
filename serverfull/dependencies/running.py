"""Runs an installer: for so long, so much on the disk, and no longer than the host; its last lines are kept.

The process that is started is a `warden`, which kills all that the installer has started when it or the host ends.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from serverfull.domain.json_functions import dumps

_WARDEN = Path(__file__).with_name("warden.py")

_TAIL = 16_384
"""Bytes of output that are kept."""

_LINES, _SHOWN = 20, 2_000
"""Lines and characters of it that are shown."""

_GRACE = 10.0
"""Seconds for killing all that an installer has started."""

_LOOKS = 0.5
"""Seconds between two looks at the disk."""

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\t\n\x20-\x7e\u00a0-\uffff]")
_CREDENTIALS = re.compile(r"(://)[^/@\s]+@")
_SECRET_NAMES = re.compile(r"PASSWORD|TOKEN|SECRET|_AUTH")
_SHORTEST = 4


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be run.

    :param variables: all that it has in its environment.
    :param folder: where.
    :param timeout: seconds.
    :param watched: the folder that all files are in which it makes and does not keep for another time.
    :param most_bytes: that this may have meanwhile, and each file.
    """

    command: Sequence[str]
    variables: Mapping[str, str]
    folder: Path
    watched: Path
    timeout: float
    most_bytes: int


class Failed(Exception):
    """An installer has not done its work.

    :param code: its exit code; None where it was stopped.
    :param why: in words.
    :param output: the last of what it said.
    """

    def __init__(self, code: int | None, why: str, output: str) -> None:
        super().__init__(why)
        self.code = code
        self.why = why
        self.output = output


async def run(work: Work) -> str:
    """Run an installer; gives the last of what it said. When this is cancelled all of it is killed.

    :raises Failed: it says so itself, takes too long or too much.
    :raises OSError: no process can be started.
    """
    order = dumps({"command": list(work.command), "file_bytes": work.most_bytes})
    transport, warden = await asyncio.get_running_loop().subprocess_exec(
        _Warden,
        *(sys.executable, "-I", "-S", str(_WARDEN), order),
        stderr=asyncio.subprocess.STDOUT,
        cwd=work.folder,
        env=dict(work.variables),
    )
    watching = asyncio.create_task(_until_full(work))
    try:
        async with asyncio.timeout(work.timeout):
            done, _ = await asyncio.wait({warden.exited, watching}, return_when=asyncio.FIRST_COMPLETED)
        if warden.exited not in done:
            raise Failed(None, f"took more than {work.most_bytes >> 20} MB of the disk", warden.text())
    except TimeoutError:
        raise Failed(None, f"was not done within {work.timeout:g} s", warden.text()) from None
    finally:
        watching.cancel()
        await _end(transport, warden)
    code = transport.get_returncode()
    if code != 0:
        raise Failed(code, f"failed with exit code {code}", warden.text())
    return warden.text()


class _Warden(asyncio.SubprocessProtocol):
    """Hears of a warden.

    :ivar exited: done when it has ended.
    :ivar closed: done when nothing of it is left to be read either.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self._tail = bytearray()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._tail += data
        del self._tail[:-_TAIL]

    def process_exited(self) -> None:
        self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)

    def text(self) -> str:
        """Give the last of what the installer said."""
        return self._tail.decode("utf-8", "replace")


async def _end(transport: asyncio.SubprocessTransport, warden: _Warden) -> None:
    """Let the warden kill all, and wait for it also where this is cancelled."""
    line = transport.get_pipe_transport(0)
    if line is not None:
        line.close()
    try:
        await asyncio.shield(asyncio.wait([warden.closed], timeout=_GRACE))  # the last of its output comes until then
    finally:
        transport.close()  # kills it, where it has not ended
        await asyncio.shield(asyncio.wait([warden.closed], timeout=_GRACE))


async def _until_full(work: Work) -> None:
    """Wait until the folder has more than it may."""
    while await asyncio.to_thread(size_of, work.watched) <= work.most_bytes:  # noqa: ASYNC110 - disks tell nobody
        await asyncio.sleep(_LOOKS)


def size_of(folder: Path) -> int:
    """Give the bytes of all files below a folder that may change meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118
    return total


def redactor(variables: Mapping[str, str], addresses: Sequence[str]) -> Callable[[str], str]:
    """Give what takes secrets out of an installer's output, and shortens it to its last lines.

    :param variables: its environment: what is called a password or token there is one, and what addresses hold.
    :param addresses: of indexes, as settings have them.
    """
    secrets = {value for name, value in variables.items() if _SECRET_NAMES.search(name.upper())}
    for text in (*variables.values(), *addresses):
        for found in _CREDENTIALS.finditer(text):
            user, _, password = found[0].removeprefix("://").removesuffix("@").partition(":")
            secrets |= {password or user, unquote(password or user)}
    known = sorted((secret for secret in secrets if len(secret) >= _SHORTEST), key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in known:
            text = text.replace(secret, "****")
        text = _CONTROL.sub("", _CREDENTIALS.sub(r"\1****@", text))
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        return "\n".join(lines[-_LINES:])[-_SHOWN:]

    return redact
