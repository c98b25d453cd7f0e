"""Runtime APIs with clients, for tests that speak to them in bytes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.runtimes.runtime_api.api import RuntimeApi, Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

DEADLINE = 20.0
"""Seconds until a test gives up waiting. Nothing takes that long."""

NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: localhost\r\n\r\n"


def work(request_id: str = "id-1", payload: bytes = b'{"n": 1}', **more: Any) -> Work:
    """Make an invocation."""
    values = {"deadline_ms": 1_542_409_706_888, "arn": "arn:aws:lambda:us-east-1:000000000000:function:f"}
    return Work(request_id, payload, **{**values, "trace_id": "Root=1-5bef4de7", **more})


@dataclass(frozen=True)
class Heard:
    """An answer, read to its end; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Line:
    """A connection to a Runtime API."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    async def hear(self) -> Heard:
        """Read one answer."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), DEADLINE)
        first, *lines = head.decode("utf-8").removesuffix("\r\n\r\n").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), "a header is there twice"
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        length = int(headers["content-length"])
        return Heard(int(status), headers, await asyncio.wait_for(self.reader.readexactly(length), DEADLINE))

    async def ask(self, data: bytes) -> Heard:
        """Send a request and read its answer."""
        self.send(data)
        return await self.hear()

    async def ended(self) -> bytes:
        """Read until the other side closes, or resets."""
        try:
            return await asyncio.wait_for(self.reader.read(), DEADLINE)
        except ConnectionError:
            return b""


@dataclass
class Served:
    """A Runtime API with its clients."""

    api: RuntimeApi
    lines: list[Line] = field(default_factory=list)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    async def connect(self) -> Line:
        """Connect; closed at the end of the test at the latest."""
        address = self.api.address
        if address.startswith("/"):
            line = Line(*await asyncio.open_unix_connection(address, limit=1 << 24))
        else:
            host, _, port = address.rpartition(":")
            line = Line(*await asyncio.open_connection(host.strip("[]"), int(port), limit=1 << 24))
        self.lines.append(line)
        return line

    async def polled(self) -> Line:
        """Connect and ask for an invocation; there is none yet."""
        line, before = await self.connect(), len(self.api._polls)
        line.send(NEXT)
        async with asyncio.timeout(DEADLINE):
            while len(self.api._polls) == before:  # noqa: ASYNC110 (nobody is told)
                await asyncio.sleep(0)
        return line

    def run(self, *args: Any, **more: Any) -> asyncio.Task[Any]:
        """Give the runtime an invocation."""
        self.tasks.append(asyncio.create_task(asyncio.wait_for(self.api.run(work(*args, **more)), DEADLINE)))
        return self.tasks[-1]

    async def running(self, *args: Any, **more: Any) -> tuple[Line, asyncio.Task[Any]]:
        """Connect, and get an invocation."""
        line = await self.polled()
        task = self.run(*args, **more)
        assert (await line.hear()).status == 200
        return line, task


@pytest.fixture
async def open_api(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Open Runtime APIs: ``await open_api(...)``; checks that nothing went wrong on the loop and nothing is left."""
    opened: list[Served] = []
    loop_errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))

    async def start(**options: Any) -> Served:
        options.setdefault("socket", tmp_path / f"api{len(opened)}")
        opened.append(Served(await RuntimeApi.open(**options)))
        return opened[-1]

    yield start
    for served in opened:
        await served.api.aclose()
        for line in served.lines:
            line.writer.transport.abort()
        assert not served.api._connections
        await asyncio.gather(*served.tasks, return_exceptions=True)
    await asyncio.sleep(0)
    assert not loop_errors


@pytest.fixture
async def served(open_api: Callable[..., Any]) -> Served:
    """Open the Runtime API of a sandbox on a Unix socket."""
    api: Served = await open_api()
    return api
