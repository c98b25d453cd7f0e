"""Runs an application on the hardened server until a signal ends it.

1. The first SIGTERM or SIGINT starts a drain: new requests get 503, calls in flight and accepted events finish.
2. The second one, or the end of the drain's time, ends the process at once.

Called by ``serverfull serve`` and by programs that call `serve` themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from aiohttp import web

from serverfull.api.app import Dispatcher
from serverfull.api.gates import Gates
from serverfull.api.probes import AdminListener, parse_address
from serverfull.api.server import HardenedRunner
from serverfull.application import FRONT, HOST, as_fetcher, create_app
from serverfull.config import Settings
from serverfull.errors import AddressInUse, ConfigurationError, StartupError, UnsafeBind
from serverfull.fetchers.static import StaticFetcher
from serverfull.host import Host, Sharing
from serverfull.observability.logger import HostLogger
from serverfull.runtimes.capture import CapturePatch
from serverfull.runtimes.garbage import rarely_looked_for
from serverfull.runtimes.loops import LoopRunner, wait_in_spite_of_cancels
from serverfull.signals import ALLOWANCE, INTERRUPTED, Signals, leave_stuck_threads_behind, say
from serverfull.wiring.modes import refusal

if TYPE_CHECKING:
    from serverfull.config import LoadedSettings, ServerSettings
    from serverfull.domain.functions import Function, Handler
    from serverfull.fetchers.answers import MockAnswers
    from serverfull.interfaces import Fetcher
    from serverfull.workers.seat import Seat

BACKLOG = 2048
"""Connections that the system holds until they are accepted."""

DESCRIPTORS = 65_536
"""File descriptors that a host asks for; more than its connections and its functions need."""

DEFAULT_STATE = ".serverfull"
"""The directory that keeps what is deployed where a host serves nothing else."""

NOTHING_TO_SERVE = "There is nothing to serve: name a TARGET that has functions, such as app.py:functions."


def serve(
    fetcher: Fetcher | Mapping[str, Function | Handler] | web.Application, settings: Settings | None = None
) -> int:
    """Serve functions until SIGTERM or SIGINT; blocks.

    :param fetcher: a fetcher, a mapping of names to functions, or an application made by `create_app`.
    :param settings: None means all defaults; ignored for an application, which has its own.
    :return: the exit status: 0 after SIGTERM, 130 after SIGINT.
    :raises AddressInUse: another process listens on the address.
    :raises UnsafeBind: the address is reachable from other machines and nothing authenticates callers.
    :raises ConfigurationError: ``server.workers`` is more than 1 for what cannot be served by several processes.
    :raises TypeError: it is something else, or an application that `create_app` has not made.
    """
    if isinstance(fetcher, web.Application):
        if HOST not in fetcher:
            raise TypeError(
                "serve() takes an application that create_app() has made. "
                "One that it is mounted in runs on aiohttp's own server: aiohttp.web.run_app(application)."
            )
        settings = fetcher[HOST].settings
    settings = settings or Settings()
    check_bind(settings.server)
    if settings.server.workers > 1:
        functions = _functions_of(fetcher)
        return _serve_with_workers(lambda: functions, settings)
    app = fetcher if isinstance(fetcher, web.Application) else create_app(fetcher, settings)
    return _serve_alone(app)


def serve_mock(
    fetcher: Fetcher | Mapping[str, Function | Handler],
    settings: Settings | None = None,
    answers: MockAnswers | None = None,
) -> int:
    """Serve functions until SIGTERM or SIGINT as `serve` does, and answer without running any handler; blocks.

    :param fetcher: a fetcher, or a mapping of names to functions.
    :param settings: None means all defaults.
    :param answers: what is answered: `ZeroAnswers`, `RandomAnswers`, `StaticAnswers` or a class of your own. None: what
        the settings say, which is zero values by default.
    :return: the exit status: 0 after SIGTERM, 130 after SIGINT.
    :raises ConfigurationError: the answers cannot be used.
    :raises TargetInvalid: the ``mock`` of a function cannot be used.
    :raises AddressInUse: another process listens on the address.
    :raises UnsafeBind: the address is reachable from other machines and nothing authenticates callers.
    """
    settings = settings or Settings()
    settings = replace(settings, mock=replace(settings.mock, enabled=True))
    check_bind(settings.server)
    functions = as_fetcher(fetcher)
    if settings.server.workers > 1:
        return _serve_with_workers(lambda: functions, settings, answers)
    return _serve_alone(create_app(functions, settings, mock=answers))


def _serve_alone(app: web.Application, greet: Greeting | None = None) -> int:
    with LoopRunner(_loop_factory()) as runner:
        return runner.run(_serve(app, greet=greet))


@contextlib.asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    """Serve an application on the loop that runs, without signals; gives its URL. At the end calls in flight end first.

    :param app: made by `create_app`.
    :raises StartupError: it cannot listen on the address.
    """
    host = app[HOST]
    sock = bind(host.settings.server)
    runner = _runner(app)
    try:
        await runner.setup()
        host.attach_server(runner.hardened)
        await web.SockSite(runner, sock, backlog=BACKLOG).start()
        yield url_of(sock)
        host.state = "draining"
        runner.drain()
        timeout = host.settings.server.shutdown_timeout
        await asyncio.gather(runner.drained(timeout), host.drain(timeout))
    finally:
        sock.close()
        await runner.cleanup()


def _runner(app: web.Application) -> HardenedRunner:
    host = app[HOST]
    return HardenedRunner(app, settings=host.settings.server, logger=host.logger, fast=Dispatcher(app[FRONT], app))


Greeting: TypeAlias = "Callable[[Host, str], Awaitable[None]]"
"""Gets a host that is ready, and its URL."""


def run_serve(
    targets: Sequence[str], loaded: LoadedSettings, *, reload: bool = False, greet: Greeting | None = None
) -> int:
    """Do what ``serverfull serve [TARGET]...`` does.

    :param targets: none serves only what is deployed, and keeps it in a directory unless the settings say otherwise.
    :param reload: modules of targets are loaded anew when they change.
    :param greet: called when the host is ready; not with several workers.
    :raises TargetError: a target cannot be turned into functions.
    :raises ConfigurationError: there is no target, and nothing can be deployed either; or code that is to be reloaded
        cannot be.
    :raises StartupError: the host cannot start.
    """
    settings = loaded.settings
    check_bind(settings.server)
    if reload:
        _check_reload(targets, settings)
    if not targets and not settings.state.path:
        if reason := refusal(settings):
            raise ConfigurationError(f"{NOTHING_TO_SERVE} This host takes no deployments: {reason}")
        settings = replace(settings, state=replace(settings.state, path=DEFAULT_STATE))
    if settings.server.workers > 1:  # each of them imports the target, the supervisor does not
        return _serve_with_workers(lambda: _functions_at(targets), settings)
    CapturePatch.install()  # before the target is imported, so that what it takes hold of is routed
    try:
        return _serve_alone(create_app(_functions_at(targets, reload=reload), settings), greet)
    finally:
        CapturePatch.uninstall()


def _check_reload(targets: Sequence[str], settings: Settings) -> None:
    if not targets:
        raise ConfigurationError("--reload takes a TARGET whose code it loads anew, such as app.py:functions.")
    if settings.server.workers > 1:
        raise ConfigurationError(
            "--reload is for one process: several would serve different code for a while, and the limits that they "
            "share are those of the functions that there were at the start. Serve with one worker."
        )


def _functions_at(targets: Sequence[str], *, reload: bool = False) -> Fetcher:
    if not targets:
        return StaticFetcher({})
    from serverfull.fetchers.targets import load_target, load_targets
    from serverfull.wiring.targets import ELSEWHERE

    if reload:
        from serverfull.fetchers.reloading import ReloadingFetcher

        return load_targets(targets, ReloadingFetcher, ELSEWHERE)
    return load_targets(targets, load_target, ELSEWHERE)


def check_bind(settings: ServerSettings) -> None:
    """Refuse to be reachable from other machines while nothing authenticates the callers.

    :raises UnsafeBind: unless the settings say so in so many words.
    """
    if settings.insecure_no_auth or settings.on_loopback:
        return
    raise UnsafeBind(
        f"refusing to listen on {settings.host}: other machines could run code here, and nothing authenticates them. "
        "Listen on 127.0.0.1, or pass --insecure-no-auth if a network you trust is all that can reach it."
    )


def _serve_with_workers(
    functions: Callable[[], Fetcher], settings: Settings, answers: MockAnswers | None = None
) -> int:
    """Serve with several processes: this one becomes their supervisor.

    :param functions: gives the functions; called in each worker.
    :param answers: as for `create_app`.
    """
    from serverfull.workers.limits import check_limits
    from serverfull.workers.supervisor import Supervisor

    check_limits(settings)
    with _hold_port(settings.server) as port:
        settings = replace(settings, server=replace(settings.server, port=port.getsockname()[1]))
        supervisor = Supervisor(
            partial(_work, functions, settings, answers),
            settings=settings,
            port=port,
            url=_announced(port, settings),
            logger=HostLogger(settings.logging),
        )
        return INTERRUPTED if supervisor.run() == signal.SIGINT else 0


def _work(functions: Callable[[], Fetcher], settings: Settings, answers: MockAnswers | None, seat: Seat) -> int:
    """Serve as one of several workers."""
    from serverfull.workers.limits import check_functions, part_of
    from serverfull.workers.shared_admission import LostElsewhere
    from serverfull.workers.shared_events import SharedEvents

    CapturePatch.install()
    fetcher = functions()
    check_functions(fetcher)
    with LoopRunner(_loop_factory()) as runner:
        known = runner.run(_list(fetcher))
        metrics = seat.metrics(known)
        admission = seat.admission(settings.limits.max_concurrency, known)
        lost_elsewhere = LostElsewhere(seat.memory.figure_cells(None), seat.number)
        sharing = Sharing(metrics, admission, lost_elsewhere, seat.number, SharedEvents(seat.siblings))
        app = create_app(fetcher, part_of(settings, seat.number), sharing=sharing, mock=answers)
        status = runner.run(_serve(app, seat))
    leave_stuck_threads_behind(status)
    return status


async def _list(fetcher: Fetcher) -> Mapping[str, Function]:
    return await fetcher.list()


def _functions_of(functions: Fetcher | Mapping[str, Function | Handler] | web.Application) -> Fetcher:
    if isinstance(functions, web.Application):
        raise ConfigurationError(
            "server.workers is more than 1, but an application is made for one process: give serve() the functions, or "
            "set server.workers to 1"
        )
    return as_fetcher(functions)


def _hold_port(settings: ServerSettings) -> socket.socket:
    """Keep a port for sockets that share it, without listening.

    While it is held no server can take the port, not even one that shares ports: all of them set SO_REUSEADDR, and the
    holder does not. (It must where connections of a server that did not share the port linger there.)

    :raises AddressInUse: another process listens there, whether it shares the port or not.
    :raises StartupError: the address cannot be bound for another reason.
    """
    bind(settings).close()
    holder = socket.socket(_family(settings))
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        holder.bind((settings.host.strip("[]"), settings.port))
    except OSError:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((settings.host.strip("[]"), settings.port))
    return holder


def bind(settings: ServerSettings, *, shared: bool = False) -> socket.socket:
    """Open the listening socket.

    :param shared: other processes of this user listen on the same port.
    :raises AddressInUse: another process listens there.
    :raises StartupError: the address cannot be bound for another reason.
    """
    host, port = settings.host.strip("[]"), settings.port
    sock = socket.socket(_family(settings))
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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


def _family(settings: ServerSettings) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in settings.host else socket.AF_INET


def raise_descriptor_limit() -> None:
    """Use as many file descriptors as the system allows the process: each connection takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(app: web.Application, seat: Seat | None = None, greet: Greeting | None = None) -> int:
    """Serve until a signal, or the supervisor of ``seat``, says to stop."""
    host = app[HOST]
    settings = host.settings.server
    raise_descriptor_limit()
    sock = bind(settings, shared=seat is not None)
    runner = _runner(app)
    numbers = host.settings.signals.os_signals if host.settings.signals.installed else ()
    stack = contextlib.AsyncExitStack()
    with contextlib.closing(sock), Signals(numbers, settings.shutdown_timeout) as signals, rarely_looked_for():
        try:
            with nullcontext() if seat is None else _attended(seat, signals, host):
                await runner.setup()
                host.attach_server(runner.hardened)
                if seat is not None:
                    await stack.enter_async_context(seat.siblings.answering(host.logger))
                await web.SockSite(runner, sock, backlog=BACKLOG).start()
                if settings.admin_address:
                    await stack.enter_async_context(_admin_listener(host))
                if seat is None:
                    say(f"serverfull ready {_announced(sock, host.settings)}")
                else:
                    seat.report_ready()
                if greet is not None:
                    greeting = asyncio.ensure_future(greet(host, url_of(sock)))
                    stack.callback(greeting.cancel)
                await wait_in_spite_of_cancels(signals.first)
                host.logger.info("draining", reason=signals.name, seconds=settings.shutdown_timeout)
                await _drain(app, runner, signals)
        finally:
            sock.close()
            await stack.aclose()
            await runner.cleanup()
            host.logger.flush(ALLOWANCE)
            signals.over()
    return INTERRUPTED if signals.number == signal.SIGINT else 0


def _admin_listener(host: Host) -> AdminListener:
    settings = host.settings.server
    gates = Gates(settings, parse_address(settings.admin_address)[0])
    return AdminListener(host, gate=gates.check, settings=settings, logger=host.logger)


def _attended(seat: Seat, signals: Signals, host: Host) -> AbstractContextManager[None]:
    """Let a worker's supervisor be heard, and its figures be kept fresh for the other workers' scrapes."""
    return seat.attended(signals.drain, signals.second.set, host.metrics.sample)


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
        elif cut_off := runner.hardened.awaited:
            host.logger.warning(
                "calls cut off at shutdown", count=cut_off, hint="they took longer than the shutdown_timeout"
            )
    finally:
        for task in (finishing, at_once):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def url_of(sock: socket.socket) -> str:
    """Give the URL of a listening socket, with its real port."""
    host, port = sock.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _announced(sock: socket.socket, settings: Settings) -> str:
    """Give what the ready line says after its mark: the URL first, for those who read the line by program."""
    return f"{url_of(sock)} (mock mode: no handler runs)" if settings.mock.enabled else url_of(sock)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
