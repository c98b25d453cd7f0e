"""Delivers batches to a listener of an extension, over connections that stay open.

What listens there may be hostile: of its answers only the first line and the headers are looked at, and no more than
some KB are read. It is never followed anywhere else. Everything here runs on the host's loop.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from serverfull.runtimes.runtime_api.extension_messages import SANDBOX_NAMES

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

    from serverfull.runtimes.telemetry.subscriptions import Destination

MOST_ANSWERED = 65_536
"""Bytes of an answer that are read."""

Connect = Callable[[int], Awaitable[tuple["StreamReader", "StreamWriter"]]]
"""Connects to a port of the sandbox's loopback.

:raises OSError: nothing listens there.
"""

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})\b")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,6})[ \t]*\r\n", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


class NotDelivered(Exception):
    """A batch has not been taken; the message says why."""


class Sender(Protocol):
    """Delivers batches, one after the other."""

    async def send(self, records: Sequence[bytes]) -> None:
        """Deliver a batch.

        :raises NotDelivered: it has not been taken; it may be sent again.
        """

    def close(self) -> None:
        """Close the connection. Closing twice is fine."""


def sender_to(destination: Destination, connect: Connect) -> Sender:
    """Give what delivers to a destination."""
    return (HttpSender if destination.protocol == "HTTP" else TcpSender)(destination, connect)


class _Line:
    """A connection that is opened when it is needed, and again when it has broken."""

    def __init__(self, destination: Destination, connect: Connect) -> None:
        self._destination = destination
        self._connect = connect
        self._streams: tuple[StreamReader, StreamWriter] | None = None

    async def _open(self) -> tuple[StreamReader, StreamWriter]:
        if self._streams is None or self._streams[1].is_closing() or self._streams[0].at_eof():
            self.close()
            self._streams = await self._connect(self._destination.port)
        return self._streams

    def close(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].transport.abort()


class TcpSender(_Line):
    """Sends a line of JSON for each record; nobody says whether they arrive."""

    async def send(self, records: Sequence[bytes]) -> None:
        """Write a batch."""
        try:
            _, writer = await self._open()
            writer.write(b"".join(record + b"\n" for record in records))
            await writer.drain()
        except OSError as error:
            self.close()
            raise NotDelivered(_why(error)) from None
        except BaseException:
            self.close()
            raise


class HttpSender(_Line):
    """Sends a JSON array of the records in a request."""

    async def send(self, records: Sequence[bytes]) -> None:
        """Send a batch, and read whether it was taken."""
        body = b"[" + b",".join(records) + b"]"
        place = self._destination
        head = (
            f"{place.method} {place.target} HTTP/1.1\r\nHost: {SANDBOX_NAMES[0]}:{place.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            reader, writer = await self._open()
            writer.write(head.encode() + body)
            await writer.drain()
            status = await self._answer(reader)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            self.close()
            raise NotDelivered(_why(error)) from None
        except BaseException:
            self.close()
            raise
        if not 200 <= status < 300:
            raise NotDelivered(f"the listener answered {status}")

    async def _answer(self, reader: StreamReader) -> int:
        head = await reader.readuntil(b"\r\n\r\n")
        status = _STATUS.match(head)
        if status is None:
            raise OSError("the answer is no HTTP")
        length = _LENGTH.search(head)
        if length is not None and int(length[1]) <= MOST_ANSWERED and _CLOSES.search(head) is None:
            await reader.readexactly(int(length[1]))
        else:  # nobody knows where it ends, or it is not worth reading
            self.close()
        return int(status[1])


def _why(error: Exception) -> str:
    with suppress(AttributeError):
        if error.strerror:  # type: ignore[attr-defined]
            return str(error.strerror)  # type: ignore[attr-defined]
    return str(error) or type(error).__name__
