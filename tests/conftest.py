"""Real servers and hosts in the test's own process: real sockets, the hardened server, everything but signals.

`listen` starts a server for an application, `start_host` one for a host, with a client; both can be spoken to in bytes.
The tests of what speaks to sockets itself run on both event loops.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import io
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web, web_app

from serverfull.api.app import Dispatcher
from serverfull.api.server import HardenedRunner
from serverfull.application import FRONT, HOST, create_app
from serverfull.config import ServerSettings, Settings
from serverfull.host import Host
from serverfull.interfaces import LogRecord, LogSink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

DEADLINE = 20.0
"""Seconds until a test gives up waiting. Nothing takes that long."""

ON_BOTH_LOOPS = {
    Path(__file__).parent / name
    for name in (
        "api/test_raw_corpus.py",
        "api/test_server.py",
        "runtimes/docker/test_dns.py",
        "runtimes/runtime_api/test_runtime_api.py",
        "runtimes/runtime_api/test_runtime_api_corpus.py",
        "runtimes/test_deadlines.py",
        "runtimes/test_stalls.py",
    )
}


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[..., Any]]:
    """Run the tests of sockets and timers on uvloop too: its own are not asyncio's."""
    factories: dict[str, Callable[..., Any]] = {"asyncio": asyncio.new_event_loop}
    if item.path in ON_BOTH_LOOPS:
        try:
            import uvloop
        except ImportError:
            return factories
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture(autouse=True, scope="module")
def _applications_end_with_their_module() -> Iterator[None]:
    """Have aiohttp forget them: it keeps the last thousand that have a middleware, with all that belongs to a host.

    Every collection of garbage went through all of them, for a quarter of a suite's time.
    """
    yield
    web_app._cached_build_middleware.cache_clear()


class HostLog:
    """Keeps what a host or its server logs about itself, and wakes who waits for a line."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []
        self._loop = asyncio.get_running_loop()
        self._came = asyncio.Event()

    def _add(self, level: str, event: str, fields: dict[str, Any]) -> None:
        self.lines.append((level, event, fields))
        with contextlib.suppress(RuntimeError):  # the test is over, and a thread of its host has something to say
            self._loop.call_soon_threadsafe(self._came.set)

    def debug(self, event: str, **fields: Any) -> None:
        self._add("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._add("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._add("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._add("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        self._add("error", event, fields)

    def events(self) -> list[str]:
        return [f"{level}: {event}" for level, event, _ in self.lines]

    async def wait_for(self, event: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while not any(seen == event for _, seen, _ in self.lines):
                self._came.clear()
                await self._came.wait()


class FunctionLog(LogSink):
    """Keeps what functions print and log."""

    def __init__(self) -> None:
        self.records: list[LogRecord] = []

    def write(self, record: LogRecord) -> None:
        self.records.append(record)

    def text_of(self, request_id: str, kind: str | None = None) -> str:
        records = [r for r in self.records if r.request_id == request_id and kind in (None, r.kind)]
        return "".join(record.text for record in records)


@dataclass(frozen=True)
class Answer:
    """An answer, read to its end; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def request_id(self) -> str:
        return self.headers["x-amzn-requestid"]

    @property
    def error_type(self) -> str | None:
        return self.headers.get("x-amzn-errortype")

    @property
    def function_error(self) -> str | None:
        return self.headers.get("x-amz-function-error")

    def tail_bytes(self) -> bytes:
        return base64.b64decode(self.headers["x-amz-log-result"], validate=True)

    def tail(self) -> str:
        return self.tail_bytes().decode("utf-8")


@dataclass
class Listening:
    """A server on a port of its own, and connections to it."""

    runner: HardenedRunner
    port: int
    log: HostLog
    writers: list[asyncio.StreamWriter] = field(init=False, default_factory=list)

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

    async def close(self) -> None:
        """End the server and the connections at once. Closing twice is fine."""
        for writer in self.writers:
            writer.transport.abort()
        if self.runner.server is not None:
            self.runner.abort()
        await self.runner.cleanup()

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for something that has no event of its own to wait for, such as a counter."""
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110 - there is no event, that is the point
                await asyncio.sleep(0.005)


@dataclass
class Running(Listening):
    """A host that serves, and a client for it."""

    app: web.Application
    output: FunctionLog
    session: aiohttp.ClientSession

    @property
    def host(self) -> Host:
        return self.app[HOST]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def request(
        self, method: str, path: str, body: Any = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        from yarl import URL

        url = URL(self.url + path, encoded=True)
        if isinstance(body, bytes) and len(body) > 100_000:
            body = io.BytesIO(body)
        async with (
            asyncio.timeout(DEADLINE),
            self.session.request(method, url, data=body, headers=dict(headers or {})) as answer,
        ):
            named = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status, named, await answer.read())

    async def invoke(self, name: str, payload: Any = b"", query: str = "", **headers: str) -> Answer:
        """Invoke; ``Log_Type="Tail"`` stands for the header ``X-Amz-Log-Type: Tail``; other values go as JSON."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        named = {f"X-Amz-{key.replace('_', '-')}": value for key, value in headers.items()}
        return await self.request("POST", f"/2015-03-31/functions/{name}/invocations{query}", body, named)

    async def tail(self, name: str, payload: Any = b"") -> Answer:
        return await self.invoke(name, payload, Log_Type="Tail")

    async def close(self) -> None:
        """End the client and the host at once. Closing twice is fine."""
        await self.session.close()
        await super().close()


def settings_with(**groups: Mapping[str, Any]) -> Settings:
    """Make settings: ``limits={"max_concurrency": 3}``. The functions' log goes nowhere unless told so."""
    groups = {**groups, "logging": {"functions": "NULL", **groups.get("logging", {})}}
    made = Settings()
    return dataclasses.replace(made, **{n: dataclasses.replace(getattr(made, n), **v) for n, v in groups.items()})


@pytest.fixture
async def listen() -> AsyncIterator[Callable[..., Any]]:
    """Start servers: ``await listen(app, settings, fast=..., log=...)``. They end with the test."""
    servers: list[Listening] = []

    async def start(
        app: web.Application, settings: ServerSettings, *, fast: Any = None, log: HostLog | None = None
    ) -> Listening:
        log = log or HostLog()
        runner = HardenedRunner(app, settings=settings, logger=log, fast=fast)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        servers.append(Listening(runner, site.port, log))
        return servers[-1]

    yield start
    for server in reversed(servers):
        await server.close()


@pytest.fixture
async def start_host(listen: Callable[..., Any]) -> AsyncIterator[Callable[..., Any]]:
    """Start hosts: ``await start_host({"name": handler}, limits={...})``; ``extend`` gets the application first."""
    running: list[Running] = []

    async def start(
        functions: Any, /, *, extend: Callable[[web.Application], None] | None = None, **groups: Mapping[str, Any]
    ) -> Running:
        log, output = HostLog(), FunctionLog()
        settings = settings_with(**groups)
        app = create_app(functions, settings, logger=log)
        app[HOST].invoker._sink = output
        if extend is not None:
            extend(app)
        server = await listen(app, settings.server, fast=Dispatcher(app[FRONT], app), log=log)
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        running.append(Running(server.runner, server.port, log, app, output, session))
        return running[-1]

    yield start
    for one in reversed(running):
        await one.close()


@contextlib.contextmanager
def own_powerless(folder: Path) -> Iterator[None]:
    """Own a folder in a process that may do only what permissions let it; being root would let it do anything."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, -1)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def powerless() -> Callable[[Path], contextlib.AbstractContextManager[None]]:
    return own_powerless


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that every user reaches."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)
