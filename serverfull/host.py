"""The composition root: settings and a fetcher in, a host out. The only place that names what runs functions.

`Host` wires everything that runs functions and owns it in one exit stack. `serverfull.application` puts a host behind
HTTP, and `serverfull.serving` runs that until a signal ends it.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from multidict import istr

from serverfull import __version__
from serverfull.api.invocations import Invocations
from serverfull.config import Settings
from serverfull.control_plane import MEMORY, ControlPlane
from serverfull.domain.events import EventConfig, longest_delay
from serverfull.domain.records import Partition
from serverfull.errors import ConfigurationError, ExtraMissing, TargetInvalid
from serverfull.fetchers.chain import ChainFetcher
from serverfull.fetchers.observing import ObservingFetcher
from serverfull.interfaces import Admission, Fetcher, Runtime
from serverfull.invocation.admission import LocalAdmission
from serverfull.invocation.clock import SteadyClock
from serverfull.invocation.deliveries import Deliveries
from serverfull.invocation.invoker import Invoker
from serverfull.invocation.queue import Policy, Running, StoredQueue
from serverfull.invocation.recent import RecentLog
from serverfull.invocation.request_ids import RequestIds
from serverfull.invocation.requests import InvocationReader
from serverfull.invocation.sinks import BatchSink, JsonLines, StreamSink, as_console, to_all
from serverfull.observability.logger import HostLogger
from serverfull.observability.metrics import ConnectionCounts, Metrics
from serverfull.observability.user_metrics import UserMetrics
from serverfull.runtimes.aws_access import AwsAccess
from serverfull.runtimes.choosing import AUTOMATIC, ChoosingRuntime
from serverfull.runtimes.inprocess import InProcessRuntime

if TYPE_CHECKING:
    from serverfull.api.server import HardenedServer
    from serverfull.domain.changes import Changes
    from serverfull.domain.events import Delivery, EventEnd, QueuedEvent
    from serverfull.domain.functions import Function
    from serverfull.domain.readiness import Fitness, Readiness, Unfit
    from serverfull.fetchers.answers import MockAnswers
    from serverfull.fetchers.deployed import DeployedFetcher
    from serverfull.interfaces import Deliverer, EventStore
    from serverfull.runtimes.docker.names import Names
    from serverfull.runtimes.sandboxes.launching import Launchers
    from serverfull.runtimes.sandboxes.runtime import SandboxRuntime
    from serverfull.runtimes.watchdog import Stall

    EventConfigs = Callable[[Partition, str, str | None], Awaitable[EventConfig]]


_SETTLED = 1.0
"""Seconds after which a start is over and its first requests are answered."""


class Sharing(NamedTuple):
    """What a host shares with the other processes that serve the same functions.

    :param metrics: figures that all of them add to.
    :param admission: limits of concurrency that hold for all of them together.
    :param lost_elsewhere: says how many threads of a function are stuck in the others.
    :param number: 0 for the first process; each has events of its own.
    :param event_retry: seconds after which an event that was refused is tried again, as another process may have freed
        what it needs.
    """

    metrics: Metrics
    admission: Admission
    lost_elsewhere: Callable[[str], int]
    number: int = 0
    event_retry: float = 0.1


class _Mode(NamedTuple):
    """What differs between the modes of a host: which decorators stand around what serves.

    :param fetcher: gives the functions that are invoked.
    :param runtime: runs them.
    :param reader: reads the invocations.
    :param front: gives what callers' invocations go to, for what runs them.
    :param answers: where the answers come from in mock mode; None: the handlers run.
    """

    fetcher: Fetcher
    runtime: Runtime
    reader: InvocationReader
    front: Callable[[Invoker], Invocations]
    answers: MockAnswers | None = None


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
        self.aws = AwsAccess.of(settings.aws)
        self.user_metrics = UserMetrics(self.metrics.cells, self.logger.warning)
        self._event_folder = event_folder(settings)
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
        self.sinks = _sinks(settings, self.recent, self.logger)
        for name, sink in self.sinks.items():
            self.metrics.watch_log(name, sink)
        self.control = ControlPlane(
            self.registered,
            settings,
            self.logger,
            failure_of=self._failure_of,
            on_open=self._serve_deployed,
            running=_RunLater(self),
            refusal=refusal(settings, sharing),
        )
        self.mode = mode = _mock_mode(self, mock) if settings.mock.enabled else _serve_mode(self)
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
        self.front = mode.front(self.invoker)
        self._stack = AsyncExitStack()
        self._queue: StoredQueue
        self._deliveries: Deliveries
        if settings.destinations.endpoint_url or settings.destinations.endpoints:
            from serverfull.destinations.endpoints import endpoints_of

            endpoints_of(settings.destinations)  # what is wrong with them is said at the start
        self._event_config: EventConfigs = _defaults_of_aws
        self._names: Names | None = None

    async def __aenter__(self) -> Host:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _start(self) -> None:
        self._queue = self._make_queue()
        await self._check_functions()
        if self.settings.execution.sandbox == "strict":
            from serverfull.runtimes.process.confinement import check_strict

            await asyncio.to_thread(check_strict)
        if self.settings.docker.dns_suffixes and refusal(self.settings, self.sharing) is None:
            from serverfull.runtimes.docker.names import Names

            self._names = Names(self.settings, self.logger)
            self._stack.push_async_callback(self._names.aclose)
            await self._names.open()
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
        self._stack.push_async_callback(self._queue.aclose)
        self._stack.push_async_callback(self._deliveries.aclose)
        await self._queue.start()
        if self._event_folder is not None:
            self._deliveries.wake()  # for what the host before this one has left
        self.metrics.process.loop = self.runtime.loop
        self.runtime.loop.call_later(_SETTLED, self._prepare)
        self.state = "serving"

    def _make_queue(self) -> StoredQueue:
        settings, clock, logger = self.settings.events, SteadyClock(), self.logger
        folder = self._event_folder
        number, retry = (self.sharing.number, self.sharing.event_retry) if self.sharing else (0, None)

        async def open_store() -> EventStore:
            from serverfull.storage.events import EventFolder, SqliteEventStore

            if folder is None:
                logger.info("events are kept in memory", hint="they end with the host; events.path names a folder")
            elif settings.synchronous != "full":
                logger.warning("events may be lost with the machine's power", hint="events.synchronous is not full")
            where = EventFolder(
                folder, number, self.settings.server.workers, settings.synchronous, longest_delay(settings.base_delay)
            )
            return await SqliteEventStore.open(where, clock)

        def config(event: QueuedEvent) -> Awaitable[EventConfig]:
            return self._event_config(Partition(event.account, event.region), event.name, event.qualifier)

        async def opened_store() -> EventStore:
            return await queue.store()

        self._deliveries = Deliveries(opened_store, self._make_deliverer, clock, logger)
        queue = StoredQueue(
            open_store,
            clock,
            Running(
                run=self.invoker.run_event,
                config=config,
                deliveries=_deliveries,
                ended=self.invoker.event_ended,
            ),
            Policy(
                backlog=self.settings.limits.event_backlog,
                function_backlog=self.settings.limits.function_event_backlog,
                base_delay=settings.base_delay,
                keep=settings.keep,
                retry=retry,
            ),
            logger,
            durable=folder is not None,
            wake_deliveries=self._deliveries.wake,
        )
        self.invoker.use_queue(queue, clock)
        self.metrics.watch_events(lambda: queue.waiting)
        return queue

    def _make_deliverer(self) -> Deliverer:
        """Make what tells of events that have ended; most hosts never need it."""
        from serverfull.destinations.assembling import make_deliverer
        from serverfull.destinations.observing import ObservingDeliverer

        deliverer = make_deliverer(self.settings.destinations, self.invoker.accept_record)
        return ObservingDeliverer(deliverer, self.metrics, self.logger)

    def _close_sinks(self) -> None:
        for sink in self.sinks.values():
            sink.end()  # all at once, so that none waits for another
        for sink in self.sinks.values():
            sink.close()

    def _failure_of(self, name: str) -> str | None:
        return self.invoker.failure_of(name)

    def _serve_deployed(self, deployed: DeployedFetcher, changes: Changes) -> None:
        """Invoke what is deployed too, from now on: until there can be any, no call pays for looking."""
        everything = ObservingFetcher(ChainFetcher(self._fetcher, deployed), self.logger, self.metrics)
        self.metrics.before_sample.append(everything.report)
        changes.subscribe(self.invoker.forget)
        pool = self.settings.limits.account_concurrency
        self._event_config = deployed.event_config
        self.invoker.use_fetcher(everything, lambda partition: pool - deployed.reserved(partition), deployed.set_aside)
        execution = self.settings.execution
        self.logger.info("deployed functions are served", execution=execution.mode, sandbox=execution.sandbox)
        getting_ready = asyncio.get_running_loop().call_later(_SETTLED, self.mode.runtime.get_ready)
        self._stack.callback(getting_ready.cancel)

    def deployed_runtime(self) -> Runtime:
        """Make what runs deployed functions in the host's own process."""
        from serverfull.runtimes.deployed import DeployedRuntime

        return DeployedRuntime(self.runtime, self.aws)

    def process_runtime(self) -> Runtime:
        """Make what runs functions in processes of their own; most hosts of registered functions never need it."""
        from serverfull.runtimes.process.confinement import Level
        from serverfull.runtimes.process.interpreters import Interpreters
        from serverfull.runtimes.process.launcher import ProcessLaunchers
        from serverfull.runtimes.process.machine import Machine
        from serverfull.runtimes.process.recipes import Recipes
        from serverfull.runtimes.process.snapshots import ProcessSnapshots, SnapshotPolicy
        from serverfull.runtimes.sandboxes.restoring import RestoringRuntime

        settings = self.settings.execution
        machine = Machine(Level.of(settings.sandbox), self.logger, hidden=self._own_folders())
        recipes = Recipes(machine, Interpreters(settings.other_python), settings.client, self.logger, self.aws)
        launchers = ProcessLaunchers(recipes, machine)
        kept = SnapshotPolicy(
            idle_timeout=settings.snapshot_idle_timeout,
            new_log=self.invoker.log_of,
            logger=self.logger,
            found=self.control.optimized,
        )
        make = partial(RestoringRuntime, snapshots=ProcessSnapshots(launchers, kept))
        return self._sandboxes(launchers, make)

    def docker_runtime(self) -> Runtime:
        """Make what runs functions in containers."""
        from serverfull.runtimes.docker.launcher import make_launchers
        from serverfull.runtimes.sandboxes.runtime import SandboxRuntime

        return self._sandboxes(make_launchers(self.settings, self.aws, self.logger, self._names), SandboxRuntime)

    def automatic_runtime(self, of: Callable[[str], Runtime]) -> Runtime:
        """Make what runs functions in containers where their interpreter is not here.

        :param of: gives the runtime of a mode.
        """
        from serverfull.runtimes.docker.automatic import AutomaticRuntime
        from serverfull.runtimes.docker.images import parsed
        from serverfull.runtimes.process.interpreters import Interpreters

        runtime = AutomaticRuntime(of, parsed(self.settings.docker.images), Interpreters("error"))
        self._stack.push_async_callback(runtime.aclose)
        return runtime

    def _sandboxes(self, launchers: Launchers, make: Callable[..., SandboxRuntime]) -> Runtime:
        from serverfull.runtimes.pool import PoolPolicy

        settings = self.settings.execution
        policy = PoolPolicy(
            idle_timeout=0.0 if settings.ephemeral else settings.idle_timeout,
            most=settings.max_environments,
            uses=settings.recycle_after,
            memory_mb=settings.recycle_mb,
        )
        runtime = make(launchers, policy, self.logger, self.metrics.function)
        self._stack.push_async_callback(runtime.aclose)
        return runtime

    def _own_folders(self) -> list[Path]:
        """Give the folders that hold what is not for functions, whatever else is in those around them."""
        settings = self.settings
        kept = [settings.state.path, settings.events.path, settings.logging.files, tempfile.gettempdir()]
        return [Path(folder).absolute() for folder in kept if folder not in ("", "memory")]

    def _prepare(self) -> None:
        """Do what the start should not wait for, and the first incident should not either."""
        prepare = getattr(self.logger, "prepare", None)
        if prepare is not None:
            contextvars.Context().run(threading.Thread(target=prepare, name="serverfull-prepare", daemon=True).start)

    async def _check_functions(self) -> None:
        try:
            functions = await self.registered.list()
        except TargetInvalid:
            raise
        except Exception:  # said in the log by the observing fetcher; functions may still be fetched one by one
            return
        for name, function in functions.items():
            try:
                self.runtime.check(function)
            except TypeError as unfit:
                raise TargetInvalid(f"function {name!r} cannot be served: {unfit}") from None
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
    def events(self) -> StoredQueue | None:
        """What has the events; None where other processes have some of them."""
        return self._queue if self.settings.server.workers == 1 else None

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
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        lost = await self._queue.drain(timeout)
        if not await self._deliveries.drain(max(0.0, until - loop.time())) and self._event_folder is None:
            self.logger.error("records lost at shutdown", hint="they were in memory; events.path names a folder")
        if lost:
            self.logger.error(
                "events lost at shutdown", count=lost, hint="they were in memory; events.path names a folder"
            )


