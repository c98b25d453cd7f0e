"""Servers for the tests of the front door, which must not leave errors on the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from serverfull.config import ServerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


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
