"""Bytes that are no proper request, sent over real sockets: what comes back, what is logged, and that the server lives.

Each case must be answered with one of its statuses, by a JSON body with the headers that AWS SDKs read, on a connection
that is then closed; with exactly one warning and no traceback; and a good request must be served afterwards.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from serverfull.api.gates import Gates
from serverfull.api.server import absolute_host
from serverfull.config import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class Case:
    """One piece of bytes.

    :param statuses: any of them is right. The parser's C and Python forms tell some faults apart differently.
    :param half_close: whether the client closes its sending half after the bytes.
    """

    name: str
    data: bytes
    statuses: frozenset[int]
    half_close: bool = False


def case(name: str, data: bytes, *statuses: int, half_close: bool = False) -> Case:
    return Case(name=name, data=data, statuses=frozenset(statuses), half_close=half_close)


def post(*headers: bytes, body: bytes = b"", target: bytes = b"/echo", method: bytes = b"POST") -> bytes:
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: localhost", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"
UPGRADE = b"Connection: Upgrade"
ORIGIN = b"Origin: https://evil.com"

REFUSED = [
    case("gzip, chunked", post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    # Two lengths: the ways to smuggle a request past a proxy
    case("content-length and chunked", post(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\nGET "), 400),
    case("chunked and content-length", post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n"), 400),
    case("two lengths", post(b"Content-Length: 1", b"Content-Length: 2", body=b"ab"), 400),
    case("the same length twice", post(b"Content-Length: 2", b"Content-Length: 2", body=b"ab"), 400),
    case("list of lengths", post(b"Content-Length: 2, 2", body=b"ab"), 400),
    case("signed length", post(b"Content-Length: +2", body=b"ab"), 400),
    case("negative length", post(b"Content-Length: -1"), 400),
    case("hexadecimal length", post(b"Content-Length: 0x2", body=b"ab"), 400),
    case("length beyond 64 bits", post(b"Content-Length: 99999999999999999999999"), 400),
    case("empty length", post(b"Content-Length: "), 400),
    case("two transfer codings headers", post(CHUNKED, b"Transfer-Encoding: identity", body=b"0\r\n\r\n"), 400),
    case("chunked not last", post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"), 400),
    case("chunked misspelt", post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), 400),
    case("chunked after a vertical tab", post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"), 400),
    case("space before colon", post(b"Content-Length : 2", body=b"ab"), 400),
    case("tab before colon", post(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n"), 400),
    # Chunks
    case("chunk size is no number", post(CHUNKED, body=b"zz\r\nhi\r\n0\r\n\r\n"), 400),
    case("negative chunk size", post(CHUNKED, body=b"-1\r\nhi\r\n0\r\n\r\n"), 400),
    case("chunk size with 0x", post(CHUNKED, body=b"0x2\r\nhi\r\n0\r\n\r\n"), 400),
    case("chunk size beyond 64 bits", post(CHUNKED, body=b"fffffffffffffffff\r\nhi"), 400),
    case("chunk longer than said", post(CHUNKED, body=b"2\r\nhixx\r\n0\r\n\r\n"), 400),
    case("bare line feed after a chunk size", post(CHUNKED, body=b"2\nhi\r\n0\r\n\r\n"), 400),
    case("empty chunk size", post(CHUNKED, body=b"\r\nhi\r\n0\r\n\r\n"), 400),
    # Lines and bytes
    case("bare line feeds", b"GET /echo HTTP/1.1\nHost: localhost\n\n", 400),
    case("bare line feed after one header", b"GET /echo HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", 400),
    case("bare carriage return", b"GET /echo HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n", 400),
    case("folded header", post(b"X-A: b\r\n c"), 400),
    case("folded with a tab", post(b"X-A: b\r\n\tc"), 400),
    case("space before the first header", b"GET /echo HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
    case("NUL in a value", post(b"X-A: b\x00c"), 400),
    case("NUL in a name", post(b"X-\x00A: b"), 400),
    case("NUL in the target", post(target=b"/ec\x00ho"), 400),
    case("control byte in a value", post(b"X-A: b\x01c"), 400),
    case("header without colon", post(b"X-A"), 400),
    case("header without name", post(b": b"), 400),
    case("header name with a blank", post(b"X A: b"), 400),
    case("header name that is not ASCII", post("X-Ä: b".encode()), 400),
    case("only NULs", b"\x00" * 64, 400),
    case("random bytes", bytes(range(128, 256)), 400),
    case("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x07" * 100, 400),
    case("SSH", b"SSH-2.0-OpenSSH_9.6\r\n", 400),
    # Host
    case("no host", b"GET /echo HTTP/1.1\r\n\r\n", 400),
    case("two hosts", post(b"Host: evil.com"), 400),
    # Request line
    case("unknown method", post(method=b"BREW"), 400),
    case("method in lower case", post(method=b"post"), 400),
    case("method with a comma", post(method=b"GET,"), 400),
    case("empty method", b" / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    case("HTTP/0.9", b"GET /echo\r\n\r\n", 400, 505),
    case("HTTP/0.9 by name", b"GET /echo HTTP/0.9\r\nHost: localhost\r\n\r\n", 400, 505),
    case("HTTP/1.2", b"GET /echo HTTP/1.2\r\nHost: localhost\r\n\r\n", 400, 505),
    case("HTTP/2.0", b"GET /echo HTTP/2.0\r\nHost: localhost\r\n\r\n", 400, 505),
    case("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 400, 405, 505),
    case("version in lower case", b"GET /echo http/1.1\r\nHost: localhost\r\n\r\n", 400),
    case("version of three digits", b"GET /echo HTTP/1.10\r\nHost: localhost\r\n\r\n", 400),
    case("words after the version", b"GET /echo HTTP/1.1 x\r\nHost: localhost\r\n\r\n", 400),
    case("target without slash", post(target=b"echo"), 400),
    case("target with a raw byte", post(target=b"/ech\xf6"), 400),
    case("target with raw UTF-8", post(target="/echö".encode()), 400),
    case("absolute target without host", post(target=b"http:///echo"), 400),
    case("absolute target with a broken address", post(target=b"http://[::1/echo"), 400),
    case("absolute target with a port that is none", post(target=b"http://localhost:x/echo"), 400),
    case("absolute target with a port beyond 65535", post(target=b"http://localhost:99999/echo"), 400),
    case("TRACE", post(method=b"TRACE"), 405),
    case("CONNECT", post(method=b"CONNECT", target=b"evil.com:443"), 405),
    case("CONNECT with a path", post(method=b"CONNECT", target=b"/echo"), 400, 405),
    case("PROPFIND", post(method=b"PROPFIND"), 405),
    # Limits
    case("target of 9 KB", post(target=b"/" + b"a" * 9000), 414),
    case("query of 9 KB", post(target=b"/echo?" + b"a" * 9000), 414),
    case("target of 1 MB", post(target=b"/" + b"a" * 1_000_000), 414),
    case("header of 9 KB", post(b"X-A: " + b"a" * 9000), 431),
    case("header of 1 MB", post(b"X-A: " + b"a" * 1_000_000), 431),
    case("header name of 9 KB", post(b"a" * 9000 + b": b"), 431),
    case("70 KB of headers", post(*[b"X-%d: " % number + b"y" * 7000 for number in range(10)]), 431),
    case("129 headers", post(*[b"X-%d: y" % number for number in range(129)]), 431),
    case("100 000 headers", post(*[b"X-%d: y" % number for number in range(100_000)]), 431),
    case("expectation that nobody meets", post(b"Expect: 200-ok", b"Content-Length: 2", body=b"hi"), 417),
    # Ends too early
    case("end inside the request line", b"GET /ec", 400, half_close=True),
    case("end inside the headers", b"GET /echo HTTP/1.1\r\nHost: loc", 400, half_close=True),
]

SERVED = [
    # Odd, and yet requests that must be answered and leave the connection usable
    case("empty lines first", b"\r\n\r\n" + post(b"Content-Length: 2", body=b"hi"), 200),
    case("two blanks in the request line", b"GET  /echo  HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    case("chunked", post(CHUNKED, body=b"2\r\nhi\r\n0\r\n\r\n"), 200),
    case("chunk with an extension", post(CHUNKED, body=b'2;a="b"\r\nhi\r\n0\r\n\r\n'), 200),
    case("chunks with a trailer", post(CHUNKED, body=b"2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n"), 200),
    case("64 KB in chunks of one byte", post(CHUNKED, body=b"1\r\na\r\n" * 65536 + b"0\r\n\r\n"), 200),
    case("a value with the bytes of Latin 1", post(b"X-A: \xe4", b"Content-Length: 0"), 200),
    case("128 headers", post(*[b"X-%d: y" % number for number in range(127)]), 200),
    case("absolute target", post(b"Content-Length: 0", target=b"http://127.0.0.1:8080/echo"), 200),
    case(
        "upgrade to HTTP/2",
        post(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
        200,
    ),
    case(
        "upgrade to nothing known",
        post(b"Connection: Upgrade", b"Upgrade: frob", b"Content-Length: 2", body=b"hi"),
        200,
    ),
    case("gzip that is none", post(b"Content-Encoding: gzip", b"Content-Length: 2", body=b"hi"), 200),
    case("HTTP/1.0 kept alive", b"POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", 200),
    case("unknown path", post(target=b"/nothing/here"), 404),
    case("two slashes", post(target=b"//evil.com/echo"), 404),
    case("dots", post(target=b"/../../etc/passwd"), 404),
    case("encoded dots and NUL", post(target=b"/..%2f..%2fetc%2fpasswd%00"), 404),
    case("asterisk", post(method=b"OPTIONS", target=b"*"), 403, 404, 405),
    case("other method", post(method=b"DELETE"), 405),
    case("foreign absolute target", post(target=b"http://evil.com/echo"), 403),
    case("foreign host inside user information", post(target=b"http://localhost@evil.com/echo"), 403),
    case("foreign origin", post(ORIGIN), 403),
    case(
        "preflight", post(b"Origin: https://evil.com", b"Access-Control-Request-Method: POST", method=b"OPTIONS"), 403
    ),
]


@pytest.fixture
async def served(raw_server: Callable[..., Any]) -> Any:
    """Serve ``/echo`` behind the gates."""
    gates = Gates(ServerSettings(), "127.0.0.1")

    async def echo(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await request.read())

    async def fast(request: web.Request) -> web.StreamResponse:
        gates.check(request.headers, absolute_host(request))
        return await app._handle(request)

    app = web.Application(client_max_size=10_000_000)
    app.router.add_post("/echo", echo)
    return await raw_server(app, fast=fast)


async def assert_serves(server: Any) -> None:
    answer = await server.send(post(b"Content-Length: 2", b"Connection: close", body=b"hi"))
    assert parts(answer)[::2] == (200, b"hi")


def parts(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Take one answer apart, and insist that nothing follows it."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert len(lines) == len(headers), "a header is there twice"
    assert first.startswith("HTTP/1.1 "), answer[:200]
    assert len(body) == int(headers["content-length"])
    return int(first.split(" ")[1]), headers, body


def assert_aws_shaped(headers: dict[str, str], body: bytes) -> None:
    document = json.loads(body)
    assert document.get("message") or document.get("Message")
    assert headers["content-type"] == "application/json"
    assert headers["x-amzn-errortype"].endswith("Exception")
    assert len(headers["x-amzn-requestid"]) == 36
    assert "server" not in headers
    assert not any(name.startswith("access-control-") for name in headers)


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused.name)
async def test_malformed_requests_get_one_json_answer_and_one_log_line(served: Any, refused: Case) -> None:
    answer = await served.send(refused.data, half_close=refused.half_close)

    status, headers, body = parts(answer)
    assert status in refused.statuses
    assert_aws_shaped(headers, body)
    assert headers["connection"] == "close"
    [(level, event, fields)] = served.log.lines
    assert (level, event) == ("warning", "request refused")
    assert fields["peer"] == "127.0.0.1"
    assert fields["request_id"] == headers["x-amzn-requestid"]
    assert "\n" not in fields["reason"]
    assert len(fields["reason"]) < 300
    await assert_serves(served)


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused.name)
async def test_malformed_requests_that_come_byte_by_byte_end_the_same_way(served: Any, refused: Case) -> None:
    reader, writer = await served.connect()
    # The first bytes one by one, so that the parser stops at every place; the long rest in one piece.
    for index in range(min(len(refused.data), 150)):
        if writer.transport.is_closing():
            break
        writer.write(refused.data[index : index + 1])
        await asyncio.sleep(0)
    writer.write(refused.data[150:])
    if refused.half_close:
        writer.write_eof()
    answer = await served.rest(reader)
    writer.close()

    assert parts(answer)[0] in refused.statuses
    assert [line[:2] for line in served.log.lines] == [("warning", "request refused")]


@pytest.mark.parametrize("odd", SERVED, ids=lambda odd: odd.name)
async def test_odd_requests_are_answered_and_the_connection_goes_on(served: Any, odd: Case) -> None:
    reader, writer = await served.connect()
    writer.write(odd.data)
    first = await served.answer(reader)
    writer.write(post(b"Content-Length: 4", b"Connection: close", body=b"next"))
    second = await served.rest(reader)
    writer.close()

    status, headers, body = parts(first.replace(b"HTTP/1.0 ", b"HTTP/1.1 ", 1))
    assert status in odd.statuses
    if status >= 400:
        assert_aws_shaped(headers, body)
    assert parts(second)[::2] == (200, b"next")
    assert served.log.lines == []


async def test_pipelined_requests_are_answered_in_order(served: Any) -> None:
    requests = [post(b"Content-Length: 3", body=b"%03d" % number) for number in range(500)]
    requests.append(post(b"Content-Length: 4", b"Connection: close", body=b"last"))
    answers = await served.send(b"".join(requests))
    bodies = [answer.partition(b"\r\n\r\n")[2] for answer in answers.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [b"%03d" % number for number in range(500)] + [b"last"]
    assert served.log.lines == []


async def test_garbage_on_a_connection_that_was_good_so_far_is_refused_after_the_good_answer(served: Any) -> None:
    reader, writer = await served.connect()
    writer.write(post(b"Content-Length: 2", body=b"hi"))
    good = await served.answer(reader)
    writer.write(b"GARBAGE\r\n\r\n")
    refused = await served.rest(reader)
    assert parts(good)[::2] == (200, b"hi")
    assert parts(refused)[0] == 400
    assert len(served.log.lines) == 1


async def test_garbage_right_behind_a_request_refuses_both_because_the_length_may_be_a_lie(served: Any) -> None:
    answer = await served.send(post(b"Content-Length: 2", body=b"hi and more than that"))
    assert parts(answer)[0] == 400
    assert len(served.log.lines) == 1


async def test_a_client_that_goes_on_sending_after_its_refusal_still_reads_the_answer(served: Any) -> None:
    reader, writer = await served.connect()
    writer.write(b"GARBAGE\r\n\r\n")
    for _ in range(50):
        writer.write(b"x" * 10_000)
        await asyncio.sleep(0)
    answer = await served.rest(reader)
    writer.close()
    assert parts(answer)[0] == 400
    assert len(served.log.lines) == 1


async def test_compressed_bodies_reach_the_handler_as_they_were_sent(served: Any) -> None:
    bomb = gzip.compress(b"\x00" * 10_000_000)
    answer = await served.send(
        post(b"Content-Encoding: gzip", b"Content-Length: %d" % len(bomb), b"Connection: close", body=bomb)
    )
    assert parts(answer)[::2] == (200, bomb)


async def test_a_body_over_the_limit_is_refused_as_json(served: Any) -> None:
    reader, writer = await served.connect()
    writer.write(post(b"Content-Length: 10000001") + b"x" * 10_000_001)
    status, headers, body = parts(await served.answer(reader))
    writer.close()
    assert status == 413
    assert_aws_shaped(headers, body)
    assert headers["x-amzn-errortype"] == "RequestTooLargeException"
