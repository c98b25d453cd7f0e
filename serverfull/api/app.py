"""Builds the aiohttp application, and the dispatcher that stands in front of it on the host's own server.

The application is complete by itself: users extend it with middlewares and routes, mount it below a path, or run it
on any aiohttp runner. On the host's own server the `Dispatcher` answers invocations before the router is asked (6 to 7
µs of a bare request's 42), as long as no middleware and no ``on_response_prepare`` signal wants to see them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from serverfull.api.connection import REQUEST_ID, absolute_host, error_response, http_error_response
from serverfull.api.contracts import ContractDocuments
from serverfull.api.gates import Gates
from serverfull.api.invocations import InvokeFront, InvokeRoute, qualifier_of, read_body
from serverfull.api.probes import is_local
from serverfull.domain.limits import MANAGEMENT_REQUEST_BYTES
from serverfull.domain.names import RequestScope, check_reachable
from serverfull.errors import (
    InternalFailure,
    RequestEntityTooLarge,
    RequestError,
    RequestTooLarge,
    ResourceConflict,
    ShuttingDown,
)
from serverfull.invocation.request_ids import RequestIds
from serverfull.invocation.requests import InvocationReader, reference

if TYPE_CHECKING:
    from serverfull.api.protocol import OperationHandler
    from serverfull.api.protocol import Protocol as OperationProtocol

READING = ("GET", "HEAD")
"""Methods of operations that change nothing."""

FROM_ELSEWHERE = (
    "This host takes no deployments from other machines: deployed code has the rights of the host's user, and nothing "
    "authenticates its callers. Deploy from the machine that it runs on."
)
"""The host's own server refuses this by its address; a user may run the application on one that listens elsewhere."""


class LazyProtocol:
    """The driver of the management API, made when the first management request comes.

    A host that only invokes never needs AWS's model and what keeps deployed functions, and a start should not wait for
    them.

    :param handlers: gives what runs an operation, by its name in the model; called once, and again where it failed.
    """

    def __init__(self, handlers: Callable[[], Awaitable[Mapping[str, OperationHandler]]]) -> None:
        self._handlers = handlers
        self._loading: asyncio.Task[OperationProtocol] | None = None

    async def get(self) -> OperationProtocol:
        """Give the driver; invocations go on while it is made."""
        if self._loading is None or (self._loading.done() and self._loading.exception() is not None):
            self._loading = asyncio.create_task(self._load())
        return await asyncio.shield(self._loading)

    async def _load(self) -> OperationProtocol:
        handlers = await self._handlers()
        return await asyncio.to_thread(_load_protocol, handlers)


def _load_protocol(handlers: Mapping[str, OperationHandler]) -> OperationProtocol:
    from serverfull.api.protocol import Protocol

    return Protocol.load(handlers)


