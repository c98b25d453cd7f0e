"""What the server does about slow, idle, greedy and vanished clients, about failing handlers, and when it drains."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from serverfull.api.server import REQUEST_ID, connection_limit
from serverfull.errors import NotFoundError, ShuttingDown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

SHORT = 0.3
LONG = 30.0
"""Longer than any test may take: what ends within a test's deadline did not wait for this."""

GET = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def error_of(answer: bytes) -> tuple[int, str]:
    """Give status and error type of an answer that must have the shape of AWS's errors."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = [line.partition(b": ") for line in head.split(b"\r\n")[1:]]
    headers = {name.lower(): value for name, _, value in lines}
    assert headers[b"content-type"] == b"application/json", answer
    assert headers[b"x-amzn-requestid"], answer
    document = json.loads(body)
    assert document.get("message") or document.get("Message")
    return int(head.split(b" ")[1]), headers[b"x-amzn-errortype"].decode()


class Site:
    """An application whose slow handler waits until it is told to go on."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.go = asyncio.Event()
        self.finished = asyncio.Event()
        self.app = web.Application(client_max_size=1000)
        add = self.app.router.add_route
        add("GET", "/hello", self.hello)
        add("POST", "/echo", self.echo)
        add("GET", "/slow", self.slow)
        add("GET", "/large", self.large)
        add("GET", "/stream", self.stream)
        add("GET", "/fail/{how}", self.fail)

    async def hello(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="hello")

    async def echo(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=await request.read())

    async def slow(self, request: web.Request) -> web.StreamResponse:
        self.entered.set()
        await self.go.wait()
        self.finished.set()
        return web.Response(text="at last")

    async def large(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * 50_000_000)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"one")
        raise LookupError("in the middle")

    async def fail(self, request: web.Request) -> Any:
        how = request.match_info["how"]
        request[REQUEST_ID] = "id-of-the-request"
        if how == "unexpected":
            raise LookupError("secret")
        if how == "cancelled":
            raise asyncio.CancelledError
        if how == "timeout":
            raise TimeoutError
        if how == "ours":
            raise NotFoundError("f")
        if how == "nothing":
            return None
        if how == "header":
            return web.Response(headers={"X-A": "b\r\nX-Evil: 1"})
        if how == "reason":
            raise web.HTTPConflict(text="a text of the user's")
        if how == "default":
            raise web.HTTPServiceUnavailable
        if how == "redirect":
            raise web.HTTPFound("/hello")
        if how == "connection":
            raise ConnectionResetError("of something behind the handler")
        raise AssertionError(how)


@pytest.fixture
async def site() -> Site:
    return Site()


@pytest.fixture
async def serve(site: Site, raw_server: Callable[..., Any]) -> Callable[..., Any]:
    """Serve the site with settings; the ones that are not named are too long to matter."""

    async def start(**settings: Any) -> Any:
        waits = {"header_timeout": LONG, "body_timeout": LONG, "idle_timeout": LONG, "write_timeout": LONG}
        return await raw_server(site.app, **{**waits, **settings})

    return start


# Slow clients


async def test_a_silent_connection_is_closed_without_a_word(serve: Callable[..., Any]) -> None:
    server = await serve(header_timeout=SHORT)
    assert await server.send(b"") == b""
    assert server.log.lines == []


async def drip(server: Any, beginning: bytes) -> bytes:
    """Send a beginning and then byte after byte, until the server closes; give its answer."""
    reader, writer = await server.connect()

    async def go_on() -> None:
        writer.write(beginning)
        while True:
            writer.write(b"a")
            await asyncio.sleep(0.02)

    dripping = asyncio.ensure_future(go_on())
    answer = await server.rest(reader)
    dripping.cancel()
    return answer


async def test_headers_that_drip_are_answered_408_at_the_deadline_however_long_they_could_drip(
    serve: Callable[..., Any],
) -> None:
    server = await serve(header_timeout=SHORT)
    answer = await drip(server, b"GET /hello HTTP/1.1\r\nX-A: ")
    assert error_of(answer) == (408, "RequestTimeoutException")
    assert server.log.events() == ["warning: request refused"]


