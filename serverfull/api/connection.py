"""One client connection: aiohttp's HTTP protocol with deadlines, and with answers that AWS SDKs can read.

`serverfull.api.server.HardenedServer` makes one `HardenedProtocol` for each connection that it accepts. Everything
here runs on the event loop of the server. aiohttp's class reads requests, runs the handler in a task and writes the
answer; this class adds what a server on a network needs and aiohttp leaves out:

- Four deadlines, kept as plain floats: headers, body, unread answer, unfinished close. One timer for each connection,
  armed only while one of them runs. A request that arrives whole and whose answer is read at once arms none.
  That of a body moves with the bytes that have arrived; how far is only looked at when the timer fires.
  Idle time between requests is aiohttp's own keep-alive timer.
- Requests that cannot be read are answered with AWS-shaped JSON and one warning, never HTML and never a traceback.
- Exceptions of handlers are answered by the table in `serverfull.api.errors`.

It overrides methods of aiohttp that are not public (``_handle_request``, ``_process_keepalive`` and the message queue),
because wrapping the handler instead would cost a coroutine for each request. The tests of this module go through real
sockets, so a release of aiohttp that changes those methods fails them.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from aiohttp import web
from aiohttp.http import SERVER_SOFTWARE, HttpVersion10, HttpVersion11, StreamWriter
from aiohttp.http_exceptions import BadHttpMethod, InvalidURLError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import ERROR, RequestHandler, RequestPayloadError, _ErrInfo
from multidict import CIMultiDict, CIMultiDictProxy, istr

from serverfull.api.answers import DirectAnswer
from serverfull.api.errors import error_answer
from serverfull.errors import (
    InternalFailure,
    MalformedRequest,
    MethodNotAllowed,
    RequestError,
    RequestRefused,
    UnknownOperation,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from serverfull.api.server import HardenedServer

TARGET_LIMIT = 8192
"""Bytes of a request's target (path and query)."""
FIELD_LIMIT = 8190
"""Bytes of one header. Not equal to TARGET_LIMIT: aiohttp's error tells which limit was broken by its number alone."""
FIELD_COUNT = 128
"""Headers of one request."""
HEAD_LIMIT = 65_536
"""Bytes of all headers of one request."""
SHORT_READ = 8192
"""Bytes; a request whose headers arrive in one read of at most this many cannot break HEAD_LIMIT."""
LINGER = 1.0
"""Seconds that a refused client is read from after its answer. Closing while its bytes wait unread would reset the
connection, and the reset can overtake the answer."""
NEVER = float("inf")

REQUEST_ID: web.RequestKey[str] = web.RequestKey("serverfull_request_id", str)
"""Where a handler leaves the request's id, so that an error that it does not answer itself carries the same one."""
REQUEST_ID_HEADER = istr("x-amzn-RequestId")
SERVER_HEADER = istr("Server")
CONNECTION_HEADER = istr("Connection")
EXPECT_HEADER = istr("Expect")
CODING_HEADER = istr("Transfer-Encoding")

UNREADABLE = ERROR._replace(version=HttpVersion11)
"""Stands for a request that could not be read. aiohttp's own says HTTP/1.0, and so would the answer."""
VERSIONS = (HttpVersion11, HttpVersion10)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class HardenedRequest(web.Request):
    """A request whose answer names no server software and always has a request id."""

    async def _prepare_hook(self, resp: web.StreamResponse) -> None:
        # The last thing that runs before the headers are written, for buffered and streamed answers alike.
        if self._match_info is not None:
            await super()._prepare_hook(resp)
        headers = resp.headers
        if headers.get(SERVER_HEADER) == SERVER_SOFTWARE:
            del headers[SERVER_HEADER]
        if REQUEST_ID_HEADER not in headers:
            headers[REQUEST_ID_HEADER] = self.get(REQUEST_ID) or str(uuid4())
        if cast("HardenedProtocol", self._protocol).must_close:
            resp.force_close()
            headers[CONNECTION_HEADER] = "close"


