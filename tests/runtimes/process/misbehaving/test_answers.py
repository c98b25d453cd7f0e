"""Functions whose results and exceptions are broken, hostile or too large."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

LARGEST = 6_291_556
TOO_LARGE = (
    "Function.ResponseSizeTooLarge",
    f"Response payload size exceeded maximum allowed payload size ({LARGEST} bytes).",
)

EVIL = """
class Evil(Exception):
    def __init__(self, how): self.how = how
    def __str__(self):
        if self.how == "raises": raise ValueError("no")
        if self.how == "exits": raise SystemExit(3)
        if self.how == "is none": return None
        if self.how == "is huge": return "x" * (1 << 30)
        return "\\ud800"
    __repr__ = __str__
class Meta(type(Exception)):
    @property
    def __name__(cls): raise ValueError("no")
class Nameless(Exception, metaclass=Meta): pass
"""


def test_an_exception_is_told_with_its_type_its_message_and_its_trace(host: Any) -> None:
    function = host.doing("raise Refused('no such order')", before="class Refused(LookupError): pass")
    reply = function.call()
    document = json.loads(reply.payload)
    assert (document["errorType"], document["errorMessage"]) == ("Refused", "no such order")
    assert document["requestId"] == reply.request_id
    assert "in handler" in document["stackTrace"][-1]
    assert "[ERROR] Refused: no such order" in reply.log


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raises", "<Evil.__str__ failed: ValueError>"),
        ("exits", "<Evil.__str__ failed: SystemExit>"),
        ("is none", "<Evil.__str__ failed: TypeError>"),
        ("is half a character", "\ud800"),
    ],
)
def test_an_exception_that_cannot_be_told_is_told_by_its_type(host: Any, how: str, said: str) -> None:
    function = host.doing("raise Evil(event)", before=EVIL)
    assert function.call(how).failure == ("Evil", said)


def test_an_exception_of_a_gigabyte_is_cut(host: Any) -> None:
    function = host.doing("raise Evil('is huge')", before=EVIL, MemorySize=3008, Timeout=30)
    assert function.is_good()
    with host.not_growing():
        reply = function.call()
    kind, message = reply.failure
    assert kind == "Evil"
    assert set(message) == {"x"}
    assert 1_000 < len(message) <= 262_144


def test_an_exception_whose_class_hides_its_name_is_told(host: Any) -> None:
    assert host.doing("raise Nameless('no')", before=EVIL).call().failure == ("Nameless", "no")


@pytest.mark.parametrize("limit", ["", "import sys; sys.setrecursionlimit(10 ** 6)"], ids=["as it is", "higher"])
def test_a_recursion_without_end_is_an_error_of_the_function(host: Any, limit: str) -> None:
    deed = f"""
        {limit}
        def again(n):
            if n > 100_000: raise RecursionError("enough")
            return again(n + 1)
        again(0)
    """
    reply = host.doing(deed, MemorySize=1024, Timeout=30).call()
    assert reply.failure[0] == "RecursionError"
    assert len(reply.payload) < 1 << 20


UNFIT = {
    "a set": ("return {1, 2}", "Unable to marshal response: Object of type set is not JSON serializable"),
    "an object": ("return object()", "Unable to marshal response: Object of type object is not JSON serializable"),
    "a circle": ("a = []; a.append(a); return a", "Unable to marshal response: Circular reference detected"),
    "a generator": (
        "return (n for n in range(3))",
        "Unable to marshal response: Object of type generator is not JSON serializable",
    ),
    "a generator function": (
        "yield 1",
        None,
    ),
    "keys of objects": ("return {object(): 1}", None),
    "an object whose attributes raise": ("return Evil()", None),
}


@pytest.mark.parametrize(("deed", "said"), list(UNFIT.values()), ids=list(UNFIT))
def test_a_result_that_is_no_json_is_an_error_of_the_function(host: Any, deed: str, said: str | None) -> None:
    before = "class Evil:\n    def __getattr__(self, name): raise RuntimeError('no')"
    if deed.startswith("yield"):
        code = "def handler(event, context):\n    yield 1"
        function = host.deploy(code, good=False)
    else:
        function = host.doing(deed, before=before)
    kind, message = function.call().failure
    assert kind == "Runtime.MarshalError"
    assert message == said or (said is None and message.startswith("Unable to marshal response: "))


WRITTEN = {
    "not a number": ("return float('nan')", b"NaN"),
    "infinity": ("return [float('inf'), -float('inf')]", b"[Infinity, -Infinity]"),
    "bytes": ("return b'\\x00\\xff'", b"\x00\xff"),
    "a decimal": ("import decimal; return decimal.Decimal('1.10')", b"1.10"),
    "keys of numbers": ("return {1: 2, None: 3, True: 4}", b'{"1": 4, "null": 3}'),
    "keys of bytes": ("return {b'a': 1}", b'{"a": 1}'),
    "nothing": ("pass", b"null"),
}


@pytest.mark.parametrize(("deed", "written"), list(WRITTEN.values()), ids=list(WRITTEN))
def test_an_odd_result_is_written_as_the_client_of_aws_writes_it(host: Any, deed: str, written: bytes) -> None:
    reply = host.doing(deed).call()
    assert not reply.error
    assert reply.payload == written


def test_half_a_character_is_escaped_where_everything_is_and_else_an_error(host: Any) -> None:
    reply = host.doing("return '\\ud800'").call()
    if sys.version_info < (3, 12):
        assert reply.payload == b'"\\ud800"'
    else:
        assert reply.failure[0] == "Runtime.MarshalError"


def test_the_largest_result_passes_and_one_more_byte_does_not(host: Any) -> None:
    function = host.doing("return 'x' * event")
    assert len(function.call(LARGEST - 2).payload) == LARGEST
    assert function.call(LARGEST - 1).failure == TOO_LARGE


def test_a_result_that_is_far_too_large_costs_the_host_nothing(host: Any) -> None:
    function = host.doing("return 'x' * (1 << 29)", MemorySize=3008, Timeout=30)
    assert function.is_good()
    with host.not_growing():
        assert function.call().failure == TOO_LARGE


ENDLESS_WRITER = """
    import socket, stat
    def lines():
        for number in range(3, 256):
            try:
                if stat.S_ISSOCK(os.fstat(number).st_mode):
                    yield number
            except OSError: pass
    head = (
        f"POST /2018-06-01/runtime/invocation/{context.aws_request_id}/response HTTP/1.1\\r\\n"
        f"Host: localhost\\r\\n" + HEADERS + "\\r\\n"
    ).encode()
    for number in lines():
        os.write(number, head)
        piece = b"x" * (1 << 20)
        if "chunked" in HEADERS:
            piece = b"100000\\r\\n" + piece + b"\\r\\n"
        for _ in range(5000):
            written = 0
            while written < len(piece):
                written += os.write(number, piece[written:])
