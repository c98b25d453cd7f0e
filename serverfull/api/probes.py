"""What supervisors, load balancers and Prometheus ask the host: is it alive, is it ready, how is it, what did it do.

`add_probes` puts the paths on the application, so they answer on the server's own loop. `AdminListener` serves them
a second time from a thread with a loop of its own: it still answers while a handler blocks the server's loop, and says
which function that is. Through an `AdminListener` the view is read on that thread, so it must be safe to read there.

Figures, settings, names of failed functions and stacks are for this machine alone: other machines get 403, or the bare
status. Only an `AdminListener`, whose address somebody chose for that, gives its figures to whoever reaches it. The
address that counts is the connection's; ``X-Forwarded-For`` can be forged and is not read.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from ipaddress import IPv6Address, ip_address
from json import dumps
from types import TracebackType
from typing import Any, Protocol
from uuid import uuid4

from aiohttp import web

from serverfull.api.connection import REQUEST_ID, absolute_host
from serverfull.api.errors import error_answer
from serverfull.api.server import HardenedRunner, ServerLog
from serverfull.config import ServerSettings
from serverfull.errors import AddressInUse, RequestError, StartupError

RETRY_AFTER = "1"
"""Seconds after which a client may ask again whether the host is ready."""

JOIN_TIMEOUT = 5.0
"""Seconds that leaving an `AdminListener` waits for its thread."""


class StallReport(Protocol):
    """A loop that a handler blocks; the watchdog's report fits."""

    @property
    def function(self) -> str:
        """Give the name of the function whose handler it is."""

    @property
    def seconds(self) -> float:
        """Give how long the loop has been silent."""

    @property
    def stack(self) -> str:
        """Give the stack of the loop's thread."""


class HostView(Protocol):
    """What probes show of a host."""

    @property
    def state(self) -> str:
        """Give ``starting``, ``serving``, ``draining`` or ``stopped``."""

    @property
    def stall(self) -> StallReport | None:
        """Give the stall of the server's loop that is going on, if any."""

    def failed_functions(self) -> Mapping[str, str]:
        """Give the functions that cannot be invoked any more, with why."""

    def info(self) -> Mapping[str, Any]:
        """Give version, process, workers and settings; no secrets, and nothing of the environment."""

    def metrics_text(self) -> tuple[bytes, str]:
        """Give the figures for Prometheus and their content type."""


class Gate(Protocol):
    """Refuses requests that web pages of other sites have made; ``Gates.check`` is one."""

    def __call__(self, headers: Any, host_from_absolute_uri: str | None = None, /) -> None:
        """Let the request pass or raise RequestRefused."""


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_probes(
    app: web.Application,
    view: HostView,
    *,
    gate: Gate,
    health_check: str = "/healthcheck",
    new_request_id: Callable[[], str] = lambda: str(uuid4()),
    admin: bool = False,
) -> None:
    """Add the probes' paths to an application.

    :param view: what they show.
    :param gate: asked before anything is answered.
    :param health_check: the path that always answers 200.
    :param admin: the application is an `AdminListener`'s: not on the server's loop, and open to whoever reaches it.
    """
    probes = _Probes(view, gate, new_request_id, admin)
    for path, answer in {
        health_check: probes.healthcheck,
        "/_serverfull/live": probes.live,
        "/_serverfull/ready": probes.ready,
        "/_serverfull/health": probes.health,
        "/_localstack/health": probes.health,
        "/_serverfull/info": probes.info,
        "/metrics": probes.metrics,
    }.items():
        app.router.add_get(path, probes.guarded(answer))


