"""Runs an application on the hardened server until a signal ends it.

1. The first SIGTERM or SIGINT starts a drain: new requests get 503, calls in flight and accepted events finish.
2. The second one, or the end of the drain's time, ends the process at once.

Called by ``serverfull serve`` and by programs that call `serve` themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from serverfull.api.app import Dispatcher
from serverfull.api.server import HardenedRunner
from serverfull.errors import AddressInUse, StartupError, UnsafeBind
from serverfull.host import FRONT, HOST, create_app
from serverfull.runtimes.capture import CapturePatch

if TYPE_CHECKING:
    from serverfull.config import LoadedSettings, ServerSettings, Settings
    from serverfull.domain.functions import Function, Handler
    from serverfull.interfaces import Fetcher

BACKLOG = 2048
"""Connections that the system holds until they are accepted."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells expect it."""


def serve(
    fetcher: Fetcher | Mapping[str, Function | Handler] | web.Application, settings: Settings | None = None
) -> int:
    """Serve functions until SIGTERM or SIGINT; blocks.

    :param fetcher: a fetcher, a mapping of names to functions, or an application made by `create_app`.
    :param settings: None means all defaults; ignored for an application, which has its own.
    :return: the exit status: 0 after SIGTERM, 130 after SIGINT.
    :raises AddressInUse: another process listens on the address.
    :raises UnsafeBind: the address is reachable from other machines and nothing authenticates callers.
    """
    app = fetcher if isinstance(fetcher, web.Application) else create_app(fetcher, settings)
    check_bind(app[HOST].settings.server)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(app))


def run_serve(target: str, loaded: LoadedSettings) -> int:
    """Do what ``serverfull serve TARGET`` does.

    :raises TargetError: the target cannot be turned into functions.
    :raises StartupError: the host cannot start.
    """
    from serverfull.fetchers.targets import load_target

    check_bind(loaded.settings.server)
    CapturePatch.install()  # before the target is imported, so that what it takes hold of is routed
    try:
        status = serve(load_target(target), loaded.settings)
    finally:
        CapturePatch.uninstall()
    _leave_stuck_threads_behind(status)
    return status


def check_bind(settings: ServerSettings) -> None:
    """Refuse to be reachable from other machines while nothing authenticates the callers.

    :raises UnsafeBind: unless the settings say so in so many words.
    """
    if settings.insecure_no_auth or is_loopback(settings.host):
        return
    raise UnsafeBind(
        f"refusing to listen on {settings.host}: other machines could run code here, and nothing authenticates them. "
        "Listen on 127.0.0.1, or pass --insecure-no-auth if a network you trust is all that can reach it."
    )


def is_loopback(host: str) -> bool:
    """Say whether an address to bind is reachable from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def bind(settings: ServerSettings) -> socket.socket:
    """Open the listening socket.

    :raises AddressInUse: another process listens there.
    :raises StartupError: the address cannot be bound for another reason.
    """
    host, port = settings.host.strip("[]"), settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(
                f"cannot listen on {host}:{port}: another process does. "
                "Stop it, or choose another --port (0: any free one)."
            ) from None
        raise StartupError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    except OverflowError:
        sock.close()
        raise StartupError(f"cannot listen on port {port}: ports go from 0 to 65535") from None
    sock.setblocking(False)
    return sock


async def _serve(app: web.Application) -> int:
    host = app[HOST]
    settings = host.settings.server
    sock = bind(settings)
    runner = HardenedRunner(app, settings=settings, logger=host.logger, fast=Dispatcher(app[FRONT], app))
    try:
        await runner.setup()
        host.attach_server(runner.hardened)
        await web.SockSite(runner, sock, backlog=BACKLOG).start()
        signals = Signals(host.settings.signals.os_signals if host.settings.signals.installed else ())
        with signals:
            sys.stdout.write(f"serverfull ready {url_of(sock)}\n")
            sys.stdout.flush()
            await signals.first.wait()
            host.logger.info("draining", reason=signals.name, seconds=settings.shutdown_timeout)
            await _drain(app, runner, signals)
        return INTERRUPTED if signals.number == signal.SIGINT else 0
    finally:
        sock.close()
        await runner.cleanup()


async def _drain(app: web.Application, runner: HardenedRunner, signals: Signals) -> None:
    host = app[HOST]
    host.state = "draining"
    runner.drain()
    timeout = host.settings.server.shutdown_timeout
    finishing: asyncio.Future[Any] = asyncio.ensure_future(asyncio.gather(runner.drained(timeout), host.drain(timeout)))
    at_once: asyncio.Future[Any] = asyncio.ensure_future(signals.second.wait())
    try:
        await asyncio.wait({finishing, at_once}, return_when=asyncio.FIRST_COMPLETED)
        if at_once.done():
            host.logger.warning("ending at once", reason="a second signal")
            runner.abort()
    finally:
        for task in (finishing, at_once):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


class Signals:
    """Turns operating system signals into two events: the first one, and any further one."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self._numbers = numbers
        self.number = 0
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    @property
    def name(self) -> str:
        """The first signal's name."""
        return signal.Signals(self.number).name if self.number else ""

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in self._numbers:
                loop.add_signal_handler(number, self._received, number)
        return self

    def __exit__(self, *exc: object) -> None:
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in self._numbers:
                loop.remove_signal_handler(number)

    def _received(self, number: int) -> None:
        if self.first.is_set():
            self.second.set()
        else:
            self.number = number
            self.first.set()


def url_of(sock: socket.socket) -> str:
    """Give the URL of a listening socket, with its real port."""
    host, port = sock.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _leave_stuck_threads_behind(status: int) -> None:
    """End the process where a handler's own thread would keep it from ending."""
    stuck = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    for thread in stuck:
        thread.join(timeout=1.0)
    if any(thread.is_alive() for thread in stuck):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