"""


@pytest.mark.parametrize("headers", ["Content-Length: 5242880000\r\n", "Transfer-Encoding: chunked\r\n"])
def test_a_result_of_five_gigabytes_that_is_written_past_the_client_is_not_read(host: Any, headers: str) -> None:
    function = host.doing(ENDLESS_WRITER, before=f"HEADERS = {headers!r}", Timeout=30)
    assert function.is_good()
    with host.not_growing():
        assert function.call().failure == TOO_LARGE
    assert function.is_good()


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("async def handler(event, context): return 'good'", "good"),
        ("class H:\n    async def __call__(self, event, context): return 'good'\nhandler = H()", "good"),
    ],
)
def test_a_handler_that_is_a_coroutine_function_is_awaited(host: Any, code: str, result: str) -> None:
    assert host.deploy(code).call().result == result


@pytest.mark.parametrize(
    "deed",
    [
        "import asyncio; return asyncio.sleep(0)",
        "class Awaited:\n    def __await__(self):\n        while True: yield\nreturn Awaited()",
    ],
    ids=["a coroutine", "an awaitable"],
)
def test_an_awaitable_that_a_plain_handler_gives_back_is_an_error_and_no_hang(host: Any, deed: str) -> None:
    assert host.doing(deed).call().failure[0] == "Runtime.MarshalError"
