"""Servers that are spoken to in bytes, for the tests of the front door."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from serverfull.config import ServerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

DEADLINE = 15.0
"""Seconds until a test gives up waiting. Nothing takes that long."""


@dataclass
class RawServer:
    """A running server that is spoken to in bytes; ``server`` is what ``listen`` gave."""

    server: Any
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def runner(self) -> Any:
        return self.server.runner

    @property
    def port(self) -> int:
        return int(self.server.port)

    @property
    def log(self) -> Any:
        return self.server.log

    async def until(self, condition: Callable[[], bool]) -> None:
        await self.server.until(condition)

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


@pytest.fixture
async def raw_server(listen: Callable[..., Any]) -> AsyncIterator[Callable[..., Any]]:
    """Start servers: ``await raw_server(app, fast=..., **settings)``."""
    servers: list[RawServer] = []

    async def start(app: web.Application, *, fast: Any = None, **settings: Any) -> RawServer:
        servers.append(RawServer(await listen(app, ServerSettings(**settings), fast=fast)))
        return servers[-1]

    loop_errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
    yield start
    for server in servers:
        for writer in server.writers:
            writer.transport.abort()
        await server.server.close()
    assert not loop_errors
