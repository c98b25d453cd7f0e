"""What an operator sees of events, as documents: what `EventView` gives, and the view of a process that has them all.

A document is what JSON is made of. Whoever gathers the events of several processes passes on what each of them gives.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from serverfull.domain.json_functions import loads
from serverfull.domain.timestamps import timestamp
from serverfull.errors import InvalidParameterValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from serverfull.domain.events import KeptEvent
    from serverfull.interfaces import EventStore

Document: TypeAlias = "dict[str, Any]"

_MOST_REASON = 1000
"""Characters of why an event was given up."""


class EventView(Protocol):
    """Shows events and changes them.

    Every answer but that of `show` has ``Unreached``: which processes could not be asked, as ``Worker`` and ``Reason``.
    Whatever is asked raises InvalidParameterValue where an id is malformed, and InternalFailure where events cannot be
    read or written.
    """

    async def list(self, states: Sequence[str], *, function: str | None, after: str, limit: int) -> Document:
        """Give ``Events``, without their payloads, in the order of their ids.

        :param function: a bare name; None: of all functions.
        :param after: begin behind the event of that id; empty: at the first.
        """

    async def show(self, event_id: str) -> Document | None:
        """Give all that is known of an event; None: it is not there."""

    async def change(self, action: str, ids: Sequence[str]) -> Document:
        """Redrive events, or purge them; gives as ``Count`` how many there were.

        :param action: of `ACTIONS`.
        """


class EventKeeper(Protocol):
    """What has events; a `StoredQueue` does."""

    async def store(self) -> EventStore:
        """Give what keeps them."""

    async def reload(self) -> None:
        """Hear that they were changed."""


class OwnEvents(EventView):
    """The events of this process.

    :param keeper: gives what has them.
    """

    def __init__(self, keeper: Callable[[], EventKeeper]) -> None:
        self._keeper = keeper

    async def list(self, states: Sequence[str], *, function: str | None, after: str, limit: int) -> Document:
        """Give events; see `EventView`."""
        store = await self._keeper().store()
        key = number_of(after) if after else 0
        found = await store.shown(states, function=function, after=key, limit=limit)
        return {"Events": [described(event) for event in found], "Unreached": []}

    async def show(self, event_id: str) -> Document | None:
        """Give an event with its payload and the response of its last attempt."""
        found = await (await self._keeper().store()).show(number_of(event_id))
        if found is None:
            return None
        document = described(found)
        document["Payload"] = _text(found.event.payload)
        document["TraceId"] = found.event.trace_id
        if found.end is not None and found.end.response is not None:
            response = found.end.response
            document["Response"] = {
                "StatusCode": response.status_code,
                "ExecutedVersion": response.executed_version,
                "FunctionError": response.function_error,
                "Payload": _text(response.payload),
            }
        return document

    async def change(self, action: str, ids: Sequence[str]) -> Document:
        """Change events, and have the queue see what waits now."""
        keeper, keys = self._keeper(), [number_of(event_id) for event_id in ids]
        count = await ACTIONS[action](await keeper.store(), keys)
        await keeper.reload()
        return {"Count": count, "Unreached": []}


ACTIONS: Mapping[str, Callable[[EventStore, Sequence[int]], Any]] = {
    "redrive": lambda store, keys: store.redrive(keys),
    "purge": lambda store, keys: store.purge(keys),
}
"""What can be done with events."""


def number_of(text: str) -> int:
    """Read the id of an event of one process.

    :raises InvalidParameterValue: it is none.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InvalidParameterValue(f"{text[:80]!r} is no id of an event: those are numbers here.")
    return int(text)


def described(kept: KeptEvent) -> Document:
    """Write an event down, without what may be long."""
    from serverfull.domain.destinations import error_message  # late: a start does without events

    event, end = kept.event, kept.end
    reason, failures = kept.undelivered, event.failures
    if end is not None and not end.success:
        reason, failures = reason or error_message(end)[:_MOST_REASON], end.invoke_count - event.deaths
    return {
        "Id": str(kept.key),
        "State": kept.state,
        "Function": event.name,
        "Qualifier": event.qualifier,
        "RequestId": event.request_id,
        "Account": event.account,
        "Region": event.region,
        "AcceptedAt": timestamp(event.accepted_at),
        "At": timestamp(kept.at),
        "Failures": failures,
        "HostDeaths": event.deaths,
        "PayloadBytes": kept.size,
        "Condition": None if end is None else end.condition,
        "Reason": reason or None,
    }


def _text(payload: bytes) -> Any:
    """Give a payload as JSON has it, or as text, or as base64 where it is neither."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return {"Base64": base64.b64encode(payload).decode()}
    try:
        return loads(text)
    except (ValueError, RecursionError):
        return text
