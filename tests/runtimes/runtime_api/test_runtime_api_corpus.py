"""Bytes that a function's process may make up, sent over real sockets: what comes back, and that the rest goes on.

Each case is answered by one JSON document, or by none where nothing can be said, on a connection that is then closed;
nothing goes wrong on the loop; and the runtime beside it gets its invocation and answers it.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.runtimes.runtime_api import connection as connections
from serverfull.runtimes.runtime_api import http
from serverfull.runtimes.runtime_api.http import CHUNKS_AT_ONCE, RequestReader

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE = 20.0
CHUNKED = b"Transfer-Encoding: chunked"
LIMIT = 1_000
PING = b"GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\n\r\n"


def post(*headers: bytes, body: bytes = b"", method: bytes = b"POST", target: bytes = b"/2018-06-01/x") -> bytes:
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: localhost", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


REFUSED = {
    "content-length and chunked": (400, post(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\nGET ")),
    "chunked and content-length": (400, post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n")),
    "two lengths": (400, post(b"Content-Length: 1", b"Content-Length: 2", body=b"ab")),
    "the same length twice": (400, post(b"Content-Length: 2", b"Content-Length: 2", body=b"ab")),
    "list of lengths": (400, post(b"Content-Length: 2, 2", body=b"ab")),
    "signed length": (400, post(b"Content-Length: +2", body=b"ab")),
    "negative length": (400, post(b"Content-Length: -1")),
    "hexadecimal length": (400, post(b"Content-Length: 0x2", body=b"ab")),
    "length with an underscore": (400, post(b"Content-Length: 1_0", body=b"ab")),
    "length in digits of Latin 1": (400, post(b"Content-Length: \xb2", body=b"ab")),
    "length beyond 64 bits": (400, post(b"Content-Length: 99999999999999999999999")),
    "empty length": (400, post(b"Content-Length: ")),
    "length over the limit": (413, post(b"Content-Length: 1001")),
    "gzip, chunked": (501, post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
    "two transfer codings": (400, post(CHUNKED, CHUNKED, body=b"0\r\n\r\n")),
    "chunked misspelt": (501, post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n")),
    "chunked in HTTP/1.0": (400, b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "space before colon": (400, post(b"Content-Length : 2", body=b"ab")),
    "chunk size is no number": (400, post(CHUNKED, body=b"zz\r\nhi\r\n0\r\n\r\n")),
    "negative chunk size": (400, post(CHUNKED, body=b"-1\r\nhi\r\n0\r\n\r\n")),
    "chunk size with 0x": (400, post(CHUNKED, body=b"0x2\r\nhi\r\n0\r\n\r\n")),
    "chunk size with an underscore": (400, post(CHUNKED, body=b"1_0\r\nhi\r\n0\r\n\r\n")),
    "chunk size beyond 64 bits": (400, post(CHUNKED, body=b"fffffffffffffffff\r\nhi")),
    "chunk over the limit": (413, post(CHUNKED, body=b"ffffffff\r\nhi")),
    "chunks over the limit": (413, post(CHUNKED, body=b"1f4\r\n" + b"x" * 500 + b"\r\n1f5\r\n")),
    "chunk longer than said": (400, post(CHUNKED, body=b"2\r\nhixx\r\n0\r\n\r\n")),
    "chunk extension without end": (400, post(CHUNKED, body=b"2;" + b"a" * 9_000)),
    "chunk extension with a control byte": (400, post(CHUNKED, body=b"2;\x00\r\nhi\r\n0\r\n\r\n")),
    "bare line feed after a chunk size": (400, post(CHUNKED, body=b"2\nhi\r\n0\r\n\r\n")),
    "empty chunk size": (400, post(CHUNKED, body=b"\r\nhi\r\n0\r\n\r\n")),
    "malformed trailer": (400, post(CHUNKED, body=b"0\r\nno colon\r\n\r\n")),
    "trailer of 9 KB": (431, post(CHUNKED, body=b"0\r\nX: " + b"a" * 9_000 + b"\r\n\r\n")),
    "101 trailers": (431, post(CHUNKED, body=b"0\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(101)) + b"\r\n")),
    "bare line feeds": (400, b"GET /x HTTP/1.1\nHost: localhost\n\n"),
    "bare line feed after one header": (400, b"GET /x HTTP/1.1\r\nHost: localhost\r\nX: y\nZ: a\r\n\r\n"),
    "bare carriage return": (400, b"GET /x HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n"),
    "folded header": (400, post(b"X-A: b\r\n c")),
    "space before the first header": (400, b"GET /x HTTP/1.1\r\n Host: localhost\r\n\r\n"),
    "NUL in a value": (400, post(b"X-A: b\x00c")),
    "NUL in a name": (400, post(b"X-\x00A: b")),
    "NUL in the target": (400, post(target=b"/x\x00")),
    "header without colon": (400, post(b"X-A")),
    "header without name": (400, post(b": b")),
    "header name that is not ASCII": (400, post("X-Ä: b".encode())),
    "only NULs": (400, b"\x00" * 64 + b"\r\n\r\n"),
    "random bytes": (400, bytes(range(128, 256)) + b"\r\n\r\n"),
    "TLS hello": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x07" * 100 + b"\n"),
    "SSH": (400, b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "empty lines": (400, b"\r\n\r\n"),
    "no host": (400, b"GET /x HTTP/1.1\r\n\r\n"),
    "two hosts": (400, post(b"Host: evil.com")),
    "two content types": (400, post(b"Content-Type: a/b", b"Content-Type: c/d")),
    "method in lower case": (400, post(method=b"post")),
    "method of a kilobyte": (400, post(method=b"P" * 1_000)),
    "HTTP/0.9": (400, b"GET /x\r\n\r\n"),
    "HTTP/1.2": (505, b"GET /x HTTP/1.2\r\nHost: localhost\r\n\r\n"),
    "HTTP/2 preface": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/2.0": (505, b"GET /x HTTP/2.0\r\nHost: localhost\r\n\r\n"),
    "words after the version": (400, b"GET /x HTTP/1.1 x\r\nHost: localhost\r\n\r\n"),
    "two blanks in the request line": (400, b"GET  /x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "target without slash": (400, post(target=b"x")),
    "absolute target": (400, post(target=b"http://localhost/x")),
    "target with a raw byte": (400, post(target=b"/ech\xf6")),
    "target of 9 KB": (414, post(target=b"/" + b"a" * 9_000)),
    "header of 9 KB": (431, post(b"X-A: " + b"a" * 9_000)),
    "header name of 9 KB": (431, post(b"a" * 9_000 + b": b")),
    "101 headers": (431, post(*[b"X-%d: y" % number for number in range(100)])),
    "a megabyte of headers": (431, post(*[b"X-%d: %s" % (n, b"y" * 7_000) for n in range(200)])),
    "headers without end": (431, b"GET /x HTTP/1.1\r\n" + b"X: y\r\n" * 200_000),
    "a line without end": (431, b"G" * 1_200_000),
    "expectation that nobody meets": (417, post(b"Expect: 200-ok", b"Content-Length: 2", body=b"hi")),
    "garbage behind a request": (400, PING + b"GARBAGE\r\n\r\n"),
    "a length that is too short": (400, post(b"Content-Length: 2", body=b"hi and more than that\r\n\r\n")),
}

SERVED = {
    "chunk sizes of several forms": post(
        CHUNKED, body=b'002;a="b"\r\nhi\r\nA\t\r\n0123456789\r\n0;x\r\nX-T: 1\r\n\r\n'
    ),
    "chunks of one byte": post(CHUNKED, body=b"1\r\na\r\n" * 999 + b"0\r\n\r\n"),
    "chunked in capitals": post(b"transfer-encoding: CHUNKED", body=b"2\r\nhi\r\n0\r\n\r\n"),
    "a value with the bytes of Latin 1": post(b"X-A: \xe4"),
    "99 headers": post(*[b"X-%d: y" % number for number in range(99)]),
    "a header without value": post(b"X-A:"),
    "the same header twice": post(b"Trailer: a", b"Trailer: b"),
    "encoded dots and NUL": post(target=b"/..%2f..%2fetc%2fpasswd%00?x=y"),
    "a body of a GET": post(b"Content-Length: 2", body=b"hi", method=b"GET"),
    "HTTP/1.0 kept alive": b"POST /x HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
    "upgrade": post(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
    "a cause for X-Ray of a megabyte": post(b"lambda-Runtime-Function-XRay-Error-Cause: " + b"x" * 1_048_000),
}


@pytest.fixture
async def busy(open_api: Callable[..., Any]) -> Any:
    """Open a Runtime API with a small limit and a runtime that waits for work beside the hostile connection."""
    served = await open_api(limit=LIMIT)
    runtime = await served.polled()
    yield served
    task = served.run("id-1")
    assert (await runtime.hear()).status == 200
    answer = b"POST /2018-06-01/runtime/invocation/id-1/response HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1"
    assert (await runtime.ask(answer)).status == 202
    assert (await task).payload == b"1"


def last_answer(data: bytes) -> tuple[int, dict[str, str], Any]:
    *_, last = re.finditer(rb"HTTP/1\.1 [0-9]{3} ", data)
    head, _, body = data[last.start() :].partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert len(body) == int(headers["content-length"])
    return int(first.split(" ")[1]), headers, json.loads(body)


@pytest.mark.parametrize("name", REFUSED)
async def test_malformed_requests_are_answered_once_and_the_connection_is_closed(busy: Any, name: str) -> None:
    status, data = REFUSED[name]
    line = await busy.connect()
    line.send(data)
    heard, headers, document = last_answer(await line.ended())
    assert heard == status
    assert headers["connection"] == "close"
    assert headers["content-type"] == "application/json"
    assert set(document) == {"errorMessage", "errorType"}
    assert "Traceback" not in str(document)


@pytest.mark.parametrize("name", REFUSED)
async def test_malformed_requests_that_come_byte_by_byte_end_the_same_way(busy: Any, name: str) -> None:
    status, data = REFUSED[name]
    line = await busy.connect()
    # The first bytes one by one, so that the reader stops at every place; the long rest in one piece.
    for index in range(min(len(data), 150)):
        line.send(data[index : index + 1])
        await asyncio.sleep(0)
    line.send(data[150:])
    assert last_answer(await line.ended())[0] == status


@pytest.mark.parametrize("name", SERVED)
async def test_odd_requests_are_answered_and_the_connection_goes_on(busy: Any, name: str) -> None:
    line = await busy.connect()
    for _ in range(2):
        assert (await line.ask(SERVED[name])).status == 404
        assert (await line.ask(PING)).status == 200


@pytest.mark.parametrize("name", [*REFUSED, *SERVED])
async def test_a_connection_may_end_anywhere(busy: Any, name: str) -> None:
    data = REFUSED[name][1] if name in REFUSED else SERVED[name]
    for end in range(0, min(len(data), 200), 7):
        line = await busy.connect()
        line.send(data[:end])
        line.writer.close()


@pytest.mark.parametrize(
    "data", [PING[:30], post(b"Content-Length: 10", body=b"12345"), post(CHUNKED, body=b"5\r\n12")]
)
async def test_what_is_not_finished_is_cut_off(busy: Any, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.05)
    monkeypatch.setattr(connections, "BODY_TIMEOUT", 0.05)
    line = await busy.connect()
    line.send(data)
    assert last_answer(await line.ended())[0] == 408


async def test_a_client_that_goes_on_sending_after_its_refusal_still_reads_the_answer(busy: Any) -> None:
    line = await busy.connect()
    line.send(b"GARBAGE\r\n\r\n")
    for _ in range(50):
        line.send(b"x" * 10_000)
        await asyncio.sleep(0)
    assert last_answer(await line.ended())[0] == 400


async def test_a_client_that_neither_reads_nor_ends_is_dropped(busy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LINGER", 0.05)
    line = await busy.connect()
    line.send(b"GARBAGE\r\n\r\n")
    async with asyncio.timeout(DEADLINE):
        while len(busy.api._connections) > 1:  # noqa: ASYNC110 - there is no event, that is the point
            await asyncio.sleep(0.001)
    assert await line.reader.read()


def test_many_small_chunks_are_read_a_few_at_a_time() -> None:
    reader = RequestReader(10_000)
    reader.feed(post(CHUNKED, body=b"1\r\na\r\n" * 5_000 + b"0\r\n\r\n"))
    rounds = 1
    while (request := reader.read()) is None:
        assert reader.unfinished
        rounds += 1
    assert request.body == b"a" * 5_000
    assert rounds == 5_001 // CHUNKS_AT_ONCE + 1


def test_a_head_that_comes_byte_by_byte_is_compared_with_that_of_our_own_client_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[int] = []

    class Ours:
        @staticmethod
        def match(waiting: bytearray, *limits: int) -> re.Match[bytes] | None:
            compared.append(len(waiting))
            return ours.match(waiting, *limits)

    ours = http._RESULT
    monkeypatch.setattr(http, "_RESULT", Ours)
    reader = RequestReader(LIMIT)
    head = b"POST /" + b"a" * 8_000 + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: x\r\nContent-Length: 2\r\n\r\n"
    for byte in head:
        reader.feed(bytes([byte]))
        assert reader.read() is None
    assert compared == [1]
    reader.feed(b"{}" + post(b"Content-Type: x", b"Content-Length: 2", body=b"[]"))
    assert [request and request.body for request in (reader.read(), reader.read(), reader.read())] == [
        b"{}",
        b"[]",
        None,
    ]
    assert len(compared) == 2
