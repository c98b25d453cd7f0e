"""The answer of an invocation, written to the connection in one piece.

`web.Response` builds a multidict, walks hooks and serialises headers again for each answer; that is a quarter of what
a whole bare request costs. Where nobody can ask to see the answer first (no middleware, HTTP/1.1, the connection
stays open) its bytes are put together here and written once. Everything else goes through `web.Response`.

``make bench`` shows the difference: async hello at 16 connections.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion11

if TYPE_CHECKING:
    import asyncio

    from serverfull.domain.invocations import Outcome


class DirectAnswer(web.StreamResponse):
    """An answer that is ready to be written; only aiohttp's protocol gets to see it.

    Our protocol calls `write_to`. Beside that this class overrides what aiohttp's uses (``prepare``, ``write_eof``,
    ``keep_alive``) and leaves the base class without its state, whose making is most of what is saved.

    :param head: status line and headers, complete.
    :param body: as it goes out.
    """

    def __init__(self, head: str, body: bytes) -> None:  # without the base class's: see above
        self._head = head
        self._content = body
        self._to: Any = None

    @property
    def status(self) -> int:
        """Always 200: refusals and errors are no ordinary outcomes."""
        return 200

    @property
    def keep_alive(self) -> bool:
        """The connection stays open, or this class would not have been chosen."""
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Take the connection to write to."""
        self._to = request.protocol

    async def write_eof(self, data: bytes = b"") -> None:
        """Write the answer, and wait where the client has not taken what was written before.

        :raises ConnectionResetError: the client is gone.
        """
        protocol = self._to
        self.write_to(protocol.transport)
        if protocol._paused:
            await protocol._drain_helper()

    def write_to(self, transport: asyncio.Transport | None) -> None:
        """Write the answer.

        :raises ConnectionResetError: the client is gone.
        """
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client closed the connection before its answer")
        head = self._head.encode("latin-1")
        if len(self._content) < 65_536:
            transport.write(head + self._content)
        else:
            transport.write(head)
            transport.write(self._content)


def answer_outcome(outcome: Outcome, request_id: str) -> web.StreamResponse:
    """Turn the outcome of a RequestResponse invocation into an answer."""
    headers = {
        "Content-Type": outcome.content_type,
        "x-amzn-RequestId": request_id,
        "X-Amz-Executed-Version": outcome.executed_version,
    }
    if outcome.function_error is not None:
        headers["X-Amz-Function-Error"] = outcome.function_error
    if outcome.log_tail is not None:
        headers["X-Amz-Log-Result"] = base64.b64encode(outcome.log_tail).decode("ascii")
    return web.Response(body=outcome.payload, headers=headers)


def direct_answer(request: web.BaseRequest, outcome: Outcome, request_id: str) -> web.StreamResponse | None:
    """Give the answer of an ordinary outcome as bytes; None where it has to be a `web.Response`."""
    message = request._message
    if (
        outcome.function_error is not None
        or outcome.log_tail is not None
        or message.should_close
        or message.version != HttpVersion11
        or request._protocol.must_close  # type: ignore[attr-defined]
    ):
        return None
    body = outcome.payload
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {outcome.content_type}\r\nx-amzn-RequestId: {request_id}\r\n"
        f"X-Amz-Executed-Version: {outcome.executed_version}\r\nContent-Length: {len(body)}\r\n"
        f"Date: {rfc822_formatted_time()}\r\n\r\n"
    )
    return DirectAnswer(head, body)


def empty_answer(status: int, request_id: str) -> web.StreamResponse:
    """Answer Event (202) and DryRun (204): no body, and no executed version, as no version has been executed."""
    return web.Response(status=status, headers={"x-amzn-RequestId": request_id})
