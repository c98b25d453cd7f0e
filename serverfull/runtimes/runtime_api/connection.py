"""One connection of a function's process to its Runtime API: requests in order, one write for each answer, deadlines.

A `Connection` hands each request to its `Service`, which answers at once or, where there is nothing to say yet, later.
Requests behind one that waits for its answer wait too. An answer that is followed by such a wait is held back and goes
out with the next one: our own client sends the result of an invocation and the question for the next in one piece, and
would be woken for nothing.

The peer may be hostile. What it sends is read in small portions, so that it keeps the loop for no longer than others;
what it does not read stops the reading; what it does not finish is cut off. Everything runs on the host's loop.
"""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from functools import lru_cache
from typing import Protocol, cast

from serverfull.domain.json_functions import dumps
from serverfull.runtimes.runtime_api.http import Malformed, Request, RequestReader, TooLong

HEAD_TIMEOUT = 10.0
"""Seconds from the first byte of a request to the last of its headers."""

BODY_TIMEOUT = 30.0
"""Seconds without a byte of a body. One that is streamed has as long as its invocation."""

LINGER = 2.0
"""Seconds in which a client that was told to stop sending can read so."""

MOST_IGNORED = 64 * 1024 * 1024
"""Bytes that are read and forgotten meanwhile."""

AT_ONCE = 16
"""Requests that are read in one go."""

MOST_AHEAD = 65_536
"""Bytes that may wait behind a request that is not answered yet."""

_COPIED = 65_536
"""Bytes of a payload up to which it is put behind its headers instead of being written by itself."""

ACCEPTED = b'{"status":"OK"}\n'
"""The body of an answer that takes what was posted."""

RESPONSE_MODE = "lambda-runtime-function-response-mode"
STREAMING = "streaming"

_REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Request Entity Too Large",
    414: "Request URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    505: "HTTP Version Not Supported",
}
_STATUS_LINES = {status: f"HTTP/1.1 {status} {reason}\r\n" for status, reason in _REASONS.items()}


