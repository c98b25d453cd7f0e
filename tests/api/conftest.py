"""Servers on real sockets for the tests of the front door, on both event loops."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from serverfull.api.server import HardenedRunner
from serverfull.config import ServerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

DEADLINE = 15.0
"""Seconds until a test gives up waiting. Nothing takes that long."""

ON_BOTH_LOOPS = {"test_raw_corpus.py", "test_server.py"}


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[..., Any]]:
    """Run the tests that speak to sockets on uvloop too: its transports are not asyncio's."""
    factories: dict[str, Callable[..., Any]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name in ON_BOTH_LOOPS:
        try:
            import uvloop
        except ImportError:
            return factories
        factories["uvloop"] = uvloop.new_event_loop
    return factories


class RecordingLog:
    """Keeps what the server logs, and wakes who waits for a line."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []
        self._came = asyncio.Event()

    def _add(self, level: str, event: str, fields: dict[str, Any]) -> None:
        self.lines.append((level, event, fields))
        self._came.set()

    def info(self, event: str, **fields: Any) -> None:
        self._add("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._add("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._add("error", event, fields)

    def events(self) -> list[str]:
        return [f"{level}: {event}" for level, event, _ in self.lines]

    async def wait_for(self, event: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while not any(seen == event for _, seen, _ in self.lines):
                self._came.clear()
                await self._came.wait()


@dataclass
class RawServer:
    """A running server that is spoken to in bytes."""

    runner: HardenedRunner
    port: int
    log: RecordingLog
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; the connection is closed at the end of the test at the latest."""
        reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), DEADLINE)
        self.writers.append(writer)
        return reader, writer

    async def send(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Send bytes and read until the server closes."""
        reader, writer = await self.connect()
        writer.write(data)
        if half_close:
            writer.write_eof()
        try:
            return await self.rest(reader)
        finally:
            writer.close()

    async def rest(self, reader: asyncio.StreamReader) -> bytes:
        """Read until the server closes; a reset ends it as well."""
        return await asyncio.wait_for(reader.read(), DEADLINE)

    async def answer(self, reader: asyncio.StreamReader) -> bytes:
        """Read one answer that has a Content-Length."""
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)
        [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return head + await asyncio.wait_for(reader.readexactly(int(length.partition(b":")[2])), DEADLINE)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that has no event of its own to wait for, such as a counter."""
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110 - there is no event, that is the point
                await asyncio.sleep(0.005)


@pytest.fixture
async def raw_server() -> AsyncIterator[Callable[..., Any]]:
    """Start servers: ``await raw_server(app, fast=..., **settings)``."""
    servers: list[RawServer] = []

    async def start(app: web.Application, *, fast: Any = None, **settings: Any) -> RawServer:
        log = RecordingLog()
        runner = HardenedRunner(app, settings=ServerSettings(**settings), logger=log, fast=fast)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        servers.append(RawServer(runner, site.port, log))
        return servers[-1]

    loop_errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
    yield start
    for server in servers:
        for writer in server.writers:
            writer.transport.abort()
        if server.runner.server is not None:
            server.runner.abort()
        await server.runner.cleanup()
    assert not loop_errors
