"""Events in, results and errors out, as the official Python runtime client (``awslambdaric``) reads and writes them.

Called by every runtime that runs Python handlers, from any thread; nothing here keeps state between calls. The bytes
are compared with those of the official client by ``tests/runtimes/test_differential.py``. Where we differ on purpose:

* an event that is not JSON is refused before the handler runs (the Lambda service does that, not its client);
* a result or an error text with lone surrogates is answered (the official client ends its process);
* an exception whose ``__str__`` fails, or is very long, is answered and cut (the official client ends its process);
* a result over the response limit is refused here, before its text takes up memory.
"""

from __future__ import annotations

import decimal
import importlib
import json
import math
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import simplejson

from serverfull.domain.limits import ERROR_MESSAGE_BYTES, RESPONSE_PAYLOAD_BYTES
from serverfull.errors import InvalidRequestContent

if TYPE_CHECKING:
    from types import TracebackType

    from serverfull.domain.functions import LogFormat

JSON_TYPE = "application/json"
BYTES_TYPE = "application/unknown"

OUR_FRAMES: tuple[str, ...] = (str(Path(__file__).parent) + "/",)
"""Traceback frames of files below these paths are the host's, not the user's."""

_MAX_FRAMES = 4_096


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


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error of a function, ready to be answered and logged.

    :param stack_trace: lines as `traceback.format_list` gives them, from the user's first frame on.
    :param platform: the document holds only the type and the message, as for errors that AWS's service itself reports.
    """

    error_type: str
    message: str
    request_id: str
    stack_trace: tuple[str, ...] = ()
    platform: bool = False

    def document(self) -> bytes:
        """Give the JSON that the caller of Invoke gets."""
        if self.platform:
            return platform_error_document(self.error_type, self.message)
        return error_document(self.error_type, self.message, self.request_id, list(self.stack_trace))


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


class _Encoder(simplejson.JSONEncoder):  # type: ignore[misc]  # simplejson has no types
    """Encodes what the official client encodes on Python 3.12 and later."""

    def __init__(self) -> None:
        super().__init__(use_decimal=False, ensure_ascii=False, allow_nan=True)

    def default(self, o: Any) -> Any:
        if isinstance(o, decimal.Decimal):
            return math.nan if o.is_nan() else simplejson.RawJSON(str(o))
        return super().default(o)


_encode_any: Callable[[Any], str] = _Encoder().encode


def _plain_encoder() -> Callable[[Any], str]:
    """Make an encoder for trees of plain values: they need no hooks and no watch for cycles.

    A prepared C encoder of the standard library takes 0.7 us for ``{"statusCode": 200, "body": "hello"}``, simplejson
    3.2 us, because it builds its encoder anew for each call. With `_Guard` in front it is 1.9 us.
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
    """The least length that the result can have as JSON is over the limit."""


class _Guard:
    """Walks a result before it is encoded: is every value of a plain type, and can it fit into a response at all?

    What it counts is never more than the length of the JSON text, so nothing that fits is refused; and since it stops
    at the limit, a list of 100,000,000 numbers, or ten lists that hold each other ten times, cost next to nothing.
    """

    __slots__ = ("parents", "plain", "room")

    def __init__(self) -> None:
        self.room = RESPONSE_PAYLOAD_BYTES
        self.plain = True
        self.parents: set[int] = set()

    def visit(self, value: Any) -> None:
        kind = type(value)
        if kind is str:
            self.room -= len(value)
        elif kind is int:
            self.room -= value.bit_length() >> 2  # a decimal digit takes 3.3 bits
        elif kind not in _SCALARS:
            self._descend(value, kind)
        if self.room < 0:
            raise _TooLarge

    def _descend(self, value: Any, kind: type) -> None:
        if kind is not dict and kind is not list and kind is not tuple:
            self.plain = False
            if not isinstance(value, (dict, list, tuple)):
                self.room -= len(value) if isinstance(value, (str, bytes)) else 1
                return
        if id(value) in self.parents:  # a cycle: simplejson words the error
            self.plain = False
            return
        self.parents.add(id(value))
        # At least `"": 0, ` for each member and `0, ` for each item; the last one has no comma.
        if isinstance(value, dict):
            self.room -= 7 * len(value)
            self._keys(value)
            self._items(value.values())
        else:
            self.room -= 3 * len(value)
            self._items(value)
        self.parents.discard(id(value))

    def _keys(self, mapping: dict[Any, Any]) -> None:
        for key in mapping:
            if type(key) is str:
                self.room -= len(key)
            else:
                self.plain = False

    def _items(self, values: Any) -> None:
        if self.room < 0:
            raise _TooLarge
        for value in values:
            kind = type(value)
            if kind is str:
                self.room -= len(value)
            elif kind not in _SCALARS or (kind is int and not -_WIDE < value < _WIDE):
                self.visit(value)
        if self.room < 0:
            raise _TooLarge


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
        return _pick_encoder(value)(value).encode("utf-8")
    except _TooLarge:
        raise _response_too_large() from None
    except Exception as error:  # the value's own code runs in here
        raise MarshalFault("Runtime.MarshalError", f"Unable to marshal response: {_text_of(error)}") from None


