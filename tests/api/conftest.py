"""Servers for the tests of the front door, which must neither log errors nor leave any on the event loop."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from serverfull.api.server import HardenedRunner
from serverfull.config import ServerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class StrictLog:
    """Fails the test that makes a server log an error."""

    def info(self, event: str, **fields: Any) -> None: ...

    def warning(self, event: str, **fields: Any) -> None: ...

    def error(self, event: str, **fields: Any) -> None:
        pytest.fail(f"{event} {fields}")


@pytest.fixture
def strict_log() -> StrictLog:
    return StrictLog()


@pytest.fixture(params=["hardened", "plain"])
async def serve_app(request: pytest.FixtureRequest, strict_log: StrictLog) -> AsyncIterator[Callable[..., Any]]:
    """Serve applications on the host's own server, and on a plain one: ``url = await serve_app(app)``."""
    runners: list[web.BaseRunner[Any]] = []

    async def start(app: web.Application, address: str = "127.0.0.1") -> str:
        hardened = request.param == "hardened"
        settings = ServerSettings()
        runner = HardenedRunner(app, settings=settings, logger=strict_log) if hardened else web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, address, 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
def own_address() -> str:
    """Give an address of this machine that is not loopback; skip the test where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address = str(probe.getsockname()[0])
        except OSError:
            address = "127.0.0.1"
    if address.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    return address


@pytest.fixture
async def raw_server(listen: Callable[..., Any]) -> AsyncIterator[Callable[..., Any]]:
    """Start servers: ``await raw_server(app, fast=..., **settings)``."""
    servers: list[Any] = []

    async def start(app: web.Application, *, fast: Any = None, **settings: Any) -> Any:
        servers.append(await listen(app, ServerSettings(**settings), fast=fast))
        return servers[-1]

    loop_errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
    yield start
    for server in servers:
        await server.close()
    assert not loop_errors
