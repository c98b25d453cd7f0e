"""``/_serverfull/events``: the events that a host has, for its operator.

========================== ===========================================================================================
request                    what it does
========================== ===========================================================================================
``GET …/events``           lists events; ``state=`` (any number of them), ``function=NAME``, ``after=ID``, ``limit=N``
``GET …/events/ID``        shows one, with its payload and the response of its last attempt
``POST …/events/redrive``  ``{"Ids": [...]}``: lets ended events run again, or be delivered
``POST …/events/purge``    ``{"Ids": [...]}``: deletes events that do not run
========================== ===========================================================================================

Events are for this machine alone, as the log of functions is.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from aiohttp import web

from serverfull.api.connection import REQUEST_ID, error_response
from serverfull.api.probes import is_local
from serverfull.domain.json_functions import dumps, loads
from serverfull.domain.timestamps import timestamp
from serverfull.errors import (
    InvalidParameterValue,
    RequestError,
    RequestRefused,
    ResourceNotFound,
    UnsupportedOperation,
)

if TYPE_CHECKING:
    from serverfull.domain.events import KeptEvent
    from serverfull.interfaces import EventStore

STATES = ("waiting", "running", "delivering", "ended")
MOST = 1000
"""Events of one answer, and of one request to change them."""

SEVERAL_WORKERS = "It has several workers, each with events of its own. Serve with one worker to look after them."


class EventView(Protocol):
    """What gives the events; a `StoredQueue` does."""

    async def store(self) -> EventStore:
        """Give what keeps them."""

    async def reload(self) -> None:
        """Hear that they were changed."""


def add_events(
    app: web.Application, view: Callable[[], EventView | None], *, admit: Callable[[web.BaseRequest], str]
) -> None:
    """Add the paths to an application.

    :param view: gives what has the events; None: not all of them are in this process.
    :param admit: lets a request in and gives it its id, or raises a RequestError.
    """
    events = _Events(view)
    for method, path, answer in (
        ("GET", "", events.list),
        ("GET", "/{id}", events.show),
        ("POST", "/redrive", events.redrive),
        ("POST", "/purge", events.purge),
    ):
        app.router.add_route(method, f"/_serverfull/events{path}", _answering(answer, admit))


def _answering(
    answer: Callable[[web.Request], Awaitable[dict[str, Any]]], admit: Callable[[web.BaseRequest], str]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Make a handler that says what is wrong with a request in AWS's form, as everywhere."""

    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            request_id = admit(request)
            if not is_local(request):
                raise RequestRefused("Only clients on this machine may look after events here.")
            text = dumps(await answer(request))
        except RequestError as error:
            return error_response(error, request.get(REQUEST_ID) or str(uuid4()))
        headers = {"Cache-Control": "no-store", "x-amzn-RequestId": request_id}
        return web.Response(text=text, content_type="application/json", headers=headers)

    return handler


class _Events:
    def __init__(self, view: Callable[[], EventView | None]) -> None:
        self._find_view = view

    def _view(self) -> EventView:
        view = self._find_view()
        if view is None:
            raise UnsupportedOperation("events", SEVERAL_WORKERS)
        return view

    async def list(self, request: web.Request) -> dict[str, Any]:
        asked = request.query
        states = asked.getall("state", list(STATES))
        if not set(states) <= set(STATES):
            raise InvalidParameterValue(f"state must be one of {', '.join(STATES)}.")
        after, limit = _number(asked.get("after", "0"), "after"), _number(asked.get("limit", "100"), "limit")
        if not 1 <= limit <= MOST:
            raise InvalidParameterValue(f"limit must be 1 to {MOST}.")
        store = await self._view().store()
        found = await store.shown(states, function=asked.get("function") or None, after=after, limit=limit)
        return {"Events": [described(event) for event in found]}

    async def show(self, request: web.Request) -> dict[str, Any]:
        key = _number(request.match_info["id"], "the id")
        found = await (await self._view().store()).show(key)
        if found is None:
            raise ResourceNotFound(f"There is no event {key}. It may have run.")
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

    async def redrive(self, request: web.Request) -> dict[str, Any]:
        keys, view = await _keys(request), self._view()
        count = await (await view.store()).redrive(keys)
        await view.reload()
        return {"Redriven": count}

    async def purge(self, request: web.Request) -> dict[str, Any]:
        keys, view = await _keys(request), self._view()
        count = await (await view.store()).purge(keys)
        await view.reload()
        return {"Purged": count}


def described(kept: KeptEvent) -> dict[str, Any]:
    """Write an event down, without what may be long."""
    event, end = kept.event, kept.end
    reason = kept.undelivered or ("" if end is None or end.response is None else end.response.message)
    return {
        "Id": kept.key,
        "State": kept.state,
        "Function": event.name,
        "Qualifier": event.qualifier,
        "RequestId": event.request_id,
        "Account": event.account,
        "Region": event.region,
        "AcceptedAt": timestamp(event.accepted_at),
        "At": timestamp(kept.at),
        "Failures": event.failures,
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


async def _keys(request: web.Request) -> Sequence[int]:
    try:
        keys = loads(await request.read())["Ids"]
    except (ValueError, KeyError, TypeError, RecursionError):
        keys = None
    if not isinstance(keys, list) or len(keys) > MOST or not all(type(key) is int and 0 < key < 2**63 for key in keys):
        raise InvalidParameterValue(f"The body must be a JSON object with Ids, a list of at most {MOST} numbers.")
    return keys


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InvalidParameterValue(f"{name} must be a number.")
    return int(text)