def event_folder(settings: Settings) -> Path | None:
    """Say where a host keeps events; None: in memory.

    :raises ConfigurationError: the settings name a folder in mock mode, where no event may be taken out of it.
    """
    path = settings.events.path
    if settings.mock.enabled:
        if path not in ("", MEMORY):
            raise ConfigurationError(
                f"events.path is {path!r} and the host is in mock mode: events that wait there would not be run"
            )
        return None
    if not path and settings.state.path not in ("", MEMORY):
        return Path(settings.state.path).absolute() / "events"
    return None if path in ("", MEMORY) else Path(path).absolute()


def _deliveries(event: QueuedEvent, end: EventEnd, config: EventConfig) -> Sequence[Delivery]:
    """Say who is to be told of an event that has ended; most have nobody."""
    if config.on_success is None and config.on_failure is None and config.dead_letter is None:
        return ()
    from serverfull.domain.destinations import deliveries

    return deliveries(event, end, config)


async def _defaults_of_aws(_partition: Partition, _name: str, _qualifier: str | None) -> EventConfig:
    return EventConfig()


def _serve_mode(host: Host) -> _Mode:
    reader = InvocationReader(*_defaults(host), istr)
    settings = host.settings
    deployed: dict[str, Callable[[], Runtime]] = {"process": host.process_runtime, "docker": host.docker_runtime}
    if settings.execution.mode == "docker" and importlib.util.find_spec("docker") is None:
        raise ExtraMissing("execution.mode", "docker", "docker")
    if settings.docker.images:
        deployed[AUTOMATIC] = lambda: host.automatic_runtime(runtime.of)
    if settings.execution.sandbox == "strict":
        if settings.execution.mode == "inprocess":
            raise ConfigurationError(
                "execution.mode is 'inprocess' and execution.sandbox is 'strict': nothing holds deployed code in the "
                "host's own process. Choose one of them."
            )
    elif settings.server.on_loopback:
        deployed["inprocess"] = host.deployed_runtime
    elif settings.execution.mode == "inprocess":
        raise ConfigurationError(
            f"execution.mode is 'inprocess' and the host listens on {settings.server.host}: deployed code may run in "
            "the host's own process on loopback alone, because nothing holds it there and nothing authenticates "
            "callers."
        )
    runtime = ChoosingRuntime(host.runtime, deployed, settings.execution.mode, _waiting)
    return _Mode(host.registered, runtime, reader, lambda invoker: invoker)


