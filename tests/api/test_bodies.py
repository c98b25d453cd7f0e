"""Large JSON bodies are read as small ones are, without going through what is long."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from serverfull.api.bodies import LONG, decode_base64, read_json, text_of
from serverfull.errors import SerializationFailed

LARGE = base64.b64encode(bytes(range(256)) * 2_001).decode()
assert len(LARGE) > LONG


def whole(value: Any) -> Any:
    """Put texts where there are views of them."""
    if isinstance(value, memoryview):
        return text_of(value)
    if isinstance(value, dict):
        return {name: whole(held) for name, held in value.items()}
    return [whole(held) for held in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "document",
    [
        {"a": LARGE},
        {"a": {"b": LARGE}, "c": [1, {"d": LARGE}], "e": "x"},
        {"first": 'a "quoted" text \\', "then": LARGE, "last": "\\"},
        {"in a list": [LARGE, LARGE]},
        {LARGE: LARGE},
        {"no base64": "é" * LONG},
        {"escaped": '"' * LONG},
        {"backslashes": "\\" * LONG + '"', "a": LARGE},
        {str(number): "short" for number in range(40_000)} | {"a": LARGE},
        LARGE,
        [LARGE],
    ],
    ids=lambda document: str(document)[:20],
)
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_a_large_body_is_read_as_json_reads_it(document: Any, ensure_ascii: bool) -> None:
    body = json.dumps(document, ensure_ascii=ensure_ascii).encode()
    assert whole(read_json(body)) == document


def test_a_long_text_is_left_where_it_is_and_so_keeps_nobody_waiting() -> None:
    body = json.dumps({"a": LARGE}).encode()
    held = read_json(body)["a"]
    assert held.obj is body
    assert decode_base64(held) == base64.b64decode(LARGE)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "' + LARGE.encode(),
        b'{"a": "' + LARGE.encode() + b'"',
        b'{"a": "' + LARGE.encode() + b'" 1}',
        b'{"a": "\xff", "b": "' + LARGE.encode() + b'"}',
        b'{"a": NaN, "b": "' + LARGE.encode() + b'"}',
        b'"' * (2 * LONG),
        b"\\" * (2 * LONG) + b'"',
        b" " * (2 * LONG),
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_large_body_that_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(SerializationFailed, match="Could not parse request body into json"):
        read_json(body)


@pytest.mark.parametrize("inside", [b"\n", b"\xff", b"\xed\xa0\x80"])
def test_a_long_text_that_json_does_not_have_is_refused_when_it_is_read(inside: bytes) -> None:
    held = read_json(b'{"a": "' + LARGE.encode() + inside + b'"}')["a"]
    with pytest.raises(SerializationFailed):
        text_of(held)
    with pytest.raises(ValueError, match=r"base64|padding"):
        decode_base64(held)


@pytest.mark.parametrize("bad", ["=", "==", "A", "A===", "-_==", "\n"])
@pytest.mark.parametrize("at", [0, 1 << 17, (1 << 17) - 2, len(LARGE) - 3])
def test_damaged_base64_is_refused_wherever_it_is(bad: str, at: int) -> None:
    text = LARGE[:at] + bad + LARGE[at:]
    with pytest.raises(ValueError, match=r"base64|padding"):
        decode_base64(text)
    with pytest.raises(ValueError, match=r"base64|padding"):
        decode_base64(memoryview(text.encode()))
