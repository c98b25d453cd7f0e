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
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(_WARDEN), order),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=work.folder,
        env=dict(work.variables),
    )
    tail = bytearray()
    reading = asyncio.create_task(_read(process, tail))
    watching = asyncio.create_task(_until_full(work))
    try:
        async with asyncio.timeout(work.timeout):
            done, _ = await asyncio.wait({reading, watching}, return_when=asyncio.FIRST_COMPLETED)
            if reading not in done:
                raise Failed(None, f"took more than {work.most_bytes >> 20} MB of the disk", _text(tail))
            code = await process.wait()
    except TimeoutError:
        raise Failed(None, f"was not done within {work.timeout:g} s", _text(tail)) from None
    finally:
        await _end(process, reading, watching)
    if code != 0:
        raise Failed(code, f"failed with exit code {code}", _text(tail))
    return _text(tail)


async def _read(process: asyncio.subprocess.Process, tail: bytearray) -> None:
    assert process.stdout is not None
    while piece := await process.stdout.read(65_536):
        tail += piece
        del tail[:-_TAIL]


async def _until_full(work: Work) -> None:
    """Wait until the folder has more than it may."""
    while await asyncio.to_thread(size_of, work.watched) <= work.most_bytes:  # noqa: ASYNC110 - disks tell nobody
        await asyncio.sleep(_LOOKS)


async def _end(process: asyncio.subprocess.Process, *tasks: asyncio.Task[None]) -> None:
    """Let the warden kill all, and wait for it also where this is cancelled."""
    assert process.stdin is not None
    process.stdin.close()
    ending = asyncio.ensure_future(process.wait())
    try:
        await asyncio.shield(asyncio.wait([ending], timeout=_GRACE))
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        for task in tasks:
            task.cancel()
        await asyncio.gather(ending, *tasks, return_exceptions=True)


def size_of(folder: Path) -> int:
    """Give the bytes of all files below a folder that may change meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118
    return total


def _text(tail: bytearray) -> str:
    return tail.decode("utf-8", "replace")


def redactor(variables: Mapping[str, str], addresses: Sequence[str]) -> Callable[[str], str]:
    """Give what takes secrets out of an installer's output, and shortens it to its last lines.

    :param variables: its environment: what is called a password or token there is one, and what addresses hold.
    :param addresses: of indexes, as settings have them.
    """
    secrets = {value for name, value in variables.items() if _SECRET_NAMES.search(name.upper())}
    for text in (*variables.values(), *addresses):
        for found in _CREDENTIALS.finditer(text):
            parts = found[0].removeprefix("://").removesuffix("@").split(":")
            secrets |= {*parts, *map(unquote, parts)}
    known = sorted((secret for secret in secrets if len(secret) >= _SHORTEST), key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in known:
            text = text.replace(secret, "****")
        text = _CONTROL.sub("", _CREDENTIALS.sub(r"\1****@", text))
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        return "\n".join(lines[-_LINES:])[-_SHOWN:]

    return redact