def _pick_encoder(value: Any) -> Callable[[Any], str]:
    guard = _Guard()
    try:
        guard.visit(value)
    except RecursionError:
        return _encode_any  # which knows how deep it can go
    return _encode_plain if guard.plain else _encode_any


def _response_too_large() -> MarshalFault:
    text = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_PAYLOAD_BYTES} bytes)."
    return MarshalFault("Function.ResponseSizeTooLarge", text, platform=True)


# --------------------------------------------------------------------------------------------------------------- errors


def _to_json_bytes(document: dict[str, Any]) -> bytes:
    # A lone surrogate becomes its JSON escape, which happens to be what backslashreplace writes.
    return _encode_plain(document).encode("utf-8", "backslashreplace")


def error_document(error_type: str, message: str, request_id: str, stack_trace: list[str] | None) -> bytes:
    """Give the error document of a function's own error, as the runtime client writes it."""
    return _to_json_bytes(_error_fields(error_type, message, request_id, stack_trace))


def _error_fields(error_type: str, message: str, request_id: str, stack_trace: list[str] | None) -> dict[str, Any]:
    return {
        "errorMessage": message,
        "errorType": error_type,
        "requestId": request_id,
        "stackTrace": stack_trace or [],
    }


def platform_error_document(error_type: str, message: str) -> bytes:
    """Give the error document of an error that the service reports: a timeout, an exit, a response over the limit."""
    fields = {"errorType": error_type, "errorMessage": message}
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def describe_exception(error: BaseException, request_id: str, strip: tuple[str, ...] = OUR_FRAMES) -> ErrorReport:
    """Describe an exception of a handler as the runtime client does: its own traceback only, no causes, no notes.

    :param strip: leading frames of files below these paths are left out. A path ends with a slash.
    """
    return ErrorReport(
        error_type=_type_name(error),
        message=_text_of(error),
        request_id=request_id,
        stack_trace=_stack_trace(error.__traceback__, strip),
    )


def _type_name(error: BaseException) -> str:
    # Past any metaclass that has a `__name__` of its own.
    name: str = type.__dict__["__name__"].__get__(type(error))
    return name


def _text_of(error: BaseException) -> str:
    try:
        text = str.__str__(str(error))
    except BaseException as broken:  # a broken `__str__` must not end the runtime, whatever it raises
        text = f"<{_type_name(error)}.__str__ failed: {_type_name(broken)}>"
    return _cut(text, ERROR_MESSAGE_BYTES)


def _cut(text: str, most: int) -> str:
    if len(text) * 4 <= most:
        return text
    encoded = text[:most].encode("utf-8", "surrogatepass")
    return text[:most] if len(encoded) <= most else encoded[:most].decode("utf-8", "ignore")