def _waiting() -> Collection[str]:
    """Give the modes whose runtimes find work on the machine, of hosts that are gone."""
    from serverfull.runtimes.docker.site import has_left_something

    return ("docker",) if has_left_something() else ()


def refusal(settings: Settings, sharing: Sharing | None = None) -> str | None:
    """Say why nothing can be deployed on a host; None where it can.

    :raises ConfigurationError: the settings say where to keep what nobody can deploy.
    """
    if settings.mock.enabled:
        reason = "it is in mock mode, where no code runs."
    elif sharing is not None or settings.server.workers > 1:
        reason = "its worker processes share no state. Serve with one worker."
    elif not settings.server.on_loopback:
        held = (
            "Walls hold deployed code and not those who may change or delete it."
            if settings.execution.sandbox == "strict"
            else "Deployed code runs in processes of its own, with limits of memory, files and processes, and with the "
            "rights of the host's user: that is no wall against code of strangers."
        )
        reason = (
            f"it listens on {settings.server.host}, and nothing authenticates its callers. {held} So a host takes "
            "deployments on loopback alone."
        )
    else:
        return None
    if settings.state.path:
        raise ConfigurationError(f"state.path is {settings.state.path!r}, but this host takes no deployments: {reason}")
    return reason


def _mock_mode(host: Host, answers: MockAnswers | None) -> _Mode:
    from serverfull.fetchers.answers import answers_of
    from serverfull.fetchers.mocking import MockingFetcher
    from serverfull.invocation.simulation import MockInvocationReader, SimulatingInvoker, SimulatingRuntime

    answers = answers or answers_of(host.settings.mock)
    fetcher = MockingFetcher(host.registered, answers)
    return _Mode(
        fetcher=fetcher,
        runtime=SimulatingRuntime(host.runtime),
        reader=MockInvocationReader(*_defaults(host), istr),
        front=lambda invoker: SimulatingInvoker(invoker, fetcher, host.metrics),
        answers=answers,
    )