class Front:
    """Everything that requests of the Lambda API go through, whichever way they came in.

    :param contracts: what ``/_serverfull/contracts`` shows.
    :param draining: says whether new requests are refused because the host goes down.
    :param logger: the host's own log.
    """

    def __init__(
        self,
        *,
        invoke: InvokeFront,
        management: LazyProtocol,
        contracts: ContractDocuments,
        reader: InvocationReader,
        request_ids: RequestIds,
        gates: Gates,
        draining: Callable[[], bool],
        logger: Any,
    ) -> None:
        self.invoke = invoke
        self._management = management
        self._contracts = contracts
        self._reader = reader
        self._request_ids = request_ids
        self._gates = gates
        self._draining = draining
        self._answering: set[asyncio.Future[web.StreamResponse]] = set()  # the loop itself holds tasks weakly
        self._logger = logger

    def admit(self, request: web.BaseRequest) -> str:
        """Let a request in and give it its id.

        :raises RequestRefused: its Host or Origin is not one that may call.
        :raises ShuttingDown: the host drains.
        """
        request[REQUEST_ID] = request_id = self._request_ids.new()
        self._gates.check(request.headers, absolute_host(request))
        if self._draining():
            raise ShuttingDown
        return request_id

    def answer_directly(self, request: web.BaseRequest, route: InvokeRoute) -> Awaitable[web.StreamResponse]:
        """Answer Invoke or InvokeAsync where nothing but the connection sees the answer."""
        return self.invoke.answer(request, route, self.admit(request), direct=True)

    async def answer_route(self, request: web.Request) -> web.StreamResponse:
        """Answer Invoke or InvokeAsync as the application's router found it, below whatever path it is mounted."""
        return await self._or_error(request, self._answer_route)

    async def answer_management(self, request: web.Request) -> web.StreamResponse:
        """Answer any other operation of the API."""
        return await self._or_error(request, self._answer_management)

    async def answer_contracts(self, request: web.Request) -> web.StreamResponse:
        """Show the contracts of the functions to those who may invoke them."""
        return await self._or_error(request, self._answer_contracts)

    @web.middleware
    async def answer_http_errors(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Give unknown paths and methods an answer that SDKs can read; a middleware, the outermost of the application.

        The host's own server does this for itself; a user may run the application on another one, or mount it.
        """
        try:
            return await handler(request)
        except web.HTTPException as error:
            answer = http_error_response(error, request, request.get(REQUEST_ID) or self._request_ids.new())
            if answer is error:
                raise
            return answer

    async def _or_error(
        self, request: web.Request, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Answer errors here and not in the server, because a user may run the application on another one."""
        try:
            return await answer(request)
        except (web.HTTPException, ConnectionError):
            raise
        except Exception as error:  # a request's boundary
            request_id = request.get(REQUEST_ID) or self._request_ids.new()
            if isinstance(error, RequestError) and not isinstance(error, InternalFailure):
                return error_response(error, request_id)
            self._logger.error("request failed", request_id=request_id, path=request.path, exc_info=error)
            return error_response(error, request_id)

    async def _answer_route(self, request: web.Request) -> web.StreamResponse:
        is_async = "/2014-11-13/" in request.path
        qualifier = None if is_async else qualifier_of(request.rel_url.raw_query_string)
        route = InvokeRoute(request.match_info["FunctionName"], qualifier, is_async)
        # In a task of its own: as on AWS an invocation outlives its caller, also where a middleware or another runner
        # cancels the request. On the host's own server nobody does, and the direct way in needs no task.
        answering = asyncio.ensure_future(self.invoke.answer(request, route, self.admit(request), direct=False))
        self._answering.add(answering)
        answering.add_done_callback(self._answering.discard)
        return await asyncio.shield(answering)

    async def _answer_management(self, request: web.Request) -> web.StreamResponse:
        request_id = self.admit(request)
        if request.method not in READING and not is_local(request):
            raise ResourceConflict(FROM_ELSEWHERE)
        account, region = self._reader.scope(request.headers)
        path, _, query = request.raw_path.partition("?")
        start = path.index(f"/{request.match_info['date']}/")  # what is before, the application is mounted below
        try:
            body = await read_body(request, MANAGEMENT_REQUEST_BYTES, "management")
        except RequestTooLarge:
            raise await self._too_large(request, path[start:], query) from None
        scope = RequestScope(
            account or self._reader.account,
            region,
            request_id,
            account_known=account is not None,
            base_url=f"{request.scheme}://{request.host}{path[:start]}",
        )
        headers = {name.lower(): value for name, value in request.headers.items()}
        protocol = await self._management.get()
        answer = await protocol.handle(request.method, path[start:], query, headers, body, scope)
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    async def _too_large(self, request: web.Request, path: str, query: str) -> RequestEntityTooLarge:
        """Word it as AWS does, with the operation's name."""
        from serverfull.api.protocol import parse_query

        agent = request.headers.get("User-Agent", "")
        matched = (await self._management.get()).match(request.method, path, parse_query(query), agent)
        return RequestEntityTooLarge(
            f"Request must be smaller than {MANAGEMENT_REQUEST_BYTES} bytes for the {matched.operation_name} operation"
        )

    async def _answer_contracts(self, request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": "application/json", "x-amzn-RequestId": self.admit(request)}
        name = request.match_info.get("FunctionName")
        if name is None:
            body = await self._contracts.every()
        else:
            # As Invoke reads it: a name, a name with a qualifier, or an ARN.
            wanted = reference(name, qualifier_of(request.rel_url.raw_query_string))
            account, region = self._reader.scope(request.headers)
            if wanted.region is not None or wanted.account is not None:
                check_reachable(wanted, account, region)
            body = await self._contracts.one(wanted.name, wanted.qualifier, account or self._reader.account, region)
        return web.Response(body=body, headers=headers)


def make_application(front: Front) -> web.Application:
    """Build the application: the Lambda API's routes, Invoke first because aiohttp looks through routes in order."""
    app = web.Application(client_max_size=MANAGEMENT_REQUEST_BYTES, middlewares=[front.answer_http_errors])
    router = app.router
    router.add_post("/2015-03-31/functions/{FunctionName}/invocations", front.answer_route)
    router.add_post("/2015-03-31/functions/{FunctionName}/invocations/", front.answer_route)
    router.add_post("/2014-11-13/functions/{FunctionName}/invoke-async", front.answer_route)
    router.add_post("/2014-11-13/functions/{FunctionName}/invoke-async/", front.answer_route)
    router.add_get("/_serverfull/contracts", front.answer_contracts)
    router.add_get("/_serverfull/contracts/{FunctionName}", front.answer_contracts)
    router.add_route("*", r"/{date:\d\d\d\d-\d\d-\d\d}/{operation:.*}", front.answer_management)
    return app


class Dispatcher:
    """Answers invocations at once and leaves everything else to the application. Called for every request."""

    def __init__(self, front: Front, app: web.Application) -> None:
        self._front = front
        self._match = front.invoke.routes.match
        self._app = app._handle  # what aiohttp's own runner calls; there is no public name for it
        # Whether nobody else wants to see invocations or their answers.
        self._direct = not app.on_response_prepare and all(one == front.answer_http_errors for one in app.middlewares)

    def __call__(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """Answer one request. No coroutine of its own, as each of them costs every request."""
        if self._direct and request.method == "POST":
            route = self._match(request._message.path)
            if route is not None:
                return self._front.answer_directly(request, route)
        return self._app(request)  # type: ignore[arg-type]