def _stack_trace(trace: TracebackType | None, strip: tuple[str, ...]) -> tuple[str, ...]:
    frames, left_out = _frames(_users(trace, strip))
    # As bare tuples, because these print without the markers under the failing expression, like the official client.
    entries = traceback.format_list([(f.filename, f.lineno or 0, f.name, f.line) for f in frames])
    if left_out:
        entries.insert(len(entries) // 2, f"  [{left_out} frames left out]\n")
    room = ERROR_MESSAGE_BYTES
    for index, entry in enumerate(entries):
        room -= len(entry)
        if room < 0:
            return (*entries[:index], f"  [{len(entries) - index} more entries left out]\n")
    return tuple(entries)


def _users(trace: TracebackType | None, strip: tuple[str, ...]) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(strip):
        trace = trace.tb_next
    return trace


def _frames(trace: TracebackType | None) -> tuple[traceback.StackSummary, int]:
    """Take the frames; of a recursion that is deeper than anyone reads, the two ends."""
    walked = traceback.walk_tb(trace)
    head = list(islice(walked, _MAX_FRAMES // 2))
    tail: deque[Any] = deque(maxlen=_MAX_FRAMES // 2)
    left_out = 0
    for step in walked:
        left_out += len(tail) == tail.maxlen
        tail.append(step)
    return traceback.StackSummary.extract(iter([*head, *tail])), left_out


def error_log_text(report: ErrorReport, log_format: LogFormat, now: float | None = None) -> str:
    """Give what the runtime client writes to the log for an error: one line, with its newline.

    :param now: seconds since the epoch; None means the present.
    """
    if log_format == "JSON":
        fields = _error_fields(report.error_type, report.message, report.request_id, list(report.stack_trace))
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        return _encode_plain({"timestamp": stamp, "level": "ERROR", **fields}) + "\n"
    title = ": ".join(part for part in (report.error_type, report.message) if part)
    lines = [f"[ERROR] {title}" if title else "[ERROR]", "Traceback (most recent call last):"]
    for entry in report.stack_trace:
        lines += [_indented_hard(line) for line in entry.splitlines()]
    return "\r".join(lines) + "\n"


def _indented_hard(line: str) -> str:
    text = line.lstrip(" ")
    return "\N{NO-BREAK SPACE}" * (len(line) - len(text)) + text


# --------------------------------------------------------------------------------------------------- exits and start-up


def exit_fault(error: BaseException) -> tuple[str, str]:
    """Say how the service reports a handler that ended its process: an exit, or an exception that is no Exception.

    :returns: the error type and the message after ``RequestId: <id> Error: ``.
    """
    status = _exit_status(error)
    if status == 0:
        return "Runtime.ExitError", "Runtime exited without providing a reason"
    return "Runtime.ExitError", f"Runtime exited with error: exit status {status}"


def exit_report(error: BaseException, request_id: str) -> ErrorReport:
    """Give `exit_fault` as a report with the whole message."""
    error_type, message = exit_fault(error)
    return ErrorReport(error_type, f"RequestId: {request_id} Error: {message}", request_id, (), True)


def _exit_status(error: BaseException) -> int:
    if not isinstance(error, SystemExit):
        return 1
    code = error.code
    if code is None:
        return 0
    if not isinstance(code, int):
        return 1
    return code & 0xFF if -(2**63) <= code < 2**63 else 0xFF  # as the interpreter hands it to the system


def init_fault(error: BaseException, module: str, strip: tuple[str, ...] = OUR_FRAMES) -> ErrorReport:
    """Describe why the module of a handler could not be loaded; there is no request yet, so no request id."""
    if isinstance(error, ImportError):
        return ErrorReport("Runtime.ImportModuleError", f"Unable to import module '{module}': {_text_of(error)}", "")
    if isinstance(error, SyntaxError):
        place = f'  File "{error.filename}" Line {error.lineno}\n    {error.text}'
        text = f"Syntax error in module '{module}': {_text_of(error)}"
        return ErrorReport("Runtime.UserCodeSyntaxError", text, "", (place,))
    return describe_exception(error, "", strip)


def handler_missing(handler: str, module: str) -> ErrorReport:
    """Describe a handler that its module does not have."""
    return ErrorReport("Runtime.HandlerNotFound", f"Handler '{handler}' missing on module '{module}'", "")