class Service(Protocol):
    """Answers requests.

    :ivar expected: how the result begins that is waited for, up to its length; empty: none is.
    """

    expected: bytes

    def take_turn(self, connection: Connection, question: Request, body: bytes) -> bool:
        """Take a result that begins as expected and is followed by another request, at once.

        The result is answered by whoever calls this, and the other request is served with it.

        :return: False: it is not what is expected after all, and neither has been served.
        """

    def serve(self, connection: Connection, request: Request) -> None:
        """Answer a request by `Connection.answer`, now or later."""

    def refuse_long(self, connection: Connection, request: Request) -> None:
        """Answer a request whose body is too long to be read; the connection is closed after that."""

    def refused(self) -> None:
        """Hear that a request was not what it should be. Its answer has been written."""

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is closed."""


class Connection(asyncio.Protocol):
    """See the module's docstring.

    :param limit: bytes of a body, at most.
    :param welcome: whether it is served at all.
    :param peer: the address that it may come from; None: it may come from anywhere.
    """

    def __init__(self, service: Service, limit: int, *, welcome: bool = True, peer: str | None = None) -> None:
        self._service = service
        self._peer = peer
        self._welcome = welcome
        self._reader = RequestReader(limit)
        self._unread = self._reader.waiting
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._request: Request | None = None  # not answered yet
        self._held = b""
        self._reading = False  # in `_go_on`: answers are written when it is done
        self._scheduled = False
        self._full = False  # the peer does not read
        self._paused = False
        self._closing = False
        self._ignored = 0
        self._arrived = 0
        self._timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------------------------------------- what the service calls

    @property
    def unfinished(self) -> Request | None:
        """The request whose body is not all here."""
        return self._reader.incomplete

    def answer(self, status: int, body: bytes, fields: str = "Content-Type: application/json\r\n") -> None:
        """Answer the request that was served last.

        :param fields: headers beside those of every answer, each with its line end.
        """
        request, self._request = self._request, None
        close = "" if request is None or request.keep_alive else "Connection: close\r\n"
        date = _date_of(int(time.time()))
        head = f"{_STATUS_LINES[status]}{fields}Date: {date}\r\n{close}Content-Length: {len(body)}\r\n\r\n"
        self._write(head.encode("utf-8", "replace"), body)
        if close:
            self._linger()
        elif not self._reading and (self._paused or self._unread):
            self._go_on()
        if status >= 400:
            self._service.refused()

    def accept(self) -> None:
        """Answer that what was posted is taken, as `answer` does with 202 and AWS's body; it is said for each call."""
        request = self._request
        if request is None or not request.keep_alive:
            self.answer(202, ACCEPTED)
            return
        self._request = None
        self._write(_acceptance_at(int(time.time())), b"")
        if not self._reading and (self._paused or self._unread):
            self._go_on()

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    # -------------------------------------------------------------------------------------------- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, or drop it."""
        self._transport = cast("asyncio.Transport", transport)
        if not self._welcome or (self._peer is not None and self._peer != transport.get_extra_info("peername")[0]):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the service."""
        self._closing, self._transport = True, None
        self._stop_timer()
        self._service.lost(self)

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        if self._closing:
            self._ignored += len(data)
            if self._ignored > MOST_IGNORED:
                self.abort()
            return
        self._arrived += 1
        if self._request is None and not self._scheduled and not self._full:
            if not self._take_turn(data):
                self._reader.feed(data)
                self._go_on()
            return
        self._reader.feed(data)
        if len(self._unread) > MOST_AHEAD:
            self._pause()

    def pause_writing(self) -> None:
        """Read no further while the peer does not take its answers."""
        self._full = True
        self._pause()

    def resume_writing(self) -> None:
        """Go on."""
        self._full = False
        if self._request is None and not self._scheduled:
            self._go_on()
        elif not self._closing:
            self._watch()

    # ----------------------------------------------------------------------------------------------------- reading

    def _take_turn(self, data: bytes) -> bool:
        """Serve a result and the question for the next invocation in one go, where that is all there is."""
        service, reader = self._service, self._reader
        expected = service.expected
        if not expected or self._unread or reader.incomplete is not None:
            return False
        turn = reader.turn(data, expected)
        if turn is None:
            return False
        body, request = turn
        if not request.keep_alive or not service.take_turn(self, request, body):
            return False
        self._request = request
        self._held = _acceptance_at(int(time.time()))
        return True

    def _go_on(self) -> None:
        """Serve what has arrived, a few requests at a time, until one has to wait for its answer."""
        self._scheduled = False
        if self._closing:
            return
        self._reading = True
        try:
            self._serve_some()
        finally:
            self._reading = False
        if self._request is None and self._held:
            self._flush(b"")
        if not self._closing:
            self._watch()

    def _serve_some(self) -> None:
        for _ in range(AT_ONCE):
            if self._request is not None or self._closing or self._full:
                return
            try:
                request = self._reader.read()
            except Malformed as wrong:
                self._refuse(wrong.status, wrong.message)
                return
            except TooLong as long:
                self._request = long.request
                long.request.keep_alive = False
                self._service.refuse_long(self, long.request)
                return
            if request is None:
                if not self._reader.unfinished:
                    return
                break
            self._stop_timer()
            self._request = request
            self._service.serve(self, request)
        self._scheduled = True
        self._loop.call_soon(self._go_on)

    def _watch(self) -> None:
        """Make the deadline fit what is being waited for, and read on if there is room."""
        reader = self._reader
        if self._scheduled or (self._request is not None and len(self._unread) > MOST_AHEAD):
            self._pause()
            return
        if self._paused and not self._full:
            self._resume()
        if self._request is not None or not (reader.in_head or reader.incomplete):
            self._stop_timer()
        elif reader.wants_go_ahead():
            self._flush(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif self._timer is None:
            self._start_timer()

    def _start_timer(self) -> None:
        seconds = HEAD_TIMEOUT if self._reader.in_head else BODY_TIMEOUT
        self._timer = self._loop.call_later(seconds, self._timed_out, self._reader.in_head, self._arrived)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timed_out(self, in_head: bool, arrived: int) -> None:
        self._timer = None
        request = self._reader.incomplete
        moves = in_head or arrived != self._arrived
        if request is not None and (moves or request.fields.get(RESPONSE_MODE) == STREAMING):
            self._start_timer()
        else:
            self._refuse(408, "The request was not finished in time.")

    def _pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None:
            self._transport.resume_reading()

    # ----------------------------------------------------------------------------------------------------- writing

    def _write(self, head: bytes, body: bytes) -> None:
        if len(body) > _COPIED:
            self._flush(head)
            self._flush(body)
        elif self._reading:
            self._held += head + body
        else:
            self._flush(head + body)

    def _flush(self, data: bytes) -> None:
        held, self._held = self._held, b""
        if self._transport is not None:
            self._transport.write(held + data if held else data)

    def _refuse(self, status: int, message: str) -> None:
        body = error_document("InvalidRequest", message)
        head = f"{_STATUS_LINES[status]}Content-Type: application/json\r\nDate: {_date_of(int(time.time()))}\r\n"
        self._flush(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        self._linger()
        self._service.refused()

    def _linger(self) -> None:
        """Close, but not before the peer has had time to read why: data that nobody reads would take that from it."""
        self._closing = True
        self._stop_timer()
        self._flush(b"")
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.can_write_eof():
            transport.write_eof()
        if self._paused:
            self._resume()
        self._timer = self._loop.call_later(LINGER, self.abort)


def error_document(error_type: str, message: str) -> bytes:
    """Give the body of an answer that is an error."""
    return dumps({"errorMessage": message, "errorType": error_type}).encode() + b"\n"


@lru_cache(maxsize=1)
def _acceptance_at(second: int) -> bytes:
    head = f"{_STATUS_LINES[202]}Content-Type: application/json\r\nDate: {_date_of(second)}\r\n"
    return f"{head}Content-Length: {len(ACCEPTED)}\r\n\r\n".encode() + ACCEPTED


@lru_cache(maxsize=1)
def _date_of(second: int) -> str:
    return formatdate(second, usegmt=True)