def absolute_host(request: web.BaseRequest) -> str | None:
    """Give the authority of an absolute-form request target (``GET http://host:port/path``), None for the usual form.

    :return: ``host:port`` as sent, user information included, for `serverfull.api.gates.Gates.check`.
    """
    target = request._message.path
    if target[:1] == "/" or "://" not in target:
        return None
    rest = target.partition("://")[2]
    for stop in "/?#":
        rest = rest.partition(stop)[0]
    return rest


def refusal_of(request: web.BaseRequest) -> RequestError | None:
    """Say why a request that can be read is not served whatever its path, or None."""
    message = request._message
    if message.method not in METHODS:
        return MethodNotAllowed(message.method, message.path[:100], tuple(sorted(METHODS)))
    if message.version not in VERSIONS:
        return MalformedRequest(f"HTTP/{message.version[0]}.{message.version[1]} is not spoken here; use 1.1.", 505)
    if not message.path.isascii():
        return MalformedRequest("The request target has bytes that are not ASCII; percent-encode them.")
    if message.chunked and message.headers[CODING_HEADER].strip().lower() != "chunked":
        return MalformedRequest("The only transfer coding that is understood is chunked.", 501)
    return None


def head_refusal_of(request: web.BaseRequest) -> MalformedRequest | None:
    """Say so where the headers of a request are too long taken together, or give None."""
    if sum(len(name) + len(value) for name, value in request._message.raw_headers) <= HEAD_LIMIT:
        return None
    return MalformedRequest(f"The headers together are longer than {HEAD_LIMIT} bytes.", 431)


def malformed(error: BaseException) -> MalformedRequest:
    """Turn the parser's complaint into one line without the bytes that the client sent."""
    if isinstance(error, MalformedRequest):
        return error
    if isinstance(error, LineTooLong):
        if str(error.args[1]) == str(TARGET_LIMIT):
            return MalformedRequest(f"The request target is longer than {TARGET_LIMIT} bytes.", 414)
        return MalformedRequest(f"A header is longer than {FIELD_LIMIT} bytes.", 431)
    text = str(getattr(error, "message", "") or error)
    if "Too many" in text:
        return MalformedRequest(f"The request has more than {FIELD_COUNT} headers.", 431)
    if isinstance(error, BadHttpMethod) and "HTTPS" in text:
        return MalformedRequest("TLS was spoken to a port that speaks plain HTTP.")
    if isinstance(error, InvalidURLError):
        return MalformedRequest("The request target is not a path or a URL.")
    reason = " ".join(text.partition("\n\n")[0].replace("Bad status line:", "").split()).rstrip(":")
    return MalformedRequest(f"The request cannot be read as HTTP/1.1: {reason[:120] or 'bad request'}.")


def error_response(error: BaseException, request_id: str) -> web.Response:
    """Make the answer of an exception."""
    answer = error_answer(error, request_id)
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


