"""The composition root: settings and a fetcher in, a host out. It and `wiring` alone name what runs functions.

`Host` wires everything that runs functions and owns it in one exit stack; its larger parts are put together in
`serverfull.wiring`. `serverfull.application` puts a host behind HTTP, and `serverfull.serving` runs that until a signal
ends it.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from serverfull import __version__
from serverfull.config import Settings
from serverfull.control_plane import ControlPlane
from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.records import Partition
from serverfull.errors import TargetInvalid
from serverfull.fetchers.chain import ChainFetcher
from serverfull.fetchers.observing import ObservingFetcher
from serverfull.interfaces import Admission, Fetcher, Surroundings
from serverfull.invocation.admission import LocalAdmission
from serverfull.invocation.invoker import Invoker
from serverfull.invocation.recent import RecentLog
from serverfull.invocation.request_ids import RequestIds
from serverfull.invocation.sinks import to_all
from serverfull.observability.logger import HostLogger
from serverfull.observability.metrics import ConnectionCounts, Metrics
from serverfull.observability.user_metrics import UserMetrics
from serverfull.runtimes.aws_access import AwsAccess
from serverfull.runtimes.inprocess import InProcessRuntime
from serverfull.wiring.events import Events, event_folder
from serverfull.wiring.logs import sinks_of
from serverfull.wiring.modes import mock_mode, refusal, serve_mode
from serverfull.wiring.runtimes import DeployedRuntimes

if TYPE_CHECKING:
    from serverfull.api.event_views import EventView
    from serverfull.api.server import HardenedServer
    from serverfull.domain.changes import Changes
    from serverfull.domain.functions import Function
    from serverfull.domain.readiness import Fitness, Readiness, Unfit
    from serverfull.fetchers.answers import MockAnswers
    from serverfull.fetchers.deployed import DeployedFetcher
    from serverfull.interfaces import Building, Catalogue, EventQueue, Found, FunctionIdentity, InvocationLog, Watching
    from serverfull.invocation.queue import StoredQueue
    from serverfull.runtimes.watchdog import Stall

_SETTLED = 1.0
"""Seconds after which a start is over and its first requests are answered."""


class EventSharing(Protocol):
    """Makes of the events of a process those of all that serve the same functions."""

    def view(self, own: EventView) -> EventView:
        """Give what an operator sees of all of them."""

    def queue(self, own: EventQueue) -> EventQueue:
        """Give what takes events as one process would."""


class Sharing(NamedTuple):
    """What a host shares with the other processes that serve the same functions.

    :param metrics: figures that all of them add to.
    :param admission: limits of concurrency that hold for all of them together.
    :param lost_elsewhere: says how many threads of a function are stuck in the others.
    :param number: 0 for the first process; each has events of its own.
    :param events: makes of these the events of all.
    :param event_retry: seconds after which an event that was refused is tried again, as another process may have freed
        what it needs.
    """

    metrics: Metrics
    admission: Admission
    lost_elsewhere: Callable[[str], int]
    number: int
    events: EventSharing
    event_retry: float = 0.1


def _usual(settings: Settings) -> Partition:
    """Give the account and the region of callers who name none."""
    return Partition(settings.functions.account, settings.functions.region)


class _RunLater:
    """Passes on what the control plane wants of the invoker, which is made after it."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def unfit(self, name: str, function: Function) -> Unfit | None:
        """Say why a function cannot run here as it is; None: it can."""
        return await self._host.invoker.unfit(name, function)

    async def snapshot(self, partition: Partition, name: str, function: Function) -> Fitness:
        """Load the code of a version with SnapStart, so that its environments can be made of that."""
        return await self._host.invoker.snapshot(partition, name, function)

    async def warm(self, partition: Partition, name: str, function: Function) -> None:
        """Begin with what the next call of a function would have to wait for."""
        await self._host.invoker.warm(partition, name, function)

    def provision(self, name: str, function: Function, count: int, changed: Callable[[Readiness], None]) -> None:
        """Keep so many environments of a function ready."""
        self._host.invoker.provision(name, function, count, changed)


