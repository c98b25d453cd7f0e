"""Collects events for one extension and delivers them in batches, without ever making anybody wait.

A `Subscriber` holds as much as two batches while a third is under way; what comes beyond that is dropped and counted,
and `platform.logsDropped` says so as soon as there is room. One task delivers, batch after batch, and tries again where
the listener does not take one. While the sandbox is frozen nothing is sent, and no listener is too slow.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from serverfull.runtimes.telemetry.destinations import NotDelivered
from serverfull.runtimes.telemetry.events import Event, written

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serverfull.runtimes.runtime_api.extension_messages import Api
    from serverfull.runtimes.telemetry.destinations import Sender
    from serverfull.runtimes.telemetry.subscriptions import Subscription

ANSWER_TIMEOUT = 3.0
"""Seconds that a listener has to take a batch."""

ATTEMPTS = 5
"""How often a batch is sent that is not taken; about 15 s to a listener that never answers."""

FIRST_PAUSE = 0.1
"""Seconds until the second attempt; the pause doubles with each."""

FOR_PLATFORM = 100
"""Events of the platform's that are kept beyond the bound: a flood of lines must not cost the report of its call."""

MOST_AT_ONCE = 200
"""Events that are written as JSON on the loop; more are on a thread, where that takes nobody's time."""

FALLEN_BEHIND: Mapping[Api, str] = {
    "telemetry": "Some logs were dropped because the downstream consumer is slower than the logs production rate",
    "logs": "Consumer seems to have fallen behind as it has not acknowledged receipt of logs.",
}
"""Why something is dropped, in the words of each API."""


class Subscriber:
    """One subscription of one extension.

    :param json_log: whether the function's log is JSON.
    """

    def __init__(self, subscription: Subscription, *, json_log: bool) -> None:
        self.subscription = subscription
        self._json_log = json_log
        self._loop = asyncio.get_running_loop()
        self._pending: list[Event] = []
        self._bytes = 0
        self._dropped = (0, 0)  # records, bytes
        self._due = asyncio.Event()  # there is a batch to be sent
        self._awake = asyncio.Event()  # the sandbox is not frozen
        self._awake.set()
        self._done: list[asyncio.Future[None]] = []  # of who waits until all is delivered
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._sender: Sender | None = None

    def open(self, sender: Sender) -> None:
        """Begin to deliver."""
        self._sender = sender
        self._task = self._loop.create_task(self._deliver_all(sender))

    def wants(self, stream: str) -> bool:
        """Whether it is subscribed to a stream."""
        return stream in self.subscription.types

    def room(self) -> bool:
        """Whether another line would be kept."""
        limits = self.subscription
        return len(self._pending) < 2 * limits.most_items and self._bytes < 2 * limits.most_bytes

    def drop(self, records: int, size: int) -> None:
        """Count what is not kept."""
        self._dropped = self._dropped[0] + records, self._dropped[1] + size

    def take(self, event: Event) -> None:
        """Keep an event until it is delivered, or count that it is not."""
        more = isinstance(event.record, str) or len(self._pending) >= 2 * self.subscription.most_items + FOR_PLATFORM
        if more and not self.room():
            self.drop(1, event.size)
            return
        if not self._pending:
            self._timer = self._loop.call_later(self.subscription.timeout, self._due.set)
        self._pending.append(event)
        self._bytes += event.size
        if len(self._pending) >= self.subscription.most_items or self._bytes >= self.subscription.most_bytes:
            self._due.set()

    def pause(self) -> None:
        """Send nothing: the sandbox is frozen."""
        self._awake.clear()

    def resume(self) -> None:
        """Go on."""
        self._awake.set()

    async def flush(self) -> None:
        """Deliver what is here, without waiting for more."""
        if self._task is None or self._task.done():
            return
        done = self._loop.create_future()
        self._done.append(done)
        self._due.set()
        await done

    async def aclose(self) -> None:
        """Deliver no more. Closing twice is fine."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._sender is not None:
            self._sender.close()
        self._tell_flushed()

    async def _deliver_all(self, sender: Sender) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            while self._pending or self._dropped[0]:
                await self._deliver(sender, *self._take_batch())
                if not self._due.is_set() and not self._done:
                    break  # the rest is no whole batch
            if not self._pending:
                self._tell_flushed()
            elif self._timer is None or self._timer.when() <= self._loop.time():
                self._timer = self._loop.call_later(self.subscription.timeout, self._due.set)

    def _take_batch(self) -> tuple[list[Event], tuple[int, int]]:
        """Take as many events as fit into a batch; with them goes what was dropped before, in records and bytes."""
        limits, size, count = self.subscription, 0, 0
        for event in self._pending[: limits.most_items]:
            if count and size + event.size > limits.most_bytes:
                break
            size += event.size
            count += 1
        batch, self._pending = self._pending[:count], self._pending[count:]
        self._bytes -= size
        lost, self._dropped = self._dropped, (0, 0)
        if lost[0]:
            reason = FALLEN_BEHIND[limits.api]
            record = {"reason": reason, "droppedRecords": lost[0], "droppedBytes": lost[1]}
            batch.append(Event(time.time(), "platform.logsDropped", record))
        return batch, lost

    def _tell_flushed(self) -> None:
        done, self._done = self._done, []
        for future in done:
            if not future.done():
                future.set_result(None)

    async def _deliver(self, sender: Sender, batch: list[Event], lost: tuple[int, int]) -> None:
        """Deliver a batch, or count it with what was lost before, where that is not possible."""
        if len(batch) > MOST_AT_ONCE:
            records = await asyncio.to_thread(written, batch, self.subscription, json_log=self._json_log)
        else:
            records = written(batch, self.subscription, json_log=self._json_log)
        if not records:
            return
        pause = FIRST_PAUSE
        for attempt in range(ATTEMPTS):
            await self._awake.wait()
            with suppress(NotDelivered):
                await self._in_time(self._loop.create_task(sender.send(records)))
                return
            if attempt + 1 < ATTEMPTS:
                await asyncio.sleep(pause)
                pause *= 2
        told = int(lost[0] > 0)  # the record that says so
        self.drop(len(records) - told + lost[0], sum(map(len, records)) + lost[1])

    async def _in_time(self, sending: asyncio.Task[None]) -> None:
        """Wait for a delivery, for as long as a listener has, not counting the time in which the sandbox is frozen.

        :raises NotDelivered: it has failed, or it took too long.
        """
        try:
            while not (await asyncio.wait([sending], timeout=ANSWER_TIMEOUT))[0]:
                if self._awake.is_set():
                    raise NotDelivered("the listener does not answer")
                await self._awake.wait()
            await sending
        finally:
            sending.cancel()