async def test_empty_lines_do_not_keep_a_connection_open(serve: Callable[..., Any]) -> None:
    server = await serve(header_timeout=SHORT)
    assert error_of(await server.send(b"\r\n" * 20))[0] == 408


async def test_headers_that_begin_after_an_answer_have_the_header_deadline_and_not_the_idle_one(
    serve: Callable[..., Any],
) -> None:
    server = await serve(header_timeout=SHORT)
    reader, writer = await server.connect()
    writer.write(GET)
    await server.answer(reader)
    writer.write(b"GET /hello HT")
    assert error_of(await server.rest(reader))[0] == 408


async def test_headers_that_begin_while_an_answer_is_made_have_the_header_deadline_after_it(
    site: Site, serve: Callable[..., Any]
) -> None:
    server = await serve(header_timeout=SHORT)
    reader, writer = await server.connect()
    writer.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await site.entered.wait()
    writer.write(b"GET /hello HT")
    await asyncio.sleep(0)
    site.go.set()
    assert body_of(await server.answer(reader)) == b"at last"
    assert error_of(await server.rest(reader))[0] == 408


async def test_a_body_that_drips_is_answered_408(serve: Callable[..., Any]) -> None:
    server = await serve(body_timeout=SHORT)
    answer = await drip(server, b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n")
    assert error_of(answer) == (408, "RequestTimeoutException")
    assert server.log.events() == ["warning: request refused"]


async def test_a_large_body_on_a_slow_link_has_the_time_that_its_size_takes(serve: Callable[..., Any]) -> None:
    server = await serve(body_timeout=0.05, body_min_rate=10)
    reader, writer = await server.connect()
    # What came with the headers gives it 90 seconds more.
    writer.write(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 901\r\n\r\n" + b"a" * 900)
    await asyncio.sleep(0.3)
    writer.write(b"b")
    assert body_of(await server.answer(reader)) == b"a" * 900 + b"b"
    assert server.log.lines == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_stays_under_the_least_rate_is_answered_408(serve: Callable[..., Any], chunked: bool) -> None:
    server = await serve(body_timeout=0.1, body_min_rate=100)
    reader, writer = await server.connect()
    framing, data = (b"Transfer-Encoding: chunked", b"1\r\na\r\n") if chunked else (b"Content-Length: 900", b"a")
    writer.write(b"POST /echo HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n\r\n" + data)

    async def drip() -> None:
        while True:
            await asyncio.sleep(0.02)  # half of what is asked for, or less
            writer.write(data)

    dripping = asyncio.ensure_future(drip())
    answer = await server.rest(reader)
    dripping.cancel()
    assert error_of(answer) == (408, "RequestTimeoutException")


async def test_the_body_deadline_does_not_count_the_time_of_the_handler(site: Site, serve: Callable[..., Any]) -> None:
    server = await serve(body_timeout=0.05, header_timeout=0.05)
    reader, writer = await server.connect()
    writer.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n")
    await site.entered.wait()
    writer.write(b"hi")
    await asyncio.sleep(0.2)
    site.go.set()
    assert body_of(await server.answer(reader)) == b"at last"


async def test_an_idle_connection_is_closed_at_the_idle_deadline(serve: Callable[..., Any]) -> None:
    server = await serve(idle_timeout=SHORT)
    reader, writer = await server.connect()
    writer.write(GET)
    assert body_of(await server.answer(reader)) == b"hello"
    assert await server.rest(reader) == b""
    assert server.log.lines == []


async def test_a_client_that_does_not_read_its_answer_is_cut_off(serve: Callable[..., Any]) -> None:
    server = await serve(write_timeout=SHORT)
    _, writer = await server.connect()
    writer.transport.pause_reading()
    writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await server.log.wait_for("connection aborted")
    await server.until(lambda: server.runner.hardened.connections_active == 0)
    assert server.log.events() == ["warning: connection aborted"]


async def test_a_large_answer_reaches_a_client_that_reads(serve: Callable[..., Any]) -> None:
    server = await serve(write_timeout=10 * SHORT)  # a machine may be too busy to read anything for a while
    answer = await server.send(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert len(body_of(answer)) == 50_000_000
    assert server.log.lines == []


async def test_good_clients_are_served_while_slow_ones_hang_on(serve: Callable[..., Any]) -> None:
    server = await serve()
    for _ in range(50):
        _, writer = await server.connect()
        writer.write(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\na")
        _, writer = await server.connect()
        writer.write(b"GET /hello HT")
    assert body_of(await server.send(LAST)) == b"hello"


# How many connections


async def test_when_full_the_connection_that_is_idle_for_longest_makes_room(serve: Callable[..., Any]) -> None:
    server = await serve(max_connections=3)
    clients = [await server.connect() for _ in range(3)]
    for reader, writer in (clients[1], clients[0], clients[2]):
        writer.write(GET)
        await server.answer(reader)
    assert body_of(await server.send(LAST)) == b"hello"
    assert await server.rest(clients[1][0]) == b""
    for reader, writer in (clients[0], clients[2]):
        writer.write(GET)
        assert body_of(await server.answer(reader)) == b"hello"
    assert server.runner.hardened.evicted_total == 1


async def test_when_full_of_busy_connections_new_ones_are_refused_with_one_log_line(
    site: Site, serve: Callable[..., Any]
) -> None:
    server = await serve(max_connections=1)
    reader, writer = await server.connect()
    writer.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await site.entered.wait()
    for _ in range(5):
        other, _ = await server.connect()
        with pytest.raises(ConnectionResetError):
            await server.rest(other)
    assert server.log.events() == ["warning: connection refused"]
    assert server.runner.hardened.refused_total == 5
    site.go.set()
    assert body_of(await server.answer(reader)) == b"at last"


async def test_one_client_cannot_take_all_connections(serve: Callable[..., Any]) -> None:
    server = await serve(max_connections_per_client=2)
    first, second = await server.connect(), await server.connect()
    third, _ = await server.connect()
    with pytest.raises(ConnectionResetError):
        await server.rest(third)
    first[1].close()
    await server.until(lambda: server.runner.hardened.closed_total == 1)
    assert body_of(await server.send(LAST)) == b"hello"
    second[1].close()
    await server.until(lambda: server.runner.hardened.closed_total == 3)
    assert server.runner.hardened._clients == {}


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    yield 128
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_descriptors_are_left_for_the_functions(few_descriptors: int, serve: Callable[..., Any]) -> None:
    assert connection_limit(8192) == 96
    assert connection_limit(10) == 10
    server = await serve()
    assert server.runner.hardened.limit == 96
    assert server.log.events() == ["info: max_connections lowered"]


async def test_without_descriptors_accepting_pauses_with_one_line_and_goes_on_afterwards(
    few_descriptors: int, serve: Callable[..., Any]
) -> None:
    server = await serve()
    reader, writer = await server.connect()
    client = socket.socket()
    client.setblocking(False)
    taken: list[int] = []
    try:
        with suppress(OSError):
            while len(taken) < few_descriptors:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        assert len(taken) < few_descriptors
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", server.port))
        if type(asyncio.get_running_loop()).__module__.startswith("asyncio"):
            await server.log.wait_for("accept paused")
            assert server.log.events().count("warning: accept paused") == 1
        writer.write(GET)
        assert body_of(await server.answer(reader)) == b"hello"
    finally:
        client.close()
        for descriptor in taken:
            os.close(descriptor)
    assert body_of(await server.send(LAST)) == b"hello"


async def test_counters_tell_new_active_idle_and_closed_connections(site: Site, serve: Callable[..., Any]) -> None:
    server = await serve()
    hardened = server.runner.hardened

    def figures() -> tuple[int, int, int, int]:
        return (
            hardened.connections_new,
            hardened.connections_active,
            hardened.connections_idle,
            hardened.connections_hijacked,
        )

    silent = await server.connect()
    reader, writer = await server.connect()
    await server.until(lambda: hardened.accepted_total == 2)
    assert figures() == (2, 0, 0, 0)
    writer.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await site.entered.wait()
    assert figures() == (1, 1, 0, 0)
    site.go.set()
    await server.answer(reader)
    assert figures() == (1, 0, 1, 0)
    silent[1].close()
    writer.close()
    await server.until(lambda: hardened.closed_total == 2)
    assert figures() == (0, 0, 0, 0)
    assert not hardened._clients


async def test_a_websocket_counts_as_hijacked_and_has_no_deadlines(raw_server: Callable[..., Any]) -> None:
    async def talk(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/ws", talk)
    server = await raw_server(app, header_timeout=0.05, body_timeout=0.05, idle_timeout=0.05)
    from aiohttp import ClientSession

    async with ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{server.port}/ws") as socket:
        await asyncio.sleep(0.2)
        await socket.send_str("hi")
        assert (await socket.receive()).data == "hi"
        assert server.runner.hardened.connections_hijacked == 1
        assert server.runner.hardened.connections_active == 0


# Handlers


@pytest.mark.parametrize("how", ["unexpected", "cancelled", "timeout", "nothing", "header", "connection"])
async def test_a_failing_handler_is_answered_500_and_logged_once_with_its_exception(
    how: str, serve: Callable[..., Any]
) -> None:
    server = await serve()
    reader, writer = await server.connect()
    writer.write(b"GET /fail/%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % how.encode())
    answer = await server.answer(reader)
    assert error_of(answer) == (500, "ServiceException")
    assert b"x-amzn-RequestId: id-of-the-request\r\n" in answer
    assert b"secret" not in answer
    assert b"Evil" not in answer
    [(level, event, fields)] = server.log.lines
    assert (level, event, fields["request_id"]) == ("error", "request failed", "id-of-the-request")
    assert isinstance(fields["exc_info"], BaseException)
    writer.write(GET)
    assert body_of(await server.answer(reader)) == b"hello"


async def test_errors_of_ours_and_of_aiohttp_are_aws_shaped_but_those_with_a_users_text_are_kept(
    serve: Callable[..., Any],
) -> None:
    server = await serve()
    get = b"GET /fail/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert error_of(await server.send(get % b"ours")) == (404, "ResourceNotFoundException")
    assert error_of(await server.send(get % b"default")) == (503, "ServiceException")
    conflict = await server.send(get % b"reason")
    assert conflict.startswith(b"HTTP/1.1 409 ")
    assert body_of(conflict) == b"a text of the user's"
    redirect = await server.send(get % b"redirect")
    assert redirect.startswith(b"HTTP/1.1 302 ")
    assert b"\r\nLocation: /hello\r\n" in redirect
    unknown = await server.send(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert error_of(unknown) == (404, "UnknownOperationException")
    wrong = await server.send(b"PUT /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert error_of(wrong) == (405, "MethodNotAllowedException")
    assert b"Allow: GET,HEAD\r\n" in wrong or b"Allow: GET\r\n" in wrong or b"Allow: GET, HEAD\r\n" in wrong
    assert server.log.lines == []


async def test_an_answer_that_breaks_off_is_reset_so_that_no_client_takes_it_for_whole(
    serve: Callable[..., Any],
) -> None:
    server = await serve()
    reader, writer = await server.connect()
    writer.write(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await server.rest(reader)
    assert server.log.events() == ["error: request failed"]


async def test_every_answer_has_a_request_id_and_names_no_software(serve: Callable[..., Any]) -> None:
    server = await serve()
    answer = await server.send(LAST)
    assert b"\r\nServer:" not in answer
    assert b"\r\nx-amzn-RequestId: " in answer


async def test_a_server_header_of_the_users_own_is_kept(raw_server: Callable[..., Any]) -> None:
    async def hello(request: web.Request) -> web.StreamResponse:
        return web.Response(headers={"Server": "mine", "x-amzn-RequestId": "mine too"})

    app = web.Application()
    app.router.add_get("/hello", hello)
    answer = await (await raw_server(app)).send(LAST)
    assert b"\r\nServer: mine\r\n" in answer
    assert answer.count(b"mine too") == 1


async def test_a_client_that_leaves_makes_no_noise_and_its_handler_ends_as_it_would_have(
    site: Site, serve: Callable[..., Any]
) -> None:
    server = await serve()
    _, writer = await server.connect()
    writer.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await site.entered.wait()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await server.until(lambda: server.runner.hardened.closed_total == 1)
    site.go.set()
    await asyncio.wait_for(site.finished.wait(), LONG)
    _, writer = await server.connect()
    writer.write(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhi")
    await server.until(lambda: server.runner.hardened.connections_active == 1)
    writer.transport.abort()
    await server.until(lambda: server.runner.hardened.closed_total == 2)
    assert body_of(await server.send(LAST)) == b"hello"
    assert server.log.lines == []


async def test_a_client_that_only_ends_its_sending_half_gets_its_answers(site: Site, serve: Callable[..., Any]) -> None:
    server = await serve()
    answers = await server.send(GET + GET, half_close=True)
    assert answers.count(b"HTTP/1.1 200 OK") == 2


async def test_100_continue_is_sent_once_and_only_for_a_body_that_fits(serve: Callable[..., Any]) -> None:
    server = await serve()
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    reader, writer = await server.connect()
    writer.write(head % 2)
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LONG) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hi")
    answer = await server.answer(reader)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert body_of(answer) == b"hi"
    reader, writer = await server.connect()
    writer.write(head % 2000)
    writer.write(b"x" * 2000)
    assert error_of(await server.answer(reader))[0] == 413


# The end


@pytest.fixture
async def draining(site: Site, raw_server: Callable[..., Any]) -> AsyncIterator[Any]:
    """A server whose dispatcher answers 503 once it drains, as the host's does."""

    async def fast(request: web.Request) -> web.StreamResponse:
        if server.runner.hardened.draining:
            raise ShuttingDown
        return await site.app._handle(request)

    server = await raw_server(site.app, fast=fast)
    return server


async def test_a_drain_finishes_calls_in_flight_and_tells_new_ones_to_go_elsewhere(site: Site, draining: Any) -> None:
    idle, idle_writer = await draining.connect()
    idle_writer.write(GET)
    await draining.answer(idle)
    opened, opened_writer = await draining.connect()
    busy, busy_writer = await draining.connect()
    busy_writer.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await site.entered.wait()

    draining.runner.drain()
    waiting = asyncio.ensure_future(draining.runner.drained(LONG))

    assert await draining.rest(idle) == b""
    opened_writer.write(GET)
    for answer in (await draining.rest(opened), await draining.send(GET)):
        assert error_of(answer) == (503, "ServiceException")
        assert b"\r\nRetry-After: " in answer
        assert b"\r\nConnection: close\r\n" in answer
    assert not waiting.done()
    site.go.set()
    answer = await draining.rest(busy)
    assert body_of(answer) == b"at last"
    assert b"\r\nConnection: close\r\n" in answer
    assert await waiting is True
    with pytest.raises(ConnectionRefusedError):
        await draining.connect()
    await draining.runner.cleanup()
    assert draining.log.lines == []


async def test_a_drain_with_nothing_to_wait_for_ends_at_once(draining: Any) -> None:
    draining.runner.drain()
    assert await draining.runner.drained(LONG) is True


async def test_a_drain_gives_up_at_its_timeout(site: Site, draining: Any) -> None:
    busy, writer = await draining.connect()
    writer.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await site.entered.wait()
    draining.runner.drain()
    assert await draining.runner.drained(0.05) is False
    await draining.runner.cleanup()
    assert await draining.rest(busy) == b""
    assert not site.finished.is_set()


async def test_an_abort_cuts_calls_in_flight_off_and_ends_the_drain(site: Site, draining: Any) -> None:
    busy, writer = await draining.connect()
    writer.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await site.entered.wait()
    draining.runner.drain()
    waiting = asyncio.ensure_future(draining.runner.drained(LONG))
    await asyncio.sleep(0)
    draining.runner.abort()
    assert await waiting is True
    with pytest.raises(ConnectionResetError):
        await draining.rest(busy)
    await draining.runner.cleanup()
    assert draining.log.lines == []


async def test_no_descriptor_is_left_behind(serve: Callable[..., Any]) -> None:
    server = await serve(header_timeout=SHORT)
    assert body_of(await server.send(LAST)) == b"hello"
    before = len(os.listdir("/proc/self/fd"))
    for data in (LAST, b"GARBAGE\r\n\r\n", b"", b"GET /he"):
        await server.send(data)
    await server.until(lambda: len(os.listdir("/proc/self/fd")) <= before)
