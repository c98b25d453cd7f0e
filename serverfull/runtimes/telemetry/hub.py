"""Gives what happens in one sandbox to the extensions that have subscribed.

Subscriptions come while the sandbox is initialised, and no later. What happened before one came is kept until then, so
that each of them begins with `platform.initStart`. Events are given with one call each, on the host's loop, which costs
a function without subscribers nothing and others microseconds: everything else is the `Subscriber`'s task.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/telemetry-api.html
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from serverfull.domain.json_functions import dumps
from serverfull.runtimes.telemetry.destinations import sender_to
from serverfull.runtimes.telemetry.events import Event
from serverfull.runtimes.telemetry.subscribers import Subscriber
from serverfull.runtimes.telemetry.subscriptions import InvalidSubscription, read_subscription

if TYPE_CHECKING:
    from serverfull.runtimes.runtime_api.extension_messages import Api
    from serverfull.runtimes.telemetry.destinations import Connect

MOST_EARLY = 1_048_576
"""Bytes of lines that are kept for those who have not subscribed yet: as much as a subscription may ask for."""

_OK = b'"OK"'


class _Early:
    """What has happened before somebody subscribed, as far as there was room for it."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._bytes = 0
        self._lost: dict[str, tuple[int, int]] = {}  # records and bytes, by stream

    def keep(self, event: Event) -> None:
        """Keep an event, or count that it is not kept."""
        if isinstance(event.record, str) and self._bytes + event.size > MOST_EARLY:
            records, size = self._lost.get(event.stream, (0, 0))
            self._lost[event.stream] = records + 1, size + event.size
        else:
            self._events.append(event)
            self._bytes += event.size

    def give(self, subscriber: Subscriber) -> None:
        """Give all that a subscriber wants of it."""
        for event in self._events:
            if subscriber.wants(event.stream):
                subscriber.take(event)
        for stream, lost in self._lost.items():
            if subscriber.wants(stream):
                subscriber.drop(*lost)


class Telemetry:
    """The subscriptions of one sandbox, and what they are given.

    :param json_log: whether the function's log is JSON.
    :param subscribed: called with an API, the name of an extension, and the streams that it has subscribed to.
    """

    def __init__(self, *, json_log: bool, subscribed: Callable[[str, str, tuple[str, ...]], object]) -> None:
        self._json_log = json_log
        self._subscribed = subscribed
        self._subscribers: dict[str, Subscriber] = {}
        self._early: _Early | None = _Early()
        self._connect: Connect | None = None

    # --------------------------------------------------------------------------------------------------- subscriptions

    def subscribe(self, name: str, api: Api, body: bytes) -> tuple[int, bytes]:
        """Take a subscription, or refuse it; gives the status and the body of the answer.

        :param name: of the extension.
        :param api: by which it is asked for.
        """
        prefix = "" if api == "telemetry" else "Logs."
        if self._early is None:
            kind = "Telemetry" if api == "telemetry" else "Logs"
            return 403, _error(f"{kind}.SubscriptionClosed", f"{kind} API subscription is closed already")
        try:
            subscription = read_subscription(api, body)
        except InvalidSubscription as wrong:
            return 400, _error(f"{prefix}ValidationError", str(wrong))
        there = self._subscribers.get(name)
        if there is not None:
            if there.subscription.api == api:
                return 200, _OK  # once more changes nothing
            return 400, _error(f"{prefix}ValidationError", "The extension has subscribed by the other API already")
        subscriber = self._subscribers[name] = Subscriber(subscription, json_log=self._json_log)
        self._early.give(subscriber)
        if self._connect is not None:
            subscriber.open(sender_to(subscription.destination, self._connect))
        kind = "telemetrySubscription" if api == "telemetry" else "logsSubscription"
        record = {"name": name, "state": "Subscribed", "types": list(subscription.types)}
        self.platform(kind, record)
        self._subscribed(api, name, subscription.types)
        return 200, _OK

    def open(self, connect: Connect) -> None:
        """Begin to deliver, when there is something to connect to."""
        self._connect = connect
        for subscriber in self._subscribers.values():
            subscriber.open(sender_to(subscriber.subscription.destination, connect))

    def close_subscriptions(self) -> None:
        """Take no more of them."""
        self._early = None

    # ---------------------------------------------------------------------------------------------------------- events

    def platform(self, kind: str, record: Mapping[str, Any], at: float | None = None) -> None:
        """Give an event of the platform's.

        :param kind: such as ``start``.
        :param at: seconds since the epoch; None: now.
        """
        self._give(Event(time.time() if at is None else at, f"platform.{kind}", record))

    def fault(self, said: str) -> None:
        """Say what has gone wrong; the Logs API alone has an event for that."""
        self._give(Event(time.time(), "platform.fault", said))

    def lines(self, stream: str, text: str) -> None:
        """Give lines of a log.

        :param stream: ``function`` or ``extension``.
        :param text: whole lines.
        """
        wanting = [each for each in self._subscribers.values() if each.wants(stream)]
        full = [each for each in wanting if not each.room()]
        if full:  # a flood costs those who have no room for it a count
            for subscriber in full:
                subscriber.drop(text.count("\n"), len(text))
            wanting = [each for each in wanting if each not in full]
        if not wanting and self._early is None:
            return
        now = time.time()
        for line in text.split("\n")[:-1]:
            event = Event(now, stream, f"{line}\n")
            for subscriber in wanting:
                subscriber.take(event)
            if self._early is not None:
                self._early.keep(event)

    def _give(self, event: Event) -> None:
        for subscriber in self._subscribers.values():
            if subscriber.wants("platform"):
                subscriber.take(event)
        if self._early is not None:
            self._early.keep(event)

    # -------------------------------------------------------------------------------------------------------- lifecycle

    def pause(self) -> None:
        """Send nothing: the sandbox is frozen."""
        for subscriber in self._subscribers.values():
            subscriber.pause()

    def resume(self) -> None:
        """Go on."""
        for subscriber in self._subscribers.values():
            subscriber.resume()

    async def flush(self) -> None:
        """Deliver what is here."""
        await asyncio.gather(*(subscriber.flush() for subscriber in self._subscribers.values()))

    async def aclose(self) -> None:
        """Deliver no more. Closing twice is fine."""
        for subscriber in self._subscribers.values():
            await subscriber.aclose()


def _error(error_type: str, message: str) -> bytes:
    return dumps({"errorType": error_type, "errorMessage": message}).encode()
