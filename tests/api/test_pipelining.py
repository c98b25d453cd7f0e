"""Many requests in one piece on one connection, after whatever has made aiohttp's parser stop for a while."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.helpers import DEFAULT_CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

LIST = b"GET /2015-03-31/functions HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKS_AT_ONCE = DEFAULT_CHUNK_SIZE // 16
"""Chunks of one body after which aiohttp stops reading, until somebody takes some of them."""


def invocation(name: str, event: Any) -> bytes:
    body = json.dumps(event).encode()
    head = f"POST /2015-03-31/functions/{name}/invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


async def echo(event: Any) -> Any:
    return event


def later(event: Any) -> Any:
    return event


@pytest.mark.parametrize("count", [2, 32, 50, 200])
@pytest.mark.parametrize("kind", ["invocations", "lists", "both"])
async def test_all_are_answered_in_order_after_a_request_whose_body_came_behind_its_headers(
    kind: str, count: int, start_host: Callable[..., Any]
) -> None:
    host = await start_host({"echo": echo, "later": later})
    reader, writer = await host.connect()
    first = invocation("echo", "the body")
    writer.write(first[:-4])
    await host.until(lambda: host.runner.hardened.active_total == 1)
    writer.write(first[-4:])
    assert (await host.answer(reader)).endswith(b'"the body"')

    def invoked(number: int) -> bool:
        return kind == "invocations" or (kind == "both" and number % 2 == 1)

    names = ("echo", "later")
    for number in range(count):
        writer.write(invocation(names[number % 3 == 1], number) if invoked(number) else LIST)
    for number in range(count):
        body = (await host.answer(reader)).partition(b"\r\n\r\n")[2]
        assert json.loads(body) == number if invoked(number) else json.loads(body)["Functions"]


@pytest.mark.parametrize("chunks", [CHUNKS_AT_ONCE, CHUNKS_AT_ONCE + 1, CHUNKS_AT_ONCE + 2])
async def test_a_body_is_read_after_one_that_ended_with_the_chunk_at_which_reading_stopped(
    chunks: int, raw_server: Callable[..., Any]
) -> None:
    bodies, go = [], asyncio.Event()

    async def measure(request: web.Request) -> web.StreamResponse:
        bodies.append(request.content)
        await go.wait()
        return web.Response(text=str(len(await request.read())))

    app = web.Application()
    app.router.add_post("/", measure)
    server = await raw_server(app)
    reader, writer = await server.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.write(b"1\r\nx\r\n" * chunks + b"0\r\n\r\n")
    await server.until(lambda: bodies and (bodies[0].is_eof() or bodies[0].total_bytes > CHUNKS_AT_ONCE + 1))
    go.set()
    assert (await server.answer(reader)).endswith(b"\r\n\r\n%d" % chunks)
    for _ in range(3):
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nabcde")
    for _ in range(3):
        assert (await server.answer(reader)).endswith(b"\r\n\r\n5")
