"""The runtime client: runs a Python function, one invocation at a time, for a host that speaks the Lambda Runtime API.

It does what ``awslambdaric`` does, on one connection that stays open, with the answer to an invocation and the question
for the next one in a single write. Beyond that client it runs ``async def`` handlers, on one event loop that lives as
long as the process and stands still between invocations.

As there, only an `Exception` is an error of the function; anything else ends the process. What the function writes to
its standard streams is its log, and is there before the answer is.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import socket
import sys
from collections.abc import Callable
from types import CoroutineType
from typing import Any, NoReturn

from . import folders, hooks, logs, reports
from .context import LambdaContext, of_the_function
from .encoding import Encoder, decode
from .loading import is_async, load_handler
from .reports import Fault

BASE = "/2018-06-01/runtime"
LARGEST_RESPONSE = 6_291_556
"""Bytes of a result that the host takes."""

_NEXT = f"GET {BASE}/invocation/next HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
_RESTORE = f"GET {BASE}/restore/next HTTP/1.1\r\nHost: localhost\r\n%b\r\n".encode()
_SNAP_START = "snap-start"
_JSON = "application/json"
_CHUNK = 65_536
_ESCAPES_BEFORE = 12
# Compiled here, so that the zygote does it once and not each of its children.
_FAMILY = re.compile(r"AWS_Lambda_python3\.(\d+)")
_NOT_PRINTABLE = re.compile(r"[^!-~]")
_BODY_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
# An invocation as our hosts word it where it has nothing unusual: to take it apart line by line costs twice as much.
_USUAL = re.compile(
    "HTTP/1\\.1 200 OK\r\nContent-Type: ([^\r]*)\r\nLambda-Runtime-Aws-Request-Id: ([^\r]*)\r\n"
    "Lambda-Runtime-Deadline-Ms: ([0-9]+)\r\nLambda-Runtime-Invoked-Function-Arn: ([^\r]*)\r\n"
    "Lambda-Runtime-Trace-Id: ([^\r]*)\r\nDate: [^\r]*\r\nContent-Length: ([0-9]+)"
)
_OF_USUAL = (
    "content-type",
    "lambda-runtime-aws-request-id",
    "lambda-runtime-deadline-ms",
    "lambda-runtime-invoked-function-arn",
    "lambda-runtime-trace-id",
)

_WARNING = (
    "LAMBDA_WARNING: Unhandled exception. The most likely cause is an issue in the function code. However, in rare "
    "cases, a Lambda runtime update can cause unexpected function behavior. For functions using managed runtimes, "
    "runtime updates can be triggered by a function change, or can be applied automatically. To determine if the "
    "runtime has been updated, check the runtime version in the INIT_START log entry. If this error correlates with a "
    "change in the runtime version, you may be able to mitigate this error by temporarily rolling back to the previous "
    "runtime version. For more information, see https://docs.aws.amazon.com/lambda/latest/dg/runtimes-update.html\r"
)


class HostGone(Exception):
    """The host has closed the connection."""


class Connection:
    """One connection to the Runtime API.

    :param line: connected.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._heard = bytearray()

    def send(self, data: bytes) -> None:
        """Write all of it.

        :raises HostGone: nobody listens any more.
        """
        try:
            self._line.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise HostGone from None

    def receive(self) -> tuple[int, dict[str, str], bytes]:
        """Read an answer: its status, its headers by their names in lower case, and its body.

        :raises HostGone: it ends before.
        """
        head = self._hear_head().decode("utf-8", "replace")
        usual = _USUAL.fullmatch(head)
        if usual is not None:
            *values, length = usual.groups()
            return 200, dict(zip(_OF_USUAL, values)), self._hear_body(int(length))  # noqa: B905 - Python 3.8
        first, *lines = head.split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return int(first[9:12]), headers, self._hear_body(int(headers.get("content-length", 0)))

    def skip(self) -> None:
        """Read an answer whatever it says.

        :raises HostGone: it ends before.
        """
        heard = self._heard
        while (end := heard.find(b"\r\n\r\n")) < 0:
            self._hear()
        length = _BODY_LENGTH.search(heard, 0, end)
        end += 4 if length is None else 4 + int(length[1])
        while len(heard) < end:
            self._hear()
        del heard[:end]

    def _hear_head(self) -> bytes:
        heard = self._heard
        while (end := heard.find(b"\r\n\r\n")) < 0:
            self._hear()
        head = bytes(heard[:end])
        del heard[: end + 4]
        return head

    def _hear_body(self, length: int) -> bytes:
        heard = self._heard
        while len(heard) < length:
            self._hear()
        body = bytes(heard[:length])
        del heard[:length]
        return body

    def _hear(self) -> None:
        try:
            data = self._line.recv(_CHUNK)
        except ConnectionResetError:
            data = b""
        if not data:
            raise HostGone
        self._heard += data


