"""Makes the deliveries that ended events have left in their store, and makes them again until they are made.

One task looks for what is due, and each delivery is a task of its own: some at once, and fewer of one target, so that
one which does not answer leaves room for others. All on the loop's thread. A delivery is in the store until it is made,
so a host that dies in between makes it once more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from serverfull.domain.events import throttle_delay
from serverfull.errors import DeliveryFailed, InternalFailure
from serverfull.invocation.outages import OUTAGE, as_soon_as_possible

if TYPE_CHECKING:
    from serverfull.domain.events import Delivery, PendingDelivery
    from serverfull.interfaces import Clock, Deliverer, EventStore

MOST = 32
"""Deliveries at once."""

MOST_OF_TARGET = 8
"""Deliveries to one target at once."""

MOST_ATTEMPTS = 80
"""Times that a delivery is tried: for six hours in which there is a host. Hours without one cost no attempt."""


class Deliveries:
    """Delivers what a store has.

    :param store: gives the store.
    :param make_deliverer: gives what makes each delivery, in one attempt, when there is the first one to make; it is
        closed with this.
    """

    def __init__(
        self,
        store: Callable[[], Awaitable[EventStore]],
        make_deliverer: Callable[[], Deliverer],
        clock: Clock,
        logger: Any,
    ) -> None:
        self._get_store = store
        self._make_deliverer = make_deliverer
        self._deliverer: Deliverer | None = None
        self._clock = clock
        self._logger = logger
        self._wanted = asyncio.Event()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._of_target: Counter[str] = Counter()
        self._looking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._nothing_left = True

    def wake(self) -> None:
        """Look what is due; the first time this begins."""
        self._wanted.set()
        self._idle.clear()
        self._nothing_left = False
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._begin_due(await self._get_store())
            except InternalFailure:  # whoever writes events says so in the log
                self._look_at(self._clock.now() + OUTAGE)
            except Exception:  # a task's boundary: what is due stays in the store
                self._logger.exception("deliveries not looked for")
                self._look_at(self._clock.now() + OUTAGE)

    async def _begin_due(self, store: EventStore) -> None:
        if len(self._running) >= MOST:  # the end of one of them comes back here
            return
        enough = [target for target, count in self._of_target.items() if count >= MOST_OF_TARGET]
        due, following = await store.pending(MOST - len(self._running), running=self._running, besides=enough)
        for pending in due:
            delivery = pending.delivery
            if self._of_target[delivery.target] < MOST_OF_TARGET:
                self._of_target[delivery.target] += 1
                task = asyncio.get_running_loop().create_task(self._deliver(pending, store))
                self._running[delivery.id] = task
            else:
                self._wanted.set()  # there may be others behind it
        if following is not None:
            self._look_at(following)
        self._nothing_left = not self._running and following is None
        if not self._running:
            self._idle.set()

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, when - self._clock.now()), self._wanted.set)

    async def _deliver(self, pending: PendingDelivery, store: EventStore) -> None:
        delivery = pending.delivery
        try:
            failure = await self._attempt(delivery)
            if failure is None:
                await as_soon_as_possible(partial(store.delivered, delivery.id))
            else:
                again = None if failure.final else self._next(pending)
                await as_soon_as_possible(partial(store.undelivered, delivery.id, failure.reason, again))
        except Exception:  # a task's boundary: it is made once more, and not at once
            self._logger.exception("delivery not noted", target=delivery.target, request_id=delivery.request_id)
            await asyncio.sleep(OUTAGE)
        finally:
            del self._running[delivery.id]
            self._of_target[delivery.target] -= 1
            if not self._of_target[delivery.target]:
                del self._of_target[delivery.target]
            self._wanted.set()

    async def _attempt(self, delivery: Delivery) -> DeliveryFailed | None:
        """Make a delivery; gives how that failed."""
        try:
            if self._deliverer is None:
                self._deliverer = self._make_deliverer()
            await self._deliverer.deliver(delivery)
        except DeliveryFailed as failure:
            return failure
        except Exception as error:  # a bug must not cost what is to be delivered
            self._logger.exception("delivery failed", target=delivery.target, request_id=delivery.request_id)
            return DeliveryFailed(f"{type(error).__name__}: {error}")
        return None

    def _next(self, pending: PendingDelivery) -> float | None:
        """Say when a delivery that has failed is tried again; None: it was tried often enough."""
        if pending.attempts + 1 >= MOST_ATTEMPTS:
            return None
        return self._clock.now() + throttle_delay(pending.attempts)

    async def drain(self, timeout: float) -> bool:
        """Let what is due be delivered, for ``timeout`` seconds at most; says whether nothing is left to deliver."""
        if self._looking is None:
            return True
        self._idle.clear()
        self._wanted.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        return self._nothing_left

    async def aclose(self) -> None:
        """Stop; what is not delivered stays in the store. Closing twice is fine."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = [task for task in (self._looking, *self._running.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._deliverer is not None:
            await self._deliverer.aclose()