def _defaults(host: Host) -> tuple[str, str]:
    """Give account and region of requests that name none."""
    return host.settings.functions.account, host.settings.functions.region


def _sinks(settings: Settings, recent: RecentLog, logger: Any) -> dict[str, BatchSink]:
    """Make what takes the functions' log, by the word that figures call it.

    :raises ConfigurationError: the settings name a folder that cannot be written to.
    :raises ExtraMissing: what CloudWatch Logs is called with is not installed.
    """
    sinks: dict[str, BatchSink] = {}
    logging = settings.logging
    stream = {"STDOUT": sys.__stdout__, "STDERR": sys.__stderr__, "NULL": None}[logging.functions]
    if stream is not None:
        console = logging.format == "console" or (logging.format == "auto" and stream.isatty())
        render = as_console if console else JsonLines()
        sinks["stream"] = StreamSink(stream.fileno(), render, logger, recent=recent)
    if logging.files:
        from serverfull.invocation.files import FileSink

        sinks["files"] = FileSink(Path(logging.files), logging.files_size, logging.files_count, logger)
    if logging.cloudwatch:
        from serverfull.invocation.cloudwatch import CloudWatchEndpoint, CloudWatchSink

        endpoint = CloudWatchEndpoint(logging.cloudwatch, settings.functions.region)
        sinks["cloudwatch"] = CloudWatchSink(endpoint, logger)
    return sinks
