"""The HTTP server: aiohttp's, bounded and drainable.

`serverfull.host` makes one `HardenedRunner` for each application, gives it sites (``aiohttp.web.TCPSite``,
``web.SockSite``) and ends it with `HardenedRunner.drain`, `HardenedRunner.drained` and ``cleanup``. All of it runs on
one event loop; nothing here starts a task or a thread. What a single connection does is in
`serverfull.api.connection`.

Not aiohttp's defaults: bodies are not decompressed, there is no access log and no ``Server`` header, and every wait for
a client has a deadline of `serverfull.config.ServerSettings`.
"""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING, Any, Protocol, cast

from aiohttp import web
from aiohttp.web_protocol import ERROR, RequestHandler

from serverfull.api.connection import (
    FIELD_COUNT,
    FIELD_LIMIT,
    REQUEST_ID,
    TARGET_LIMIT,
    UNREADABLE,
    HardenedProtocol,
    HardenedRequest,
    absolute_host,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http import RawRequestMessage
    from aiohttp.streams import StreamReader

    from serverfull.config import ServerSettings

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ACCEPT_FAILED = "socket.accept() out of system resource"
"""What asyncio says when a process has no file descriptors left."""
CLOSING_TIME = 1.0
"""Seconds that the last bytes of answers have to leave when everything else has ended."""

__all__ = ["REQUEST_ID", "HardenedProtocol", "HardenedRunner", "HardenedServer", "ServerLog", "absolute_host"]


class ServerLog(Protocol):
    """What the server logs to; structlog's loggers fit."""

    def info(self, event: str, **fields: Any) -> Any:
        """Log what an operator may want to know."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Log what a client did wrong."""

    def error(self, event: str, **fields: Any) -> Any:
        """Log a failure of the host; ``exc_info`` holds the exception."""


def connection_limit(wanted: int) -> int:
    """Give how many connections the process has file descriptors for, at most as many as wanted.

    A quarter of the descriptors (64 at most) stays free for files and sockets of the functions. Without this, `accept`
    would run out of descriptors long before ``max_connections`` of a default system.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, descriptors - min(64, descriptors // 4)))


def _nobody(_status: int) -> None:
    """Hear of an answer while nobody counts them."""


class HardenedServer(web.Server):
    """Makes the protocol of each connection, counts connections and bounds how many there are.

    :param handler: answers requests; it gets what `web.Application._make_request` would make.
    :param client_max_size: bytes of a body that ``request.read()`` takes before it raises 413.
    """

    def __init__(self, handler: Handler, *, settings: ServerSettings, log: ServerLog, client_max_size: int) -> None:
        super().__init__(handler, request_factory=self.make_request)  # type: ignore[arg-type]
        self.settings = settings
        self.log = log
        self.limit = connection_limit(settings.max_connections)
        self.draining = False
        """Whether the host takes no new calls. Whoever dispatches requests answers 503 while this is set; the answers
        then carry ``Connection: close`` by themselves."""
        self.accepted_total = 0
        self.closed_total = 0
        self.active_total = 0
        self.idle_total = 0
        self.refused_total = 0
        self.evicted_total = 0
        self.on_answer: Callable[[int], object] = _nobody
        """Called with the status of each answer."""
        self._client_max_size = client_max_size
        self._open: set[HardenedProtocol] = set()
        self._new = 0
        self._idle: dict[HardenedProtocol, None] = {}  # ordered: the longest idle one is first
        self._clients: dict[str, int] = {}
        self._awaited: set[HardenedProtocol] = set()
        self._drained = asyncio.Event()
        self._all_closed: asyncio.Event | None = None
        self._next_refusal_log = 0.0
        self._unlogged = 0
        if self.limit < settings.max_connections:
            log.info("max_connections lowered", limit=self.limit, reason="open files are limited; see ulimit -n")

    def __call__(self) -> RequestHandler:
        """Make the protocol of one connection; the event loop calls it for each `accept`."""
        return HardenedProtocol(
            self,
            loop=self._loop,
            keepalive_timeout=self.settings.idle_timeout,
            access_log=None,
            auto_decompress=False,
            max_line_size=TARGET_LIMIT,
            max_field_size=FIELD_LIMIT,
            max_headers=FIELD_COUNT,
        )

    def make_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        """Make the request object; aiohttp calls it for each request and for each one that it could not read."""
        if message is ERROR:
            message = UNREADABLE
        return HardenedRequest(
            message, payload, protocol, writer, task, self._loop, client_max_size=self._client_max_size
        )

    # Figures

    @property
    def connections_new(self) -> int:
        """Connections that have not sent a request yet."""
        return self._new

    @property
    def connections_idle(self) -> int:
        """Connections between two requests."""
        return len(self._idle)

    @property
    def connections_active(self) -> int:
        """Connections with a request in flight."""
        return len(self._open) - self._new - len(self._idle) - self.connections_hijacked

    @property
    def connections_hijacked(self) -> int:
        """Connections that speak something else than HTTP by now (WebSocket); counted on demand."""
        return sum(1 for connection in self._open if connection.busy and connection._payload_parser is not None)

    # What connections tell

    def admit(self, connection: HardenedProtocol, transport: asyncio.Transport) -> bool:
        """Decide whether there is room for a new connection, closing the longest idle one where there is none."""
        peer = transport.get_extra_info("peername")
        client = str(peer[0]) if isinstance(peer, tuple) else ""
        of_client = self._clients.get(client, 0)
        if client and of_client >= self.settings.max_connections_per_client:
            return self._turn_away(client, "max_connections_per_client is reached")
        if len(self._open) >= self.limit and not self._evict():
            return self._turn_away(client, "max_connections is reached and none is idle")
        connection.client = client
        self._clients[client] = of_client + 1
        self._open.add(connection)
        self._new += 1
        self.accepted_total += 1
        return True

    def _evict(self) -> bool:
        for connection in self._idle:
            del self._idle[connection]
            connection.busy = True  # so that nothing counts or evicts it again while it closes
            connection.force_close()
            self.evicted_total += 1
            return True
        return False

    def _turn_away(self, client: str, reason: str) -> bool:
        self.refused_total += 1
        self._unlogged += 1
        now = self._loop.time()
        if now >= self._next_refusal_log:
            self.log.warning("connection refused", reason=reason, peer=client, count=self._unlogged)
            self._next_refusal_log = now + 1.0
            self._unlogged = 0
        return False

    def busy(self, connection: HardenedProtocol) -> None:
        """Hear that a connection has a request."""
        connection.busy = True
        self.active_total += 1
        if connection.fresh:
            connection.fresh = False
            self._new -= 1
        else:
            self._idle.pop(connection, None)

    def rest(self, connection: HardenedProtocol) -> None:
        """Hear that a connection has answered all its requests, even where it is gone by now."""
        connection.busy = False
        if connection in self._open:
            self._idle[connection] = None
            self.idle_total += 1
        if self.draining:
            self._no_longer_awaited(connection)

    def release(self, connection: HardenedProtocol) -> None:
        """Hear that a connection is closed."""
        self._open.discard(connection)
        self._idle.pop(connection, None)
        if connection.fresh:
            self._new -= 1
        self.closed_total += 1
        if self._all_closed is not None and not self._open:
            self._all_closed.set()
        left = self._clients[connection.client] - 1
        if left:
            self._clients[connection.client] = left
        else:
            del self._clients[connection.client]

    def watch_accept(self) -> Callable[[], None]:
        """Have one log line a second, instead of hundreds with tracebacks, while `accept` finds no free descriptor.

        asyncio then pauses accepting for a second, but reports to the loop's exception handler as many times as the
        backlog is long. uvloop closes the connections that wait and says nothing.

        :return: undoes it.
        """
        loop, before = self._loop, self._loop.get_exception_handler()
        next_log = float("-inf")

        def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            nonlocal next_log
            message = str(context.get("message"))
            if self.draining and "_start_serving" in message:
                return  # asyncio wants to go on accepting on a socket that is closed by now
            if message != ACCEPT_FAILED:
                (before or type(loop).default_exception_handler)(loop, context)
            elif loop.time() >= next_log:
                next_log = loop.time() + 1.0
                self.log.warning("accept paused", reason=str(context.get("exception")))

        def undo() -> None:
            # Within a second of a failure asyncio still has retries under way, which would fail on closed sockets.
            if loop.get_exception_handler() is handle and loop.time() > next_log + 1.0:
                loop.set_exception_handler(before)

        loop.set_exception_handler(handle)
        return undo

    # The end

    def start_drain(self) -> None:
        """Close idle connections, and let every answer from here on be its connection's last."""
        if self.draining:
            return
        self.draining = True
        self._awaited = {connection for connection in self._connections if connection._request_in_progress}  # type: ignore[misc]
        for connection in list(self._idle):
            connection.force_close()
        if not self._awaited:
            self._drained.set()

    def _no_longer_awaited(self, connection: HardenedProtocol) -> None:
        self._awaited.discard(connection)
        if not self._awaited:
            self._drained.set()

    async def wait_drained(self) -> None:
        """Wait until every request that was in flight when the drain began has its answer."""
        await self._drained.wait()

    @property
    def awaited(self) -> int:
        """How many requests that were in flight when the drain began have no answer yet."""
        return len(self._awaited)

    def abort(self) -> None:
        """Cut every connection off and cancel what runs for it."""
        for connection in list(self._open):
            connection.abort()
        self._cancel_all()
        self._drained.set()

    def _cancel_all(self) -> list[asyncio.Task[None]]:
        tasks = []
        for connection in list(self._connections):
            if connection._task_handler is not None:
                connection._task_handler.cancel()
                tasks.append(connection._task_handler)
            connection.force_close()
        return tasks

    async def shutdown(self, timeout: float | None = None) -> None:
        """Cancel what still runs, close every connection and wait a moment for both.

        In place of aiohttp's, which would wait for the handlers a second time.

        :param timeout: not used: whoever wants to wait for handlers has done so by `wait_drained`.
        """
        tasks = self._cancel_all()
        try:
            async with asyncio.timeout(CLOSING_TIME):
                await asyncio.gather(*tasks, return_exceptions=True)
                if self._open:
                    self._all_closed = asyncio.Event()
                    await self._all_closed.wait()
        except TimeoutError:
            self.abort()
        self._connections.clear()


class HardenedRunner(web.AppRunner):
    """Runs an application on a `HardenedServer`.

    :param app: started and frozen by ``setup()``, shut down and cleaned up by ``cleanup()``.
    :param fast: answers requests in place of the application's own ``_handle``, which it may call for those that it
        leaves to the router.
    """

    __slots__ = ("_fast", "_log", "_settings", "_unwatch")

    def __init__(
        self, app: web.Application, *, settings: ServerSettings, logger: ServerLog, fast: Handler | None = None
    ) -> None:
        super().__init__(app, handle_signals=False)
        self._settings = settings
        self._log = logger
        self._fast = fast
        self._unwatch: Callable[[], None] | None = None

    @property
    def hardened(self) -> HardenedServer:
        """The server, once ``setup()`` is done."""
        if self._server is None:
            raise RuntimeError("the runner is not set up")
        return cast(HardenedServer, self._server)

    async def _make_server(self) -> web.Server:
        app = self._app
        app._set_loop(asyncio.get_running_loop())
        app.on_startup.freeze()
        await app.startup()
        app.freeze()
        server = HardenedServer(
            self._fast or app._handle,
            settings=self._settings,
            log=self._log,
            client_max_size=app._client_max_size,
        )
        self._unwatch = server.watch_accept()
        return server

    def drain(self) -> None:
        """Begin the end: idle connections close, calls in flight go on, and the server's ``draining`` flag is up.

        The sites go on listening so that clients that come now hear 503 and not a refused connection.
        """
        self.hardened.start_drain()

    async def drained(self, timeout: float) -> bool:
        """Wait for the calls in flight, then stop listening.

        :param timeout: seconds.
        :return: whether all of them ended in time.
        """
        try:
            async with asyncio.timeout(timeout):
                await self.hardened.wait_drained()
        except TimeoutError:
            return False
        finally:
            for site in list(self._sites):
                await site.stop()
        return True

    def abort(self) -> None:
        """End at once, for a second signal: calls in flight are cancelled and their clients cut off."""
        self.hardened.abort()

    async def cleanup(self) -> None:
        """Drain for ``shutdown_timeout`` where nobody has, then close everything. Doing it twice is fine."""
        if isinstance(self._server, HardenedServer) and not self._server.draining:
            self.drain()
            await self.drained(self._settings.shutdown_timeout)
        await super().cleanup()
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
