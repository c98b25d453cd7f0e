"""The events of a host: where they are kept, what runs them, and who is told of their ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serverfull.control_plane import MEMORY
from serverfull.domain.records import Partition
from serverfull.errors import ConfigurationError
from serverfull.invocation.clock import SteadyClock
from serverfull.invocation.queue_at_need import QueueAtNeed

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from serverfull.config import Settings
    from serverfull.domain.events import Delivery, EventConfig, EventEnd, QueuedEvent
    from serverfull.interfaces import Deliverer, EventQueue, EventStore
    from serverfull.invocation.deliveries import Deliveries
    from serverfull.invocation.invoker import Invoker
    from serverfull.invocation.queue import StoredQueue
    from serverfull.observability.metrics import Metrics

    EventConfigs = Callable[[Partition, str, str | None], Awaitable[EventConfig]]


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
        from serverfull.storage.folder import EVENTS

        return Path(settings.state.path).absolute() / EVENTS
    return None if path in ("", MEMORY) else Path(path).absolute()


class Events:
    """The queue of a host and what it delivers, wired to what runs functions.

    They are made at the start where events are kept in a folder, and at the first event where they are in memory.

    :param folder: where events are kept; None: in memory.
    :param number: of the process among those that serve the same functions; each has events of its own.
    :param retry: seconds after which an event that was refused is tried again, as another process may have freed what
        it needs; None: there is no other.
    :param shared: makes of the queue here one that takes events as if there were no other.
    :ivar config: says what is to be done with the events of a function.
    """

    def __init__(
        self,
        settings: Settings,
        invoker: Invoker,
        metrics: Metrics,
        logger: Any,
        folder: Path | None,
        number: int = 0,
        retry: float | None = None,
        shared: Callable[[EventQueue], EventQueue] = lambda queue: queue,
    ) -> None:
        self._settings = settings
        self._invoker = invoker
        self._metrics = metrics
        self._logger = logger
        self._folder = folder
        self._number = number
        self._retry = retry
        self._shared = shared
        self._clock = SteadyClock()
        self.config: EventConfigs = _defaults_of_aws
        self._made: tuple[StoredQueue, Deliveries] | None = None
        self._in_use: EventQueue = QueueAtNeed(lambda: self.queue)
        invoker.use_queue(shared(self._in_use), self._clock)
        metrics.watch_events(lambda: self._made[0].waiting if self._made else 0)

    @property
    def queue(self) -> StoredQueue:
        """What runs events, made now where nobody has needed it yet."""
        return (self._made or self._make())[0]

    def _make(self) -> tuple[StoredQueue, Deliveries]:
        from serverfull.invocation.deliveries import Deliveries
        from serverfull.invocation.queue import StoredQueue
        from serverfull.invocation.queueing import Policy, Running

        settings, invoker = self._settings, self._invoker
        deliveries = Deliveries(self._opened, self._make_deliverer, self._clock, self._logger)
        self._in_use = queue = StoredQueue(
            self._open,
            self._clock,
            Running(run=invoker.run_event, config=self._config_of, deliveries=_deliveries, ended=invoker.event_ended),
            Policy(
                backlog=settings.limits.event_backlog,
                function_backlog=settings.limits.function_event_backlog,
                base_delay=settings.events.base_delay,
                keep=settings.events.keep,
                retry=self._retry,
            ),
            self._logger,
            durable=self._folder is not None,
            wake_deliveries=deliveries.wake,
        )
        invoker.use_queue(self._shared(queue), self._clock)
        self._made = queue, deliveries
        return self._made

    async def start(self, stack: AsyncExitStack) -> None:
        """Run what a host before this one has left, and let the stack end it.

        :raises StateUnusable: the events cannot be read.
        """
        stack.push_async_callback(self._aclose)
        if self._folder is not None:
            queue, deliveries = self._make()
            await queue.start()
            deliveries.wake()

    async def _aclose(self) -> None:
        if self._made:
            queue, deliveries = self._made
            try:
                await deliveries.aclose()
            finally:
                await queue.aclose()

    async def drain(self, timeout: float) -> None:
        """Let accepted events finish; those that wait in a folder are left to the next host.

        :param timeout: seconds after which the rest is given up, and said in the log.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        lost = await self._in_use.drain(timeout)
        if self._made is None:
            return
        hint = "they were in memory; events.path names a folder"
        if not await self._made[1].drain(max(0.0, until - loop.time())) and self._folder is None:
            self._logger.error("records lost at shutdown", hint=hint)
        if lost:
            self._logger.error("events lost at shutdown", count=lost, hint=hint)

    async def _open(self) -> EventStore:
        from serverfull.domain.events import longest_delay
        from serverfull.storage.events import EventFolder, SqliteEventStore

        settings, folder = self._settings.events, self._folder
        if folder is None:
            self._logger.info("events are kept in memory", hint="they end with the host; events.path names a folder")
        elif settings.synchronous != "full":
            self._logger.warning("events may be lost with the machine's power", hint="events.synchronous is not full")
        workers, longest = self._settings.server.workers, longest_delay(settings.base_delay)
        where = EventFolder(folder, self._number, workers, settings.synchronous, longest)
        return await SqliteEventStore.open(where, self._clock)

    async def _opened(self) -> EventStore:
        return await self.queue.store()

    def _config_of(self, event: QueuedEvent) -> Awaitable[EventConfig]:
        return self.config(Partition(event.account, event.region), event.name, event.qualifier)

    def _make_deliverer(self) -> Deliverer:
        """Make what tells of events that have ended; most hosts never need it."""
        from serverfull.destinations.assembling import make_deliverer
        from serverfull.destinations.observing import ObservingDeliverer

        deliverer = make_deliverer(self._settings.destinations, self._invoker.accept_record)
        return ObservingDeliverer(deliverer, self._metrics, self._logger)


def _deliveries(event: QueuedEvent, end: EventEnd, config: EventConfig) -> Sequence[Delivery]:
    """Say who is to be told of an event that has ended; most have nobody."""
    if config.on_success is None and config.on_failure is None and config.dead_letter is None:
        return ()
    from serverfull.domain.destinations import deliveries

    return deliveries(event, end, config)


async def _defaults_of_aws(_partition: Partition, _name: str, _qualifier: str | None) -> EventConfig:
    from serverfull.domain.events import EventConfig

    return EventConfig()