def http_error_response(error: web.HTTPException, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
    """Give an error that aiohttp raised the shape of ours; one with a body of the user's own stays as it is."""
    text = error.text or ""
    made_by_aiohttp = text == f"{error.status}: {error.reason}" or (
        isinstance(error, web.HTTPRequestEntityTooLarge) and text.startswith("Maximum request body size")
    )
    if error.status < 400 or not made_by_aiohttp:
        return error
    answer = error_response(_ours(error, request), request_id)
    answer.set_status(error.status)
    for name, value in error.headers.items():
        if name not in answer.headers and name != "Content-Length":
            answer.headers[name] = value
    return answer


def _ours(error: web.HTTPException, request: web.BaseRequest) -> RequestError:
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return MalformedRequest(f"The body is larger than {request.client_max_size} bytes.", 413)
    if isinstance(error, web.HTTPNotFound):
        return UnknownOperation(f"No operation has {request.method} {request.path[:200]}.")
    if isinstance(error, web.HTTPMethodNotAllowed):
        return MethodNotAllowed(error.method, request.path[:200], tuple(sorted(error.allowed_methods)))
    if isinstance(error, web.HTTPForbidden):
        return RequestRefused(error.reason)
    return MalformedRequest(error.reason, error.status) if error.status < 500 else InternalFailure()


def reset(tcp: asyncio.Transport) -> None:
    """Drop a connection by a TCP reset: an ordinary end would look as if all had been sent."""
    if (sock := tcp.get_extra_info("socket")) is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp.abort()


class HardenedProtocol(RequestHandler):
    """aiohttp's protocol with deadlines and AWS-shaped errors; see the module's docstring."""

    __slots__ = (
        "_body",
        "_body_by",
        "_body_since",
        "_gone",
        "_half_closed",
        "_head_by",
        "_head_started",
        "_long_reads",
        "_refused",
        "_server",
        "_stopped",
        "_tcp",
        "_timer",
        "_timer_at",
        "_write_by",
        "busy",
        "client",
        "fresh",
    )

    def __init__(self, server: HardenedServer, **kwargs: Any) -> None:
        super().__init__(server, **kwargs)
        # One less than aiohttp's parser stops at. The parser does not see that a request is taken before its body is
        # whole and then counts one too many; with equal limits nobody would have it go on.
        self._max_msg_queue_size -= 1
        self._server = server
        self._tcp: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER
        # Loop times; NEVER where nothing is waited for.
        self._head_by = NEVER
        self._body_by = NEVER
        self._body_since = 0.0
        self._write_by = NEVER
        self._body: StreamReader | None = None
        self._head_started = False
        self._long_reads = False
        self._stopped = False  # reading, at any time: aiohttp's parser may stop a second time, in the next body
        self._half_closed = False
        self._refused = ""
        self._gone: asyncio.Future[None] | None = None
        self.client = ""
        self.fresh = True
        self.busy = False

    @property
    def must_close(self) -> bool:
        """Whether the answer that is being made is the connection's last one."""
        return self._server.draining or bool(self._refused) or (self._half_closed and not self._messages)

    # The connection's life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a new connection, or end it at once where the server is full."""
        tcp = cast(asyncio.Transport, transport)
        if not self._server.admit(self, tcp):
            self._manager = None  # so that aiohttp ignores the end of a connection that it never saw begin
            reset(tcp)
            return
        self._tcp = tcp
        super().connection_made(transport)
        self._head_by = self._loop.time() + self._server.settings.header_timeout
        self._arm(self._head_by)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give back what the connection held; the handler of a request in flight runs on."""
        if self._tcp is None:
            return
        self._tcp = None
        self._server.release(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._end_linger()
        super().connection_lost(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer clients that only closed their sending half, as ``nc -N`` does."""
        self._end_linger()
        if self._payload_parser is not None or self._refused:
            return None
        if self.busy and (self._body is None or self._body.is_eof()):
            self._half_closed = True
            return True
        if self._head_started:
            self._reject(MalformedRequest("The connection ended inside the headers of the request."))
            return True
        return None

    def force_close(self) -> None:
        """Close, and abort where the client does not take what is still to be sent."""
        super().force_close()
        self._abort_in(self._server.settings.write_timeout)

    # Reading

    def data_received(self, data: bytes) -> None:
        """Parse, and keep the deadlines of headers and body."""
        if self._refused:
            return
        seen = self._request_count
        in_body = self._body is not None and not self._body.is_eof()
        if self._head_started or len(data) > SHORT_READ:
            self._long_reads = True
        super().data_received(data)
        if self._request_count != seen:
            self._heads_arrived()
        elif data and not in_body and not self._head_started:
            self._head_started = True
            if not self.busy and self._head_by == NEVER:
                self._head_by = self._loop.time() + self._server.settings.header_timeout
                self._arm(self._head_by)

    def pause_reading(self) -> None:
        """Stop reading: the body is longer than anybody has room for."""
        self._stopped = True
        super().pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Read on. aiohttp asks for that twice in each request; where reading never stopped there is nothing to do."""
        if self._stopped:
            super().resume_reading(resume_parser)

    def _heads_arrived(self) -> None:
        if not self.busy:
            self._server.busy(self)
        self._head_by = NEVER
        self._head_started = False
        message, payload = self._messages[-1]
        if isinstance(message, _ErrInfo):
            self._unreadable(message)
        elif payload is not EMPTY_PAYLOAD and not payload.is_eof():
            self._body = payload
            self._body_since = self._loop.time()
            self._body_by = self._body_since + self._server.settings.body_timeout
            self._arm(self._body_by)
        else:
            self._body = None

    def _unreadable(self, info: _ErrInfo) -> None:
        error = malformed(info.exc)
        if self._body is not None and not self._body.is_eof():
            # The error is inside the body of a request that already has its handler, which must hear of it.
            self._messages.pop()
            self._fail_body(error)
        else:
            self._refuse(error)

    def _fail_body(self, error: MalformedRequest) -> None:
        self._refuse(error)
        if self._body is not None:
            self._body.set_exception(error)
            self._body = None

    def _reject(self, error: MalformedRequest) -> None:
        """Answer a request that never became one."""
        if not self.busy:
            self._server.busy(self)
        self._head_by = NEVER
        self._refuse(error)
        self._messages.append((_ErrInfo(status=error.status, exc=error, message=error.message), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _refuse(self, error: RequestError) -> str:
        """Log why this connection ends, once, and read no more requests from it."""
        if not self._refused:
            self._refused = str(uuid4())
            self._server.log.warning(
                "request refused", reason=error.message, peer=self.client, request_id=self._refused
            )
        return self._refused

    # Writing

    def pause_writing(self) -> None:
        """Start the write deadline: the client does not read what it is sent."""
        super().pause_writing()
        self._abort_in(self._server.settings.write_timeout)

    def resume_writing(self) -> None:
        """End the write deadline."""
        super().resume_writing()
        self._write_by = NEVER

    def _abort_in(self, seconds: float) -> None:
        if self._tcp is not None and self._write_by == NEVER:
            self._write_by = self._loop.time() + seconds
            self._arm(self._write_by)

    # Deadlines

    def _arm(self, at: float) -> None:
        if at >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._check_deadlines)

    def _check_deadlines(self) -> None:
        self._timer = None
        self._timer_at = NEVER
        # Timers may fire a clock tick early; without the margin they would be armed again for no time at all.
        now = self._loop.time() + 0.002
        self._body_by = self._body_due()
        if now >= self._write_by:
            self._abort_unread()
            return
        if now >= self._body_by:
            self._body_by = NEVER
            self._fail_body(MalformedRequest("The body of the request did not arrive in time.", 408))
        if now >= self._head_by:
            self._end_of_patience()
        due = min(self._head_by, self._body_by, self._write_by)
        if due != NEVER:
            self._arm(due)

    def _body_due(self) -> float:
        if self._body_by == NEVER or self._body is None or self._body.is_eof():
            return NEVER
        settings = self._server.settings
        return self._body_since + settings.body_timeout + self._body.total_bytes / settings.body_min_rate

    def abort(self) -> None:
        """Cut the connection off without sending what is left."""
        if self._tcp is not None:
            reset(self._tcp)

    def _abort_unread(self) -> None:
        if self._tcp is not None:
            self._server.log.warning("connection aborted", reason="the client does not read", peer=self.client)
            self.abort()

    def _end_of_patience(self) -> None:
        self._head_by = NEVER
        if self._head_started:
            self._reject(MalformedRequest("The headers of the request did not arrive in time.", 408))
        else:
            self.force_close()

    def _process_keepalive(self) -> None:
        if self._head_started:
            # The next request has begun; its own deadline counts.
            self._keepalive_handle = None
            return
        super()._process_keepalive()

    # Answering

    async def _handle_request(
        self,
        request: web.BaseRequest,
        start_time: float | None,
        request_handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> tuple[web.StreamResponse, bool]:
        # One coroutine for the whole request, as in aiohttp: each more of them costs every request.
        self._request_in_progress = True
        self._current_request = request
        try:
            try:
                if request._message is not UNREADABLE and (
                    EXPECT_HEADER in request._headers or self._long_reads or refusal_of(request) is not None
                ):
                    await self._special(request)
                answer = await request_handler(request)
                if not isinstance(answer, web.StreamResponse):
                    raise TypeError(f"a handler must return a response, not {type(answer).__name__}")
            except asyncio.CancelledError as exc:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                answer = self._failure(request, exc)
            except Exception as exc:
                answer = self._failure(request, exc)
            finally:
                self._current_request = None
            gone = False
            try:
                if isinstance(answer, DirectAnswer) and not self._upgraded:
                    answer.write_to(self._tcp)
                    if self._paused:
                        await self._drain_helper()
                else:
                    answer, gone = await self.finish_response(request, answer, start_time)
            except ConnectionError:
                gone = True
            except Exception as exc:
                # Headers with line breaks end here, before a byte of them is written.
                answer, gone = await self.finish_response(request, self._failure(request, exc), start_time)
            self._server.on_answer(answer.status)
            if not answer.keep_alive and not gone:
                self._abort_in(self._server.settings.write_timeout)
                if self._refused:
                    await self._linger()
            return answer, gone
        finally:
            self._request_over()

    def _request_over(self) -> None:
        self._request_in_progress = False
        if self._handler_waiter is not None:
            self._handler_waiter.set_result(None)
        if self._messages and self._tcp is not None:
            return
        self._server.rest(self)
        if self._half_closed:
            self._close = True
        if self._head_started:
            self._head_by = self._loop.time() + self._server.settings.header_timeout
            self._arm(self._head_by)

    async def _special(self, request: web.BaseRequest) -> None:
        """Deal with the few requests that are refused whatever their path, or that wait for a ``100 Continue``."""
        refusal = refusal_of(request) or head_refusal_of(request)
        if refusal is not None:
            if request._version not in VERSIONS:
                request._version = HttpVersion11  # what the answer speaks
            self._refuse(refusal)
            raise refusal
        expected = request._headers.get(EXPECT_HEADER, "").lower()
        if not expected:
            return
        if expected != "100-continue":
            error = MalformedRequest("The only expectation that is met is 100-continue.", 417)
            self._refuse(error)
            raise error
        headers = CIMultiDict(request._headers)
        headers.popall(EXPECT_HEADER)  # or aiohttp's router would send the line again
        request._headers = CIMultiDictProxy(headers)
        limit = request.client_max_size
        fits = not limit or (request.content_length or 0) <= limit
        if request.version == HttpVersion11 and fits and not request._payload.is_eof():
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the answer itself has not begun

    def _failure(self, request: web.BaseRequest, error: BaseException) -> web.StreamResponse:
        """Make the answer to what a handler raised, and log it where it is the host's fault.

        :raises ConnectionResetError: no answer can be sent; aiohttp ends the connection without a word.
        """
        if self._tcp is None and isinstance(error, (OSError, RequestError, RequestPayloadError)):
            raise ConnectionResetError("the client has gone") from None
        request_id = self._refused or request.get(REQUEST_ID) or str(uuid4())
        if isinstance(error, web.HTTPException):
            return http_error_response(error, request, request_id)
        if isinstance(error, RequestPayloadError):
            error = malformed(error)
        if isinstance(error, MalformedRequest):
            request_id = self._refuse(error)
        elif not isinstance(error, RequestError) or isinstance(error, InternalFailure):
            self._server.log.error("request failed", exc_info=error, request_id=request_id, peer=self.client)
        if request._payload_writer.output_size > 0:
            self.abort()  # so that the client does not take half an answer for a whole one
            raise ConnectionResetError("the answer had begun") from None
        request._payload_writer = StreamWriter(self, self._loop)
        return error_response(error, request_id)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp's parser refused. aiohttp calls it in place of the handler."""
        error = malformed(exc or MalformedRequest(message or "The request cannot be read.", status))
        return error_response(error, self._refuse(error))

    async def _linger(self) -> None:
        """Read and drop what a refused client still sends, for a moment, so that it gets its answer."""
        tcp = self._tcp
        if tcp is None or tcp.is_closing():
            return
        tcp.write_eof()
        self._gone = self._loop.create_future()
        try:
            async with asyncio.timeout(LINGER):
                await self._gone
        except TimeoutError:
            pass
        finally:
            self._gone = None

    def _end_linger(self) -> None:
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def log_debug(self, *args: Any, **kw: Any) -> None:
        """Drop aiohttp's notes about clients that went away."""

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log a failure of aiohttp itself. Our own errors come by here a second time and are left out."""
        error = kw.get("exc_info")
        if not isinstance(error, (RequestError, OSError)):
            self._server.log.error("connection failed", exc_info=error, peer=self.client)