def connect(path: str) -> socket.socket:
    """Connect to the Runtime API on a Unix socket."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.connect(path)
    return line


def resume(told: str) -> None:
    """Run in an interpreter that has been started for it; see `main`.

    :param told: JSON with the descriptor of the connection, the handler, what `folders.use` takes, and the descriptor
        by which a snapshot is told to make processes.
    """
    part = decode(told)
    folders.use(part["path"], part["virtualenvs"], part["live"])
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, part["line"])
    line.set_inheritable(False)
    if part["control"] >= 0:
        os.set_inheritable(part["control"], False)
    main(line, part["handler"], part["control"])


def main(line: socket.socket, handler: str, control: int = -1) -> None:
    """Load the handler and run what comes, until the host closes the connection.

    :param line: connected to the Runtime API.
    :param handler: ``folder/module.attribute``.
    :param control: the descriptor by which a snapshot is told to make processes; -1: this is none.
    :raises SystemExit: with status 1 where the handler cannot be loaded; the host knows why then.
    """
    _open_streams()
    hooks.offer()
    try:
        _Client(line, control).run(handler)
    except HostGone:
        sys.exit(0)


class _Stream(io.TextIOWrapper):
    """A standard stream that keeps nothing back, as the official client's: the process may be ended at any time."""

    def write(self, text: str) -> int:
        count = super().write(text)
        self.flush()
        return count


def _open_streams() -> None:
    """Make standard streams that are UTF-8 whatever the locale is."""
    out, err = (open(number, "wb", closefd=False) for number in (1, 2))  # noqa: SIM115 - they stay open
    sys.stdout = sys.__stdout__ = _Stream(out, "utf-8")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _Stream(err, "utf-8", "backslashreplace")  # type: ignore[misc]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 - a context manager costs more, and this is done for each invocation
            stream.flush()
        except Exception:  # noqa: S110 - the function has closed or replaced it
            pass


