"""``GET /_serverfull/logs/<function>``: what a function wrote last, and with ``follow=1`` what it writes from then on.

A line of JSON for each record, as the host writes them to its standard output. ``since=SECONDS`` leaves out what is
older than that. Logs are for this machine alone, as the figures are. While there is nothing to send, an empty line
says now and then that the host is still there. A stream ends when its client goes or the host drains.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import uuid4

from aiohttp import web

from serverfull.api.connection import REQUEST_ID, error_response
from serverfull.api.probes import is_local
from serverfull.errors import InvalidParameterValue, RequestError, RequestRefused, UnsupportedOperation

if TYPE_CHECKING:
    from serverfull.invocation.recent import RecentLog
    from serverfull.invocation.sinks import StreamSink

TICK = 0.5
"""Seconds after which a stream without news looks whether it should end."""

QUIET = 10.0
"""Seconds after which an empty line is sent."""

NOT_KEPT = (
    "It keeps no log that could be shown: it has several workers, each with a log of its own, or logging.functions is "
    "NULL. Where it is not NULL, the log is on its standard output."
)

WRITTEN_WITHIN = 1.0
"""Seconds that a request waits for the log of what ended before it came."""


def add_logs(
    app: web.Application,
    recent: RecentLog,
    sink: StreamSink | None,
    *,
    admit: Callable[[web.BaseRequest], str],
    draining: Callable[[], bool],
) -> None:
    """Add the path to an application.

    :param recent: what is shown.
    :param sink: fills it; None where it does not have the whole log of this host.
    :param admit: lets a request in and gives it its id, or raises a RequestError; ``Front.admit`` is one.
    :param draining: says whether streams have to end.
    """
    app.router.add_get("/_serverfull/logs/{function}", _Logs(recent, sink, admit, draining).answer)


class _Logs:
    def __init__(
        self,
        recent: RecentLog,
        sink: StreamSink | None,
        admit: Callable[[web.BaseRequest], str],
        draining: Callable[[], bool],
    ) -> None:
        self._recent = recent
        self._sink = sink
        self._admit = admit
        self._draining = draining

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; what is wrong with it is said in AWS's form, as everywhere."""
        try:
            request_id = self._admit(request)
            if not is_local(request):
                raise RequestRefused("Only clients on this machine may read the log of functions here.")
            if self._sink is None:
                raise UnsupportedOperation("logs", NOT_KEPT)
            since = _since(request.query.get("since"))
        except RequestError as error:
            return error_response(error, request.get(REQUEST_ID) or str(uuid4()))
        await self._sink.written(WRITTEN_WITHIN)
        return await self._send(request, request_id, since)

    async def _send(self, request: web.Request, request_id: str, since: float | None) -> web.StreamResponse:
        function = request.match_info["function"]
        text, position = await asyncio.to_thread(self._text, function, since)
        headers = {"Content-Type": "application/x-ndjson", "Cache-Control": "no-store", "x-amzn-RequestId": request_id}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        if request.method != "HEAD":
            await response.write(text)
            if request.query.get("follow") == "1":
                await self._follow(request, response, function, position)
        return response

    def _text(self, function: str, since: float | None) -> tuple[bytes, int]:
        """Give what is there of a function, and where it goes on: up to 4 MB are looked through, so on a thread."""
        lines, position = self._recent.lines(function, since)
        return "".join(lines).encode("utf-8", "backslashreplace"), position

    async def _follow(self, request: web.Request, response: web.StreamResponse, function: str, position: int) -> None:
        sent = time.monotonic()
        async for lines in self._recent.following(function, position, TICK):
            if self._draining() or request.transport is None or request.transport.is_closing():
                return
            if lines or time.monotonic() - sent > QUIET:
                sent = time.monotonic()
                await response.write("".join(lines or "\n").encode("utf-8", "backslashreplace"))


def _since(seconds: str | None) -> float | None:
    """Give the time from which on lines are shown.

    :raises InvalidParameterValue: it is no number of seconds.
    """
    if seconds is None:
        return None
    try:
        ago = float(seconds)
    except ValueError:
        ago = math.nan
    if not 0 <= ago <= time.time():
        raise InvalidParameterValue("since must be a number of seconds.")
    return time.time() - ago
