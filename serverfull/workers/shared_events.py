"""The events of several workers, as those of one host: what an operator sees, and the names that are taken once.

Each worker has events of its own, which it alone reads and changes. Ids name the worker: ``2-17`` is the event 17 of
worker 2. Events that carry a name are all kept by the first worker, because who knows a name must know all of them; its
file is there however many workers the next host has, so that names last over a change of their number too.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from serverfull.api.event_views import EventView
from serverfull.domain.events import QueuedEvent
from serverfull.domain.invocations import Simulation
from serverfull.errors import (
    DurableExecutionAlreadyStarted,
    InternalFailure,
    InvalidParameterValue,
    ShuttingDown,
    TooManyRequests,
)
from serverfull.interfaces import EventQueue
from serverfull.workers.siblings import SiblingSilent

if TYPE_CHECKING:
    from serverfull.api.event_views import Document
    from serverfull.workers.siblings import Siblings

NAMES = 0
"""The worker that has the events with names."""

_ID = re.compile(r"([0-9]{1,4})-([0-9]{1,18})", re.ASCII)


class SharedEvents:
    """Makes of a worker's own events those of all workers."""

    def __init__(self, siblings: Siblings) -> None:
        self._siblings = siblings

    def view(self, own: EventView) -> EventView:
        """Give the view of all events; the others see those of ``own`` from now on."""
        self._siblings.offer("list", own.list)
        self._siblings.offer("show", own.show)
        self._siblings.offer("change", own.change)
        return EventsOfAll(self._siblings)

    def queue(self, own: EventQueue) -> EventQueue:
        """Give the queue that lets the first worker have the events with names."""
        if self._siblings.number != NAMES:
            return NamesElsewhere(own, self._siblings)

        async def put(event: Mapping[str, Any]) -> Mapping[str, Any]:
            return await _taken(own.put, read_event(event))

        self._siblings.offer("put", put)
        return own


class EventsOfAll(EventView):
    """Asks all workers, one after the other, as far as a page goes."""

    def __init__(self, siblings: Siblings) -> None:
        self._siblings = siblings

    async def list(self, states: Sequence[str], *, function: str | None, after: str, limit: int) -> Document:
        """Give events, worker by worker."""
        events: list[Document] = []
        unreached: list[Document] = []
        first, after = self._read(after) if after else (0, "")
        for number in range(first, self._siblings.count):
            room = limit - len(events)
            if not room:
                break
            try:
                found = await self._siblings.ask(
                    number, "list", states=list(states), function=function, after=after, limit=room
                )
            except InternalFailure as failure:
                unreached.append(_unreached(number, failure))
            else:
                events += (event | {"Id": f"{number}-{event['Id']}"} for event in found["Events"])
            after = ""
        return {"Events": events, "Unreached": unreached}

    async def show(self, event_id: str) -> Document | None:
        """Ask the worker that has the event."""
        number, own_id = self._read(event_id)
        found: Document | None = await self._siblings.ask(number, "show", event_id=own_id)
        return None if found is None else found | {"Id": event_id}

    async def change(self, action: str, ids: Sequence[str]) -> Document:
        """Have each worker change what is its own."""
        by_number: dict[int, list[str]] = {}
        for number, own_id in map(self._read, ids):
            by_number.setdefault(number, []).append(own_id)
        count, unreached = 0, []
        for number, own_ids in by_number.items():
            try:
                changed = await self._siblings.ask_once(number, "change", action=action, ids=own_ids)
            except InternalFailure as failure:
                unreached.append(_unreached(number, failure))
            else:
                count += changed["Count"]
        return {"Count": count, "Unreached": unreached}

    def _read(self, event_id: str) -> tuple[int, str]:
        found = _ID.fullmatch(event_id)
        if found is None or int(found[1]) >= self._siblings.count:
            raise InvalidParameterValue(
                f"{event_id[:80]!r} is no id of an event: this host has {self._siblings.count} workers, and ids name "
                "the worker, such as 0-17."
            )
        return int(found[1]), found[2]


class NamesElsewhere(EventQueue):
    """Keeps what a queue does, and lets the first worker have the events with names."""

    def __init__(self, queue: EventQueue, siblings: Siblings) -> None:
        self._queue = queue
        self._siblings = siblings

    async def put(self, event: QueuedEvent) -> bool:
        """Accept an event here, or there.

        :raises SiblingSilent: the first worker did not answer. It may have taken the event, so the client sends it
            again, under the same name.
        """
        if event.execution_name is None:
            return await self._queue.put(event)
        answer = await self._siblings.ask(NAMES, "put", event=written_event(event))
        if refusal := answer.get("refusal"):
            raise _REFUSALS[refusal](answer["message"], event)
        return bool(answer["new"])

    def freed(self, function: str) -> None:
        """Hear that an invocation has ended."""
        self._queue.freed(function)

    async def drain(self, timeout: float) -> int:
        """Let end what runs."""
        return await self._queue.drain(timeout)


_REFUSALS: Mapping[str, Callable[[str, QueuedEvent], Exception]] = {
    "DurableExecutionAlreadyStarted": lambda _, event: DurableExecutionAlreadyStarted(event.execution_name or ""),
    "TooManyRequests": lambda message, _: TooManyRequests("CallerRateLimitExceeded", message=message),
    "ShuttingDown": lambda _message, _event: ShuttingDown(),
}


async def _taken(put: Callable[[QueuedEvent], Awaitable[bool]], event: QueuedEvent) -> Mapping[str, Any]:
    """Have an event accepted for another worker, and say how that went."""
    try:
        return {"new": await put(event)}
    except (DurableExecutionAlreadyStarted, TooManyRequests, ShuttingDown) as refusal:
        return {"refusal": type(refusal).__name__, "message": refusal.message}


def written_event(event: QueuedEvent) -> dict[str, Any]:
    """Write an event in what JSON is made of."""
    return asdict(event) | {"payload": base64.b64encode(event.payload).decode()}


def read_event(written: Mapping[str, Any]) -> QueuedEvent:
    """Read what `written_event` wrote."""
    simulation, payload = written["simulation"], base64.b64decode(written["payload"])
    simulated = None if simulation is None else Simulation(*simulation)
    return QueuedEvent(**{**written, "simulation": simulated, "payload": payload})


def _unreached(number: int, failure: InternalFailure) -> Document:
    reason = failure.reason if isinstance(failure, SiblingSilent) else failure.message
    return {"Worker": number, "Reason": reason.rstrip(".")}