class _Client:
    def __init__(self, line: socket.socket, control: int) -> None:
        self._line = line
        self._connection = Connection(line)
        self._control = control
        self._current = logs.Current()
        known = os.environ.get
        # As the official client writes it: Python 3.11 and older escape what is not ASCII.
        family = _FAMILY.fullmatch(known("AWS_EXECUTION_ENV", ""))
        self._json = Encoder(ascii_only=family is None or int(family[1]) < _ESCAPES_BEFORE)
        log_format, log_level = known("AWS_LAMBDA_LOG_FORMAT"), known("AWS_LAMBDA_LOG_LEVEL")
        is_json = logs.set_up(log_format, log_level, self._current)
        self._json_log = self._json.encode if is_json else None
        self._process = os.getpid()
        self._function: dict[str, str | None] = {}

    def run(self, name: str) -> None:
        """Run invocations, one after the other."""
        handler = self._load(name)
        self._stop_if_forked()
        if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == _SNAP_START:
            self._be_restored()
        call = _on_a_loop(handler) if is_async(handler) else handler
        self._function = of_the_function()
        self._connection.send(_NEXT)
        while True:
            headers, event = self._next()
            answer = self._invoke(call, headers, event)
            _flush()
            if os.getpid() != self._process:  # as `_stop_if_forked`, without a call for each invocation
                os._exit(0)
            self._connection.send(answer + _NEXT)
            self._connection.skip()  # whatever it thinks of the answer

    def _stop_if_forked(self) -> None:
        """End here where the function has forked, and its child has returned as well: one to answer is enough."""
        if os.getpid() != self._process:
            os._exit(0)

    def _load(self, name: str) -> Any:
        try:
            return load_handler(name)
        except Fault as fault:
            error = fault.fields("")
        except Exception as raised:  # whatever the module's own code raises
            error = reports.of_exception(raised, "")
        logging.getLogger().warning(_WARNING)
        return self._fail("/init/error", error, error["errorType"], 1)

    def _be_restored(self) -> None:
        """Run what is to be done before a snapshot and after a restore.

        In between, a snapshot stays where it is; each process that is made of it goes on, on a connection of its own.
        """
        try:
            hooks.run_before()
        except BaseException as raised:  # as the official client does
            self._fail("/init/error", reports.of_exception(raised, ""), "Runtime.BeforeSnapshotError", 64)
        _flush()
        self._ask_to_be_restored()
        try:
            hooks.run_after()
        except BaseException as raised:
            self._fail("/restore/error", reports.of_exception(raised, ""), "Runtime.AfterRestoreError", 65)

    def _ask_to_be_restored(self) -> None:
        if self._control < 0:
            self._connection.send(_RESTORE % b"")
            self._connection.skip()
            return
        from .snapshots import Snapshot  # late: few processes are snapshots

        snapshot = Snapshot(self._control, self._line.fileno())
        hindrance = snapshot.hindrance().encode("ascii", "replace")
        self._connection.send(_RESTORE % (b"Serverfull-Hindrance: %b\r\n" % hindrance if hindrance else b""))
        if hindrance:
            self._connection.skip()  # and be ended
        self._line = snapshot.serve()
        self._connection = Connection(self._line)
        self._process = os.getpid()
        if snapshot.held:
            self._connection.send(_RESTORE % b"")
            self._connection.skip()

    def _fail(self, path: str, error: dict[str, Any], kind: str, status: int) -> NoReturn:
        """Say why no invocation can be run, and end."""
        self._log(error)
        _flush()
        self._stop_if_forked()
        self._connection.send(self._request(path, self._document(error), _error_type(kind)))
        self._connection.receive()
        sys.exit(status)

    def _next(self) -> tuple[dict[str, str], bytes]:
        status, headers, event = self._connection.receive()
        if status != 200:
            raise RuntimeError(f"the Runtime API answered {status} to the question for the next invocation")
        self._current.request_id = headers["lambda-runtime-aws-request-id"]
        self._current.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
        trace = headers.get("lambda-runtime-trace-id")
        if trace is not None:
            os.environ["_X_AMZN_TRACE_ID"] = trace
        else:
            os.environ.pop("_X_AMZN_TRACE_ID", None)
        return headers, event

    def _invoke(self, call: Callable[[Any, Any], Any], headers: dict[str, str], event: bytes) -> bytes:
        """Run an invocation and give what is to be sent for it."""
        request_id = self._current.request_id
        try:
            context = self._context(headers)
            result = call(_decoded(event, headers.get("content-type")), context)
            payload, content_type = self._encoded(result)
        except Fault as fault:
            error = fault.fields(request_id)
        except Exception as raised:  # the function's own
            error = reports.of_exception(raised, request_id)
        else:
            path = f"/invocation/{request_id}/response"
            if len(payload) <= LARGEST_RESPONSE:
                return self._request(path, payload, f"Content-Type: {content_type}\r\n")
            return self._request(f"/invocation/{request_id}/error", *_too_large())
        self._log(error)
        kind = _error_type(error["errorType"])
        return self._request(f"/invocation/{request_id}/error", self._document(error), kind)

    def _context(self, headers: dict[str, str]) -> LambdaContext:
        client_context = headers.get("lambda-runtime-client-context")
        cognito = headers.get("lambda-runtime-cognito-identity")
        return LambdaContext(
            self._function,
            self._current.request_id,
            _json_header(client_context, "Client Context") if client_context else None,
            _json_header(cognito, "Cognito Identity") if cognito else None,
            int(headers.get("lambda-runtime-deadline-ms", 0)),
            headers.get("lambda-runtime-invoked-function-arn"),
            self._current.tenant_id,
        )

    def _encoded(self, result: Any) -> tuple[bytes, str]:
        if isinstance(result, bytes):
            return result, "application/unknown"
        try:
            return self._json.encode(result).encode("utf-8"), _JSON
        except Exception as error:  # the value's own code runs in here
            if type(result) is CoroutineType:  # and no question to the value itself, which could answer with an error
                result.close()  # nobody awaits it
            message = f"Unable to marshal response: {reports.text_of(error)}"
            raise Fault("Runtime.MarshalError", message) from None

    def _document(self, error: dict[str, Any]) -> bytes:
        # A lone surrogate becomes its JSON escape, which happens to be what backslashreplace writes.
        return self._json.encode(error).encode("utf-8", "backslashreplace")

    def _log(self, error: dict[str, Any]) -> None:
        line = reports.log_line(error, self._json_log)
        with contextlib.suppress(Exception):  # the function has closed or replaced it
            sys.stdout.write(line.encode("utf-8", "backslashreplace").decode("utf-8"))

    @staticmethod
    def _request(path: str, body: bytes, headers: str) -> bytes:
        head = f"POST {BASE}{path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        return head.encode("ascii", "backslashreplace") + body


def _decoded(event: bytes, content_type: str | None) -> Any:
    if content_type != _JSON:
        return event
    try:
        return decode(event.decode("utf-8"))
    except Exception as error:  # as the official client does
        raise Fault("Runtime.UnmarshalError", f"Unable to unmarshal input: {reports.text_of(error)}") from None


def _json_header(text: str, name: str) -> Any:
    try:
        return decode(text)
    except Exception as error:  # as the official client does
        message = f"Unable to parse {name} JSON: {reports.text_of(error)}"
        raise Fault("Runtime.LambdaContextUnmarshalError", message) from None


def _error_type(kind: str) -> str:
    """Give the headers of an error: its type may be any text."""
    name = _NOT_PRINTABLE.sub("_", kind)[:256]
    return f"Content-Type: {_JSON}\r\nLambda-Runtime-Function-Error-Type: {name}\r\n"


def _too_large() -> tuple[bytes, str]:
    kind = "Function.ResponseSizeTooLarge"
    message = f"Response payload size exceeded maximum allowed payload size ({LARGEST_RESPONSE} bytes)."
    return f'{{"errorType":"{kind}","errorMessage":"{message}"}}'.encode(), _error_type(kind)


def _on_a_loop(handler: Any) -> Callable[[Any, Any], Any]:
    """Make a plain handler of an ``async def`` one."""
    import asyncio

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    def call(event: Any, context: Any) -> Any:
        return loop.run_until_complete(handler(event, context))

    return call
