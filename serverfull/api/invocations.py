"""The hot path: Invoke and InvokeAsync, written by hand where everything else is driven by the AWS model.

`InvokeFront` is called for every request before the application's router. It recognises the two paths by the raw
request line (a dictionary look-up for a path seen before), reads headers and body, hands an `Invocation` to the
invoker, and turns the outcome into an answer. What an invocation means is not decided here: `invocation.requests`
reads it, `invocation.invoker` runs it, `api.errors` words what went wrong.

AWS: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html and API_InvokeAsync.html
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import parse_qs, unquote

from aiohttp import web
from aiohttp.hdrs import CONTENT_LENGTH

from serverfull.api.answers import answer_outcome, direct_answer, empty_answer
from serverfull.domain import limits
from serverfull.domain.names import FunctionReference
from serverfull.errors import InvalidParameterValue, RequestTooLarge, ValidationFailed
from serverfull.invocation.requests import InvocationReader, reference

if TYPE_CHECKING:
    from serverfull.domain.invocations import Invocation, Outcome

INVOKE_PREFIX, INVOKE_SUFFIX = "/2015-03-31/functions/", "/invocations"
ASYNC_PREFIX, ASYNC_SUFFIX = "/2014-11-13/functions/", "/invoke-async"
_ROUTES_KEPT = 4096


class InvokeRoute(NamedTuple):
    """What the request line of an invocation says.

    :param name: the FunctionName label, percent-decoded.
    :param qualifier: the Qualifier parameter.
    :param is_async: whether it is the old InvokeAsync.
    """

    name: str
    qualifier: str | None
    is_async: bool

    def reference(self) -> FunctionReference:
        """Parse the name.

        :raises ValidationFailed: the name or the qualifier breaks a constraint of the model.
        """
        return reference(self.name, self.qualifier)


class InvokeRoutes:
    """Recognises the request lines of invocations; what it has recognised it knows by heart."""

    def __init__(self) -> None:
        self._known: dict[str, InvokeRoute] = {}

    def match(self, raw_path: str) -> InvokeRoute | None:
        """Read a request target as it came over the wire; None where it is no invocation."""
        route = self._known.get(raw_path)
        if route is not None:
            return route
        route = _parse(raw_path)
        if route is not None and len(raw_path) <= 512:
            if len(self._known) >= _ROUTES_KEPT:
                self._known.clear()
            self._known[raw_path] = route
        return route


def _parse(raw_path: str) -> InvokeRoute | None:
    path, _, query = raw_path.partition("?")
    path = path.removesuffix("/")
    if path.startswith(INVOKE_PREFIX) and path.endswith(INVOKE_SUFFIX):
        label, is_async = path[len(INVOKE_PREFIX) : -len(INVOKE_SUFFIX)], False
    elif path.startswith(ASYNC_PREFIX) and path.endswith(ASYNC_SUFFIX):
        label, is_async = path[len(ASYNC_PREFIX) : -len(ASYNC_SUFFIX)], True
    else:
        return None
    if not label or "/" in label:
        return None
    return InvokeRoute(unquote(label), None if is_async else qualifier_of(query), is_async)


def qualifier_of(query: str) -> str | None:
    """Find the Qualifier in a query string.

    :raises ValidationFailed: it is there, and empty.
    :raises InvalidParameterValue: the query has more parameters than anybody needs.
    """
    if not query:
        return None
    try:
        values = parse_qs(query, keep_blank_values=True, max_num_fields=100).get("Qualifier")
    except ValueError:
        raise InvalidParameterValue("The query has more than 100 parameters.") from None
    if values is None:
        return None
    if not values[0]:
        raise ValidationFailed(
            "Value '' at 'qualifier' failed to satisfy constraint: Member must have length greater than or equal to 1"
        )
    return values[0]


class Invocations(Protocol):
    """What invocations are handed to; an `~serverfull.invocation.invoker.Invoker` fits."""

    async def invoke(self, invocation: Invocation, /) -> Outcome:
        """Run a function and wait for how it ends."""

    async def accept_event(self, invocation: Invocation, /) -> None:
        """Take an event that is run later."""

    async def check(self, invocation: Invocation, /) -> None:
        """Do everything up to running the function."""


class InvokeFront:
    """Answers invocations."""

    def __init__(self, invoker: Invocations, reader: InvocationReader) -> None:
        self._invoker = invoker
        self._reader = reader
        self.routes = InvokeRoutes()

    async def answer(
        self, request: web.BaseRequest, route: InvokeRoute, request_id: str, *, direct: bool
    ) -> web.StreamResponse:
        """Answer one invocation.

        :param direct: whether nobody looks at the answer before it is written.
        :raises RequestError: whatever the caller is to be told.
        """
        invocation = self._reader.read(route.reference(), request.headers, request_id)
        if route.is_async:
            invocation.invocation_type = "Event"
        kind = invocation.invocation_type
        if kind == "RequestResponse":
            invocation.payload = await read_body(request, limits.SYNC_PAYLOAD_BYTES, kind)
            outcome = await self._invoker.invoke(invocation)
            return (direct_answer(request, outcome, request_id) if direct else None) or answer_outcome(
                outcome, request_id
            )
        if kind == "Event":
            invocation.payload = await read_body(request, limits.ASYNC_PAYLOAD_BYTES, kind)
            await self._invoker.accept_event(invocation)
            return empty_answer(202, request_id)
        invocation.payload = await read_body(request, limits.SYNC_PAYLOAD_BYTES, kind)
        await self._invoker.check(invocation)
        return empty_answer(204, request_id)


async def read_body(request: web.BaseRequest, limit: int, kind: str) -> bytes:
    """Read a request's body as it came, never decompressed.

    :param limit: bytes; more is refused, from the Content-Length where there is one, before it is read.
    :param kind: what the message calls the request: an invocation type, or an operation.
    :raises RequestTooLarge: the body is over the limit.
    """
    length = request.headers.get(CONTENT_LENGTH)
    if length is not None and len(length) > 6 and int(length) > limit:
        raise RequestTooLarge(int(length), limit, kind)
    content = request.content
    if content.is_eof():  # the usual case: the whole body came with the headers
        body = content.read_nowait() or request._read_bytes or b""  # the latter where a middleware has read it before
        _check_size(len(body), limit, kind)
        return body
    whole = BytesIO()  # which gives what was written without copying it: of a package that takes 50 ms
    while not content.at_eof():
        whole.write(await content.readany())
        _check_size(whole.tell(), limit, kind)
    return whole.getvalue()


def _check_size(size: int, limit: int, kind: str) -> None:
    if size > limit:
        raise RequestTooLarge(size, limit, kind)
