"""One attempt to run an event that is leased: what is decided before it and after it, and how the event ends.

When an event is tried, and what its line does meanwhile, is the queue's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from serverfull.domain.events import (
    Again,
    Attempt,
    Delivery,
    EventConfig,
    EventEnd,
    Held,
    Response,
    after,
    before,
)

if TYPE_CHECKING:
    from serverfull.domain.events import Lease
    from serverfull.interfaces import Clock, EventStore
    from serverfull.invocation.outages import Outages
    from serverfull.invocation.queueing import Running


class Wait(NamedTuple):
    """The event is to be tried again.

    :param at: when, and how it is then.
    :param limit: whose limit has refused it; empty: none has.
    """

    at: Again
    limit: Literal["", "function", "host"]


class Attempts:
    """Makes attempts.

    :param base_delay: seconds before the first retry of a function that failed.
    :param wake_deliveries: called when something is to be delivered.
    """

    def __init__(
        self,
        running: Running,
        clock: Clock,
        outages: Outages,
        logger: Any,
        *,
        base_delay: float,
        wake_deliveries: Callable[[], None],
    ) -> None:
        self._running = running
        self._clock = clock
        self._outages = outages
        self._logger = logger
        self._base_delay = base_delay
        self._wake_deliveries = wake_deliveries

    async def make(
        self, store: EventStore, lease: Lease, due: float | None, admitted: Callable[[], None]
    ) -> Wait | None:
        """Try an event once; None: it has ended.

        Nothing is waited for between a refusal by a limit and the return, so that whoever hears of it then has missed
        nothing that has become free.

        :param due: when it was to be tried again that a limit had refused before.
        :param admitted: called when no limit can refuse it any more.
        """
        event, config = lease.event, EventConfig()
        attempt: Attempt
        try:
            config = await self._running.config(event)
        except Exception as failure:
            attempt = Held(Response(status_code=500, message=str(failure)))
        else:
            ended = before(event, config, self._clock.now())
            if ended is not None:
                await self._end(store, lease, ended, config)
                return None
            attempt = await self._running.run(event, admitted)
        now = self._clock.now()
        follows = after(event, attempt, config, now, self._base_delay)
        limit = attempt.limit if isinstance(attempt, Held) else ""
        if limit and due is not None and now < due:  # it was tried before its time, as there was hope
            follows = Again(event, due)
        if isinstance(follows, EventEnd):
            await self._end(store, lease, follows, config)
            return None
        return Wait(follows, limit)

    async def _end(self, store: EventStore, lease: Lease, end: EventEnd, config: EventConfig) -> None:
        event, keep = lease.event, not end.success
        deliveries: Sequence[Delivery] = ()
        try:
            deliveries = self._running.deliveries(event, end, config)
        except Exception:  # whom to tell cannot be said: the operator sees the event
            self._logger.exception("nobody told of event", function=event.name, request_id=event.request_id)
            keep = True
        keep = keep and not deliveries
        if await self._outages.over(partial(store.end, lease, end, deliveries, keep=keep)):
            self._running.ended(event, end, keep)
            if deliveries:
                self._wake_deliveries()