class _Probes:
    """The answers, one method for each path."""

    def __init__(self, view: HostView, gate: Gate, new_request_id: Callable[[], str], admin: bool) -> None:
        self._view = view
        self._gate = gate
        self._new_request_id = new_request_id
        self._admin = admin

    def guarded(self, answer: Callable[[web.Request], web.Response]) -> Handler:
        """Put the gate before an answer and the request id on it, and turn refusals into answers."""

        async def handle(request: web.Request) -> web.StreamResponse:
            request[REQUEST_ID] = request_id = self._new_request_id()
            try:
                self._gate(request.headers, absolute_host(request))
                response = answer(request)
            except RequestError as refusal:
                error = error_answer(refusal, request_id)
                return web.Response(status=error.status, headers=error.headers, body=error.body)
            response.headers["x-amzn-RequestId"] = request_id
            response.headers["Cache-Control"] = "no-store"
            return response

        return handle

    def healthcheck(self, request: web.Request) -> web.Response:
        """Say that the host serves."""
        return _json(200, {"status": "ok"})

    def live(self, request: web.Request) -> web.Response:
        """Say whether the server's loop turns. On that loop the answer can only be yes."""
        stall = self._stall_elsewhere()
        if stall is None:
            return _json(200, {"status": "alive"})
        return _json(503, {"status": "stalled", "stall": _stall(stall, with_stack=is_local(request))})

    def _stall_elsewhere(self) -> StallReport | None:
        return self._view.stall if self._admin else None

    def ready(self, request: web.Request) -> web.Response:
        """Say whether invocations are taken. While the server's loop stands still none are, whatever its state."""
        state, stall = self._view.state, self._stall_elsewhere()
        if state == "serving" and stall is None:
            return _json(200, {"status": "ready"})
        document: dict[str, Any] = {"status": "stalled" if state == "serving" else state}
        if stall is not None:
            document["stall"] = _stall(stall, with_stack=False)
        return _json(503, document, {"Retry-After": RETRY_AFTER})

    def health(self, request: web.Request) -> web.Response:
        """Say how the host is, in the words of LocalStack's health path too, so that tools that wait for that work."""
        view = self._view
        state, stall, failed = view.state, view.stall, view.failed_functions()
        status = state if state != "serving" else "degraded" if stall is not None or failed else "ok"
        document: dict[str, Any] = {
            "status": status,
            "services": {"lambda": "running" if state == "serving" else state},
        }
        if is_local(request):
            if stall is not None:
                document["stall"] = _stall(stall, with_stack=False)
            if failed:
                document["failed_functions"] = dict(failed)
        return _json(200, document)

    def info(self, request: web.Request) -> web.Response:
        """Say what runs here."""
        return _json(200, self._view.info()) if self._may_know(request) else _forbidden()

    def metrics(self, request: web.Request) -> web.Response:
        """Give the figures."""
        if not self._may_know(request):
            return _forbidden()
        body, content_type = self._view.metrics_text()
        return web.Response(body=body, headers={"Content-Type": content_type})

    def _may_know(self, request: web.Request) -> bool:
        return self._admin or is_local(request)


def is_local(request: web.BaseRequest) -> bool:
    """Say whether a request came from this machine, by the address of its connection."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    if not isinstance(peer, tuple):
        return peer is not None  # a Unix socket has an empty name; without a connection nobody gets to know anything
    try:
        address = ip_address(str(peer[0]).partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _json(status: int, document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> web.Response:
    body = dumps(document, default=str).encode()
    return web.Response(status=status, body=body, headers={"Content-Type": "application/json", **(headers or {})})


def _stall(stall: StallReport, *, with_stack: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"function": stall.function, "seconds": round(stall.seconds, 3)}
    return {**found, "stack": stall.stack} if with_stack else found


def _forbidden() -> web.Response:
    return _json(
        403,
        {
            "message": "Only clients on this machine may read this here. "
            "To read it from elsewhere, give the host a listener for it with the setting server.admin_address."
        },
    )


class AdminListener:
    """Serves the probes from a thread of its own. Use it as an async context manager on the server's loop.

    The thread is a daemon: it never keeps the process from ending.

    :param view: read on the listener's thread.
    :param gate: the host's own Host and Origin gates, or such for the address here.
    :param settings: ``admin_address`` (``host:port``; no host means 127.0.0.1, port 0 lets the system choose), the
        health check's path and the deadlines for clients are used.
    :param logger: takes what clients did wrong, on the listener's thread.
    """

    def __init__(self, view: HostView, *, gate: Gate, settings: ServerSettings, logger: ServerLog) -> None:
        self.host, self._wanted_port = parse_address(settings.admin_address)
        self.port = 0
        """The port that is listened on, once it is."""
        self._view = view
        self._gate = gate
        self._settings = settings
        self._logger = logger
        self._listening: Future[int] = Future()
        self._ended: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> AdminListener:
        """Listen.

        :raises AddressInUse: another process has the address.
        :raises StartupError: the address cannot be listened on.
        """
        self._thread = threading.Thread(target=self._run, name="serverfull-admin", daemon=True)
        contextvars.Context().run(self._thread.start)
        try:
            self.port = await asyncio.wrap_future(self._listening)
        except OSError as error:
            self._thread.join(JOIN_TIMEOUT)
            address = f"{self.host}:{self._wanted_port}"
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(f"the admin address {address} is in use") from error
            raise StartupError(f"cannot listen on the admin address {address}: {error.strerror or error}") from error
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening. Doing it twice is fine."""
        if self._thread is None or not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        async with asyncio.timeout(JOIN_TIMEOUT):
            await asyncio.shield(asyncio.wrap_future(self._ended))
        self._thread.join(JOIN_TIMEOUT)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # the thread's boundary: whoever started it hears of it
            if self._listening.done():
                self._logger.error("admin listener failed", exc_info=error)
            else:
                self._listening.set_exception(error)
        finally:
            self._ended.set_result(None)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        add_probes(app, self._view, gate=self._gate, health_check=self._settings.health_check, admin=True)
        runner = HardenedRunner(app, settings=self._settings, logger=self._logger)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self._wanted_port).start()
            self._listening.set_result(int(runner.addresses[0][1]))
            await self._stop.wait()
        finally:
            runner.abort()
            await runner.cleanup()


def parse_address(address: str) -> tuple[str, int]:
    """Split ``host:port``; brackets around an IPv6 address are taken off, no host means 127.0.0.1.

    :raises StartupError: it is no such address.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise StartupError(f"{address!r} is not an address written host:port")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)
