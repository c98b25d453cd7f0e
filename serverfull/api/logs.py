"""``GET /_serverfull/logs/<function>``: what a function wrote last, and with ``follow=1`` what it writes from then on.

A line of JSON for each record, as the host writes them to its standard output: all that is kept in files where there
are some, else what is in memory. ``since=SECONDS`` leaves out what is older than that, ``request-id=ID`` the lines of
other invocations, ``account=ID`` and ``region=NAME`` those of functions of that name elsewhere. Logs are for this
machine alone, as the figures are. While there is nothing to send, an empty line says now and then that the host is
still there. A stream ends when its client goes or the host drains.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol
from uuid import uuid4

from aiohttp import web

from serverfull.api.connection import REQUEST_ID, error_response
from serverfull.api.probes import is_local
from serverfull.errors import InvalidParameterValue, RequestError, RequestRefused, UnsupportedOperation
from serverfull.invocation.recent import of_place, of_request

TICK = 0.5
"""Seconds after which a stream without news looks whether it should end."""

QUIET = 10.0
"""Seconds after which an empty line is sent."""

CHUNK = 1_000
"""Lines that are read and sent at once."""

NOT_KEPT = (
    "It keeps no log that could be shown: it has several workers, each with a log of its own, or logging.functions is "
    "NULL. With logging.files it would. Where logging.functions is not NULL, the log is on its standard output."
)

WRITTEN_WITHIN = 1.0
"""Seconds that a request waits for the log of what ended before it came."""


class LogReader(Protocol):
    """What gives the lines of a function; `RecentLog` and `FileLog` do."""

    def lines(self, function: str, since: float | None = None) -> tuple[Iterable[str], Any]:
        """Give the lines so far, and where `following` goes on; called on a thread, and so is what it gives."""

    def following(self, function: str, position: Any, tick: float) -> AsyncIterator[list[str]]:
        """Give lines as they come, and an empty list where for a while there are none."""


class LogWriter(Protocol):
    """What writes the log that a reader reads; sinks do."""

    async def written(self, within: float) -> None:
        """Wait until what it took is written, so many seconds at most."""


def add_logs(
    app: web.Application,
    reader: LogReader,
    writer: LogWriter | None,
    *,
    admit: Callable[[web.BaseRequest], str],
    draining: Callable[[], bool],
) -> None:
    """Add the path to an application.

    :param reader: what is shown.
    :param writer: fills it; None where it does not have the whole log of this host.
    :param admit: lets a request in and gives it its id, or raises a RequestError; ``Front.admit`` is one.
    :param draining: says whether streams have to end.
    """
    app.router.add_get("/_serverfull/logs/{function}", _Logs(reader, writer, admit, draining).answer)


class _Logs:
    def __init__(
        self,
        reader: LogReader,
        writer: LogWriter | None,
        admit: Callable[[web.BaseRequest], str],
        draining: Callable[[], bool],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._admit = admit
        self._draining = draining

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; what is wrong with it is said in AWS's form, as everywhere."""
        try:
            request_id = self._admit(request)
            if not is_local(request):
                raise RequestRefused("Only clients on this machine may read the log of functions here.")
            if self._writer is None:
                raise UnsupportedOperation("logs", NOT_KEPT)
            since = _since(request.query.get("since"))
        except RequestError as error:
            return error_response(error, request.get(REQUEST_ID) or str(uuid4()))
        await self._writer.written(WRITTEN_WITHIN)
        return await self._send(request, request_id, since)

    async def _send(self, request: web.Request, request_id: str, since: float | None) -> web.StreamResponse:
        function = request.match_info["function"]
        asked = request.query
        of_one, here = of_request(asked.get("request-id")), of_place(asked.get("account"), asked.get("region"))
        lines, position = await asyncio.to_thread(self._reader.lines, function, since)
        headers = {"Content-Type": "application/x-ndjson", "Cache-Control": "no-store", "x-amzn-RequestId": request_id}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        if request.method != "HEAD":
            there = filter(of_one, filter(here, lines))
            while text := await asyncio.to_thread(_chunk, there):
                await response.write(text)
            if request.query.get("follow") == "1":
                news = self._reader.following(function, position, TICK)
                await self._follow(request, response, news, lambda line: of_one(line) and here(line))
        return response

    async def _follow(
        self,
        request: web.Request,
        response: web.StreamResponse,
        news: AsyncIterator[list[str]],
        wanted: Callable[[str], bool],
    ) -> None:
        sent = time.monotonic()
        async for lines in news:
            if self._draining() or request.transport is None or request.transport.is_closing():
                return
            text = "".join(filter(wanted, lines))
            if text or time.monotonic() - sent > QUIET:
                sent = time.monotonic()
                await response.write((text or "\n").encode("utf-8", "backslashreplace"))


def _chunk(lines: Iterator[str]) -> bytes:
    """Give the next lines, nothing at the end: there may be more than fits into memory, and it is read on a thread."""
    return "".join(islice(lines, CHUNK)).encode("utf-8", "backslashreplace")


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
