"""``GET /_serverfull/functions``: which functions a host has, of which fetcher, what hides what, and what is broken.

For this machine alone, because it tells where code lies, and what is in the operator's files.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import uuid4

from aiohttp import web

from serverfull.api.connection import REQUEST_ID, error_response
from serverfull.api.probes import is_local
from serverfull.domain.json_functions import dumps
from serverfull.domain.records import Partition
from serverfull.errors import RequestError, RequestRefused

if TYPE_CHECKING:
    from serverfull.interfaces import Found
    from serverfull.invocation.requests import InvocationReader


def add_survey(
    app: web.Application,
    survey: Callable[[Partition], Awaitable[Sequence[Found]]],
    *,
    reader: InvocationReader,
    admit: Callable[[web.BaseRequest], str],
) -> None:
    """Add the path to an application.

    :param survey: gives what callers of an account in a region find.
    :param reader: tells account and region of a request.
    :param admit: lets a request in and gives it its id, or raises a RequestError.
    """

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            request_id = admit(request)
            if not is_local(request):
                raise RequestRefused("Only clients on this machine may see where functions come from.")
            account, region = reader.scope(request.headers)
            found = await survey(Partition(account or reader.account, region))
        except RequestError as error:
            return error_response(error, request.get(REQUEST_ID) or str(uuid4()))
        headers = {"Cache-Control": "no-store", "x-amzn-RequestId": request_id}
        text = dumps({"Functions": [_told(each) for each in found]})
        return web.Response(text=text, content_type="application/json", headers=headers)

    app.router.add_get("/_serverfull/functions", answer)


def _told(found: Found) -> Mapping[str, str]:
    told = {
        "FunctionName": found.name,
        "Source": found.source,
        "Place": found.place,
        "Failure": found.failure,
        "HiddenBy": found.hidden_by,
    }
    return {member: value for member, value in told.items() if value}
