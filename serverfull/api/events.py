"""``/_serverfull/events``: the events that a host has, for its operator.

========================== ===========================================================================================
request                    what it does
========================== ===========================================================================================
``GET …/events``           lists events; ``state=`` (any number of them), ``function=NAME``, ``after=ID``, ``limit=N``
``GET …/events/ID``        shows one, with its payload and the response of its last attempt
``POST …/events/redrive``  ``{"Ids": [...]}``: lets ended events run again, or be delivered
``POST …/events/purge``    ``{"Ids": [...]}``: deletes events that do not run
========================== ===========================================================================================

Ids are text. With several workers they name the worker, and ``Unreached`` says which workers did not answer: what these
have is neither shown nor changed. Events are for this machine alone, as the log of functions is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aiohttp import web

from serverfull.api.connection import REQUEST_ID, error_response
from serverfull.api.probes import is_local
from serverfull.domain.json_functions import dumps, loads
from serverfull.errors import InvalidParameterValue, RequestError, RequestRefused, ResourceNotFound

if TYPE_CHECKING:
    from serverfull.api.event_views import EventView

STATES = ("waiting", "running", "delivering", "ended")
MOST = 1000
"""Events of one answer, and of one request to change them."""


def add_events(app: web.Application, view: EventView, *, admit: Callable[[web.BaseRequest], str]) -> None:
    """Add the paths to an application.

    :param view: what has the events.
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
    def __init__(self, view: EventView) -> None:
        self._view = view

    async def list(self, request: web.Request) -> dict[str, Any]:
        asked = request.query
        states = asked.getall("state", list(STATES))
        if not set(states) <= set(STATES):
            raise InvalidParameterValue(f"state must be one of {', '.join(STATES)}.")
        limit = asked.get("limit", "100")
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 5 and 1 <= int(limit) <= MOST):
            raise InvalidParameterValue(f"limit must be 1 to {MOST}.")
        function, after = asked.get("function") or None, asked.get("after", "")
        return await self._view.list(states, function=function, after=after, limit=int(limit))

    async def show(self, request: web.Request) -> dict[str, Any]:
        event_id = request.match_info["id"]
        found = await self._view.show(event_id)
        if found is None:
            raise ResourceNotFound(f"There is no event {event_id}. It may have run.")
        return found

    async def redrive(self, request: web.Request) -> dict[str, Any]:
        return await self._change(request, "redrive", "Redriven")

    async def purge(self, request: web.Request) -> dict[str, Any]:
        return await self._change(request, "purge", "Purged")

    async def _change(self, request: web.Request, action: str, member: str) -> dict[str, Any]:
        changed = await self._view.change(action, await _ids(request))
        return {member: changed["Count"], "Unreached": changed["Unreached"]}


async def _ids(request: web.Request) -> Sequence[str]:
    try:
        ids = loads(await request.read())["Ids"]
    except (ValueError, KeyError, TypeError, RecursionError):
        ids = None
    if not isinstance(ids, list) or len(ids) > MOST or not all(isinstance(event_id, str) for event_id in ids):
        raise InvalidParameterValue(f"The body must be a JSON object with Ids, a list of at most {MOST} ids as text.")
    return ids
