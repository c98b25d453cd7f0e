"""Events in, results out, as the official Python runtime client (``awslambdaric``) reads and writes them.

Called by every runtime that runs Python handlers, from any thread; nothing here keeps state between calls. The bytes
are compared with those of the official client by ``tests/runtimes/test_differential.py``. Where we differ on purpose:

* an event that is not JSON is refused before the handler runs (the Lambda service does that, not its client);
* a result with lone surrogates is a ``Runtime.MarshalError`` (the official client ends its process);
* a result over the response limit is refused here, before its text takes up memory.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable
from functools import cache
from typing import Any

from serverfull.domain.limits import RESPONSE_PAYLOAD_BYTES
from serverfull.errors import InvalidRequestContent
from serverfull.runtimes.error_reports import (
    ErrorReport,
    describe_exception,
    error_document,
    error_log_text,
    exit_fault,
    exit_report,
    handler_missing,
    init_fault,
    platform_error_document,
    text_of,
)

__all__ = [
    "BYTES_TYPE",
    "JSON_TYPE",
    "ErrorReport",
    "MarshalFault",
    "decode_event",
    "describe_exception",
    "encode_result",
    "error_document",
    "error_log_text",
    "exit_fault",
    "exit_report",
    "handler_missing",
    "init_fault",
    "platform_error_document",
]

JSON_TYPE = "application/json"
BYTES_TYPE = "application/unknown"


class MarshalFault(Exception):
    """The result cannot be answered; :attr:`report` says why in the words of AWS.

    :param platform: the service says it, not the runtime client, so the document has no request id and no stack trace.
    """

    def __init__(self, error_type: str, message: str, *, platform: bool = False) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.platform = platform

    def report(self, request_id: str) -> ErrorReport:
        """Give what the log line and the error document are made of."""
        return ErrorReport(self.error_type, self.message, request_id, (), self.platform)


# --------------------------------------------------------------------------------------------------------------- events


def _no_constant(literal: str) -> Any:
    raise ValueError(f"{literal} is not allowed in JSON")


_scan_event = json.JSONDecoder(parse_constant=_no_constant).decode
_DIGITS_TO_ZERO = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
_LONG_NUMBER = b"0" * 19


def _strict_decode(payload: bytes) -> Any:
    try:
        return _scan_event(payload.decode("utf-8"))
    except RecursionError:
        reason = "the document is nested too deeply"
    except ValueError as error:
        reason = "unexpected UTF-8 byte order mark" if payload.startswith(b"\xef\xbb\xbf") else str(error)
    raise InvalidRequestContent(f"Could not parse request body into json: {reason}")


def _decoder() -> Callable[[bytes], Any]:
    """Choose how to decode: with orjson where it is installed, and otherwise with the standard library."""
    try:
        loads = importlib.import_module("orjson").loads
    except ImportError:
        return _strict_decode

    def decode(payload: bytes) -> Any:
        # orjson turns whole numbers beyond 64 bit into floats without a word. Looking for 19 digits in a row costs
        # 0.3 us for 60 bytes and 90 us for 60 KB; the same as a regular expression costs 1.2 ms for 60 KB.
        if _LONG_NUMBER in payload.translate(_DIGITS_TO_ZERO):
            return _strict_decode(payload)
        try:
            return loads(payload)
        except ValueError:
            # What orjson refuses and the standard library takes: lone surrogates as escapes, 1e400, deep nesting.
            return _strict_decode(payload)

    return decode


_decode = _decoder()


def decode_event(payload: bytes) -> Any:
    """Turn the payload of an invocation into the event that the handler gets; no bytes at all stand for ``{}``.

    :raises InvalidRequestContent: the payload is not strict JSON in UTF-8, or has a number or a nesting that is too
        large to be read.
    """
    return _decode(payload) if payload else {}


# -------------------------------------------------------------------------------------------------------------- results


@cache
def _any_encoder() -> Callable[[Any], str]:
    """Make an encoder of what the official client encodes on Python 3.12 and later; most results need none."""
    import decimal
    import math

    import simplejson

    def default(value: Any) -> Any:
        if isinstance(value, decimal.Decimal):
            return math.nan if value.is_nan() else simplejson.RawJSON(str(value))
        raise TypeError(f"Object of type {value.__class__.__name__} is not JSON serializable")

    return simplejson.JSONEncoder(default=default, use_decimal=False, ensure_ascii=False, allow_nan=True).encode


def _plain_encoder() -> Callable[[Any], str]:
    """Make an encoder for trees of plain values: they need no hooks and no watch for cycles.

    A prepared C encoder of the standard library takes 0.7 us for ``{"statusCode": 200, "body": "hello"}``, simplejson
    3.2 us, because it builds its encoder anew for each call; for 1 KB of records it is 7 us against 15 us. `_room_left`
    takes half of that back, and bounds what a result can cost.
    """
    make: Any = vars(json.encoder)["c_make_encoder"]
    if make is None:  # an interpreter without the C accelerator
        return json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
    encode = make(None, _not_plain, json.encoder.encode_basestring, None, ": ", ", ", False, False, True)
    return lambda value: "".join(encode(value, 0))


def _not_plain(value: Any) -> Any:
    raise TypeError(type(value).__name__)


_encode_plain = _plain_encoder()
_SCALARS = frozenset({int, float, bool, type(None)})
_WIDE = 10**18


class _TooLarge(Exception):
    """The least length that the result can have as JSON is over the limit.

    ``path`` gets the ids of the containers that were open: one that is there twice holds itself.
    """

    def __init__(self) -> None:
        self.path: list[int] = []


def _room_left(value: Any, room: int, unusual: list[type]) -> int:
    """Walk a result before it is encoded: can it fit into a response at all, and is every value of a plain type?

    What is taken off ``room`` is never more than the length of the JSON text, so nothing that fits is refused; and
    since the walk ends with the room, a list of 100,000,000 numbers, or ten lists that hold each other ten times, cost
    next to nothing. Keys need no look: the two encoders agree on those that they take.

    :param room: how many characters are left.
    :param unusual: gets the types that are not plain.
    :raises _TooLarge: no room is left.
    """
    items: Any
    kind = type(value)
    if kind is dict:
        items = value.values()
        room -= 6 * len(value)  # `"": , ` for each member; the braces make up for the last comma
    elif kind is list or kind is tuple:
        items = value
        room -= 2 * len(value)  # `, ` for each item; the brackets make up for the last one
    else:
        items, length = _unusual(value, unusual)
        room -= length
    if room < 0:
        raise _TooLarge
    try:
        for item in items:
            kind = type(item)
            if kind is str:
                room -= len(item)
            elif kind not in _SCALARS or (kind is int and not -_WIDE < item < _WIDE):
                room = _room_left(item, room, unusual)
        if room < 0:
            raise _TooLarge
    except _TooLarge as error:
        error.path.append(id(value))
        raise
    return room


def _unusual(value: Any, unusual: list[type]) -> tuple[Any, int]:
    """Give the items in a value that is no plain container, and the least length of the rest."""
    kind = type(value)
    if kind is str:
        return (), len(value)
    if kind is int:
        return (), value.bit_length() >> 2  # a decimal digit takes 3.3 bits
    if kind in _SCALARS:
        return (), 0
    unusual.append(kind)
    if isinstance(value, (str, bytes)):
        return (), len(value)
    if isinstance(value, dict):
        return value.values(), 6 * len(value)
    return (value, 2 * len(value)) if isinstance(value, (list, tuple)) else ((), 0)


def encode_result(value: Any) -> tuple[bytes, str]:
    """Turn what the handler returned into a payload and its content type.

    :raises MarshalFault: the value cannot be written as JSON (``Runtime.MarshalError``), or the payload is over the
        limit of a response (``Function.ResponseSizeTooLarge``).
    """
    if isinstance(value, bytes):
        payload, content_type = value, BYTES_TYPE
    else:
        payload, content_type = _encode(value), JSON_TYPE
    if len(payload) > RESPONSE_PAYLOAD_BYTES:
        raise _response_too_large()
    return payload, content_type


def _encode(value: Any) -> bytes:
    if value is None:
        return b"null"
    try:
        return _text(value).encode("utf-8")
    except _TooLarge:
        raise _response_too_large() from None
    except Exception as error:  # the value's own code runs in here
        if inspect.iscoroutine(value):
            value.close()  # the handler is no `async def`; without this, Python warns that nobody awaited it
        raise MarshalFault("Runtime.MarshalError", f"Unable to marshal response: {text_of(error)}") from None


def _text(value: Any) -> str:
    unusual: list[type] = []
    try:
        _room_left(value, RESPONSE_PAYLOAD_BYTES, unusual)
        if not unusual:
            return _encode_plain(value)
    except _TooLarge as error:
        if len(set(error.path)) == len(error.path):
            raise
    except (RecursionError, TypeError, ValueError):
        pass  # too deep, or a cycle, or a key or number that cannot be written: simplejson words the error
    return _any_encoder()(value)


def _response_too_large() -> MarshalFault:
    text = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_PAYLOAD_BYTES} bytes)."
    return MarshalFault("Function.ResponseSizeTooLarge", text, platform=True)
