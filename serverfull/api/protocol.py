"""All management operations over HTTP, driven by the AWS model: no operation has HTTP code of its own.

A request is matched to an operation, parsed into one mapping keyed by the model's member names, checked against the
model's constraints, given to the function that is registered for the operation, and what that returns is laid out as
the model says. Errors are raised; the application words them with `serverfull.api.errors`.

`Protocol.load` reads the model, blocks for some 20 ms and is called in a thread when the first management request
comes. After that everything but large bodies is read on the event loop and changes nothing, so requests do not wait for
each other. The hot path (Invoke) does not come by here.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs

from serverfull.api.constraints import check_constraints
from serverfull.api.model import installed_operations, model_source
from serverfull.api.routing import MatchedOperation, Router
from serverfull.api.wire import parse_input, serialise_output
from serverfull.domain.names import shown
from serverfull.errors import (
    MalformedRequest,
    MethodNotAllowed,
    UnknownOperation,
    UnsupportedMediaType,
    UnsupportedOperation,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from serverfull.api.model import Operation
    from serverfull.domain.names import RequestScope

    OperationHandler: TypeAlias = Callable[[dict[str, Any], RequestScope], Awaitable[Mapping[str, Any]]]

MAX_QUERY_FIELDS = 1_000
"""Query parameters of one request: more than any operation takes."""


_LARGE_BODY = 262_144
"""Bytes of a body from which it is read in a thread."""

_OPERATION = re.compile(r"/\d{4}-\d{2}-\d{2}(/[^/]+)+/?", re.ASCII)
"""What the paths of all operations look like: a version of the API, and names that are not empty."""

_COMMAND = re.compile(r"\bcommand[/#]lambda\.([a-z0-9-]{1,100})", re.ASCII)
"""What the AWS CLI (2) says in its User-Agent; no other client tells the operation."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as it goes over the wire.

    :param headers: all that the answer needs except those of HTTP framing (Content-Length, Date).
    """

    status: int
    headers: dict[str, str]
    body: bytes


class Protocol:
    """The driver.

    :param operations: those of AWS's model.
    :param handlers: what runs an operation, by the operation's name in the model. It takes the validated request and
        the scope, and returns the response by the model's member names.
    :param source: where the model comes from, for messages.
    """

    def __init__(
        self, operations: Mapping[str, Operation], handlers: Mapping[str, OperationHandler], source: str = "botocore"
    ) -> None:
        self.operations = operations
        self._router = Router(operations.values())
        self._handlers = dict(handlers)
        self._source = source

    @classmethod
    def load(cls, handlers: Mapping[str, OperationHandler]) -> Protocol:
        """Build the driver from the installed botocore's model. Blocks; call it in a thread.

        :raises FileNotFoundError: botocore's data is not there.
        """
        return cls(installed_operations(), handlers, model_source())

    async def handle(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: Mapping[str, str],
        body: bytes,
        scope: RequestScope,
    ) -> Answer:
        """Serve one request.

        :param raw_path: percent-encoded, as it came over the wire, without the query.
        :param raw_query: what stands behind ``?``, percent-encoded.
        :param headers: by names in small letters.
        :raises RequestError: the request cannot be served; its class tells why.
        """
        query = parse_query(raw_query)
        matched = self.match(method, raw_path, query, headers.get("user-agent", ""))
        handler = self._handlers.get(matched.operation_name)
        if handler is None:
            raise UnsupportedOperation(matched.operation_name)
        if len(body) > _LARGE_BODY:  # a package takes long enough to hold up the loop
            request = await asyncio.to_thread(self.parse, matched, query, headers, body)
        else:
            request = self.parse(matched, query, headers, body)
        answer = self.serialise(matched.operation_name, await handler(request, scope))
        answer.headers["x-amzn-RequestId"] = scope.request_id
        return answer

    def match(
        self, method: str, raw_path: str, query: Mapping[str, Sequence[str]], user_agent: str = ""
    ) -> MatchedOperation:
        """Find the operation of a request.

        :param user_agent: tells the name of an operation that the model does not have, if anything does.
        :raises UnsupportedOperation: the model has no such path, and a newer one may: it looks as operations' do.
        :raises UnknownOperation: no operation has this path, or ever will.
        :raises MethodNotAllowed: operations have it, with other methods.
        :raises MalformedRequest: the path is not UTF-8.
        """
        try:
            return self._router.match(method, raw_path, query)
        except (UnknownOperation, MethodNotAllowed) as unknown:
            command = _COMMAND.search(user_agent)
            if not _OPERATION.fullmatch(raw_path) or (command is None and isinstance(unknown, MethodNotAllowed)):
                raise
        request = f"{shown(method)} {shown(raw_path)}"
        raise UnsupportedOperation(
            request if command is None else f"{command[1]} ({request})",
            f"The AWS model that it has, of {self._source}, does not know it. Where the client is newer than that, "
            "upgrade botocore, and serverfull with it, on the host.",
        )

    def parse(
        self, matched: MatchedOperation, query: Mapping[str, Sequence[str]], headers: Mapping[str, str], body: bytes
    ) -> dict[str, Any]:
        """Read and check a request; members that are absent or null are left out.

        :raises UnsupportedMediaType: the operation reads JSON, and the body says that it is something else.
        :raises SerializationFailed: the body is not JSON, or a value has another type than the model says.
        :raises ValidationFailed: the values break constraints of the model.
        """
        shape = matched.operation.input
        if shape is None:
            return {}
        lowered = {name.lower(): value for name, value in headers.items()}
        if _reads_json(matched.operation):
            _check_content_type(lowered.get("content-type"), body)
        request = parse_input(shape, matched.uri_params, query, lowered, body)
        check_constraints(shape, request)
        return request

    def serialise(self, operation_name: str, result: Mapping[str, Any]) -> Answer:
        """Lay a result out as the model says: only what it has, and nothing that is None.

        :raises TypeError: a value has another type than the model says; a failure of the host.
        """
        operation = self.operations[operation_name]
        if operation.output is None:
            return Answer(operation.status, {}, b"")
        status, headers, body = serialise_output(operation.output, result)
        status = status or operation.status
        if status == 204:
            return Answer(status, headers, b"")
        headers["Content-Type"] = "application/json"
        return Answer(status, headers, body)


def parse_query(raw_query: str) -> dict[str, list[str]]:
    """Decode a query string; names without a value have an empty one.

    :raises MalformedRequest: it is not UTF-8, or has too many parameters.
    """
    if not raw_query:
        return {}
    try:
        return parse_qs(raw_query, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except ValueError as error:
        raise MalformedRequest(f"The query cannot be read: {shown(str(error))}") from None


def _reads_json(operation: Operation) -> bool:
    shape = operation.input
    if shape is None:
        return False
    if shape.payload is not None:
        return shape.members[shape.payload].shape.type == "structure"
    return bool(shape.body_members)


def _check_content_type(content_type: str | None, body: bytes) -> None:
    """Insist on JSON, for a web page can send forms and plain text anywhere without asking, and JSON it cannot."""
    if content_type is None:
        if body:
            raise UnsupportedMediaType("A request body needs Content-Type: application/json")
        return
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in ("application/json", "application/x-amz-json-1.0", "application/x-amz-json-1.1"):
        raise UnsupportedMediaType(f"The content type {shown(kind)} is not supported; send application/json")