class Host:
    """Everything that runs functions, wired together. Use it as an async context manager on the loop that serves.

    :param fetcher: resolves names to functions.
    :param settings: None means all defaults.
    :param logger: the host's own log; None makes one from the settings.
    :param sharing: what it shares with other processes; None: it is alone.
    :param mock: where the answers of mock mode come from, which it switches on. None: the settings say both.
    :raises ConfigurationError: the answers that the settings name cannot be used, or what functions are to reach AWS
        with is missing.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        settings: Settings | None = None,
        logger: Any = None,
        sharing: Sharing | None = None,
        mock: MockAnswers | None = None,
    ) -> None:
        settings = settings or Settings()
        if mock is not None:
            settings = replace(settings, mock=replace(settings.mock, enabled=True))
        self.settings = settings
        self.logger = logger or HostLogger(settings.logging, color=settings.logging.color)
        self.state = "starting"
        self.started_at = time.time()
        self.sharing = sharing
        self.metrics = sharing.metrics if sharing else Metrics()
        self.user_metrics = UserMetrics(self.metrics.cells, self.logger.warning)
        self._fetcher = fetcher
        self.registered = ObservingFetcher(fetcher, self.logger, self.metrics)
        self.metrics.before_sample.append(self.registered.report)
        self.request_ids = RequestIds()
        self.runtime = InProcessRuntime(
            metrics=self.metrics,
            logger=self.logger,
            user_metrics=self.user_metrics,
            max_lost_threads=settings.limits.max_lost_threads,
            loop_stall=settings.limits.loop_stall,
            lost_elsewhere=sharing.lost_elsewhere if sharing else None,
        )
        self.admission = sharing.admission if sharing else LocalAdmission(settings.limits.max_concurrency)
        self.recent = RecentLog()
        self.sinks = sinks_of(settings, self.recent, self.logger)
        for name, sink in self.sinks.items():
            self.metrics.watch_log(name, sink)
        self.control = ControlPlane(
            self.registered,
            settings,
            self.logger,
            failure_of=self._failure_of,
            on_open=self._serve_deployed,
            running=_RunLater(self),
            calls=self.metrics.invocations_of,
            watching=self.watching,
            building=self.building,
            refusal=refusal(settings, shared=sharing is not None),
        )
        self._stack = AsyncExitStack()
        self._watching: Watching | None = None
        self._building: Building | None = None
        self._catalogue: Catalogue | None = None
        self._everything: Fetcher = self.registered  # and what is deployed, once there can be any
        self._deployed = DeployedRuntimes(
            settings,
            self.metrics,
            self.logger,
            self.runtime,
            AwsAccess.of(settings.aws),
            new_log=self._log_of,
            optimized=self.control.optimized,
            stack=self._stack,
        )
        if settings.mock.enabled:
            mode = mock_mode(settings, self.registered, self.runtime, self.metrics, mock)
        else:
            mode = serve_mode(settings, self.registered, self.runtime, self._deployed)
        self.mode = mode
        self.reader = mode.reader
        self.invoker = Invoker(
            fetcher=mode.fetcher,
            runtime=mode.runtime,
            admission=self.admission,
            sink=to_all(self.sinks.values()),
            metrics=self.metrics,
            settings=settings,
            logger=self.logger,
        )
        if settings.reload.generation_header:
            from serverfull.invocation.generations import GenerationRuntime

            self.invoker.decorate_runtime(GenerationRuntime)
        self.front = mode.front(self.invoker)
        among: dict[str, Any] = {}
        if sharing:
            among = {"number": sharing.number, "retry": sharing.event_retry, "shared": sharing.events.queue}
        self._events = Events(settings, self.invoker, self.metrics, self.logger, event_folder(settings), **among)
        if settings.destinations.endpoint_url or settings.destinations.endpoints:
            from serverfull.destinations.endpoints import endpoints_of

            endpoints_of(settings.destinations)  # what is wrong with them is said at the start

    async def __aenter__(self) -> Host:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _start(self) -> None:
        self._stack.push_async_callback(self._fetcher.aclose)
        surroundings = Surroundings(
            settings=self.settings,
            logger=self.logger,
            changed=self.invoker.forget_name,
            watching=self.watching,
            building=self.building,
            catalogue=self.catalogue,
        )
        await self._fetcher.open(surroundings)
        await self._check_functions()
        if self.settings.execution.sandbox == "strict":
            from serverfull.runtimes.process.means import check_strict

            await asyncio.to_thread(check_strict)
        if self.settings.docker.dns_suffixes and refusal(self.settings, shared=self.sharing is not None) is None:
            from serverfull.runtimes.docker.names import Names

            names = self._deployed.names = Names(self.settings, self.logger)
            self._stack.push_async_callback(names.aclose)
            await names.open()
        self._stack.push_async_callback(self.control.aclose)
        if self.control.durable:
            await self.control.operations()
        self._stack.callback(self._close_sinks)
        for sink in self.sinks.values():
            sink.start()
        if self.settings.stats.output == "DATADOG":
            from serverfull.observability.statsd import StatsdOutput

            await self._stack.enter_async_context(
                StatsdOutput(self.settings, self.metrics, self.user_metrics, self.logger)
            )
        await self._stack.enter_async_context(self.runtime)
        if self.sharing:
            self.invoker.prepare(await self.mode.fetcher.list())
        await self._events.start(self._stack)
        self.metrics.process.loop = self.runtime.loop
        self.runtime.loop.call_later(_SETTLED, self._prepare)
        self.state = "serving"

    def watching(self) -> Watching:
        """Give what says that files have changed; made when it is first asked for, and closed with the host."""
        if self._watching is None:
            from serverfull.wiring.watching import watcher_of

            self._watching = watcher_of(self.settings.reload, self.logger)
            self._stack.push_async_callback(self._watching.aclose)
        return self._watching

    def building(self) -> Building:
        """Give what runs build commands; made when it is first asked for."""
        if self._building is None:
            from serverfull.wiring.watching import builder_of

            self._building = builder_of(self.settings.reload, self.logger, to_all(self.sinks.values()))
        return self._building

    def catalogue(self) -> Catalogue:
        """Give what says which images there are; made when it is first asked for, and closed with the host.

        :raises ExtraMissing: the package that asks is not installed.
        """
        if self._catalogue is None:
            from serverfull.runtimes.docker.catalogue import EngineCatalogue

            self._catalogue = EngineCatalogue(self.settings.docker, self.logger)
            self._stack.push_async_callback(self._catalogue.aclose)
        return self._catalogue

    def _close_sinks(self) -> None:
        for sink in self.sinks.values():
            sink.end()  # all at once, so that none waits for another
        for sink in self.sinks.values():
            sink.close()

    def _log_of(self, identity: FunctionIdentity) -> InvocationLog:
        return self.invoker.log_of(identity)

    def _failure_of(self, name: str) -> str | None:
        return self.invoker.failure_of(name)

    def _serve_deployed(self, deployed: DeployedFetcher, changes: Changes) -> None:
        """Invoke what is deployed too, from now on: until there can be any, no call pays for looking."""
        everything = ObservingFetcher(ChainFetcher(self._fetcher, deployed), self.logger, self.metrics)
        self.metrics.before_sample.append(everything.report)
        self._everything = everything
        changes.subscribe(self.invoker.forget)
        pool = self.settings.limits.account_concurrency
        self._events.config = deployed.event_config
        self.invoker.use_fetcher(everything, lambda partition: pool - deployed.reserved(partition), deployed.set_aside)
        execution = self.settings.execution
        self.logger.info("deployed functions are served", execution=execution.mode, sandbox=execution.sandbox)
        self._get_ready_soon()

    def _get_ready_soon(self) -> None:
        """Begin with what the first function that runs elsewhere would have to wait for, once the start is over."""
        getting_ready = asyncio.get_running_loop().call_later(_SETTLED, self.mode.runtime.get_ready)
        self._stack.callback(getting_ready.cancel)

    def _prepare(self) -> None:
        """Do what the start should not wait for, and the first incident should not either."""
        prepare = getattr(self.logger, "prepare", None)
        if prepare is not None:
            contextvars.Context().run(threading.Thread(target=prepare, name="serverfull-prepare", daemon=True).start)

    async def _check_functions(self) -> None:
        try:
            functions = await self.registered.at(_usual(self.settings)).list()
        except TargetInvalid:
            raise
        except Exception:  # said in the log by the observing fetcher; functions may still be fetched one by one
            return
        for name, function in functions.items():
            try:
                self.runtime.check(function)
            except TypeError as unfit:
                raise TargetInvalid(f"function {name!r} cannot be served: {unfit}") from None
        if any(isinstance(function.handler, DeployedHandler) for function in functions.values()):
            self._get_ready_soon()
        if self.mode.answers is not None:
            await self.mode.fetcher.list()  # makes every answer, and tells here which one cannot be used
            for remark in self.mode.answers.remarks(functions.keys()):
                self.logger.warning("mock answers are not complete", reason=remark)

    async def __aexit__(self, *exc: object) -> None:
        self.state = "stopped"
        await self._stack.aclose()

    def attach_server(self, server: HardenedServer) -> None:
        """Take the server that the host is reached by: its connections are shown among the metrics."""
        server.on_answer = self.metrics.responded
        self.metrics.connections = lambda: ConnectionCounts(
            now={
                "new": server.connections_new,
                "active": server.connections_active,
                "idle": server.connections_idle,
                "hijacked": server.connections_hijacked,
            },
            total={
                "new": server.accepted_total,
                "active": server.active_total,
                "idle": server.idle_total,
                "closed": server.closed_total,
                "refused": server.refused_total,
                "evicted": server.evicted_total,
            },
        )

    @property
    def stall(self) -> Stall | None:
        """The stall of an event loop that is going on now, if any; readable from any thread."""
        return self.runtime.stall

    async def survey(self, partition: Partition) -> Sequence[Found]:
        """Say which functions an account has in a region, where they come from, and what hides what."""
        return await self._everything.at(partition).survey()

    def failed_functions(self) -> Mapping[str, str]:
        """Give the functions that cannot be invoked any more, with why."""
        return self.invoker.failed_functions()

    def info(self) -> Mapping[str, Any]:
        """Say what runs here: nothing of the environment, and no settings that could be secret."""
        return {
            "version": __version__,
            "python": platform.python_version(),
            "pid": os.getpid(),
            "uptime_seconds": round(time.time() - self.started_at, 3),
            "state": self.state,
            "mode": "serve" if self.mode.answers is None else "mock",
            "workers": self.settings.server.workers,
            "region": self.settings.functions.region,
            "account": self.settings.functions.account,
            "max_concurrency": self.settings.limits.max_concurrency,
            "event_loop": type(self.runtime.loop).__module__,
        }

    @property
    def events(self) -> StoredQueue:
        """What has the events of this process."""
        return self._events.queue

    def metrics_text(self) -> tuple[bytes, str]:
        """Give the figures as Prometheus reads them, and their content type."""
        from serverfull.observability.exposition import exposition

        return exposition(self.metrics)

    @property
    def draining(self) -> bool:
        """Whether new requests are refused."""
        return self.state != "serving"

    async def drain(self, timeout: float) -> None:
        """Let accepted events finish; those that wait in a folder are left to the next host.

        :param timeout: seconds after which the rest is given up, and said in the log.
        """
        await self._events.drain(timeout)
