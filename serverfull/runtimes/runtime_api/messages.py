"""What passes through the Runtime API: invocations as headers and an event, results and errors as what was posted.

`serverfull.runtimes.runtime_api.api` calls this; nothing here keeps state.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serverfull.domain.json_functions import dumps, loads
from serverfull.runtimes.error_reports import platform_error_document

if TYPE_CHECKING:
    from serverfull.runtimes.runtime_api.http import Request

JSON_TYPE = "application/json"

_ERROR_TYPE = "lambda-runtime-function-error-type"
_ERROR_BODY = "lambda-runtime-function-error-body"
_BINARY = "application/octet-stream"
_WITH_CAUSE = "application/vnd.aws.lambda.error.cause+json"
_OWN_TYPE = re.compile(r"(Runtime|Function)\.[A-Z][a-zA-Z]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(slots=True)
class Work:
    """One invocation, as the runtime gets it.

    :param deadline_ms: milliseconds since the epoch.
    :param client_context: JSON, as are ``cognito_identity``; what is None or empty is not sent.
    """

    request_id: str
    payload: bytes
    deadline_ms: int
    arn: str
    trace_id: str
    client_context: str | None = None
    cognito_identity: str | None = None
    tenant_id: str | None = None


@dataclass(slots=True)
class Answer:
    """What the runtime posted.

    :param error: the payload is an error document.
    :param content_type: as the runtime named it, possibly empty.
    :param error_type: of an error, as AWS's REPORT line names it: ``Runtime.…`` or ``Function.…``.
    """

    payload: bytes
    error: bool = False
    content_type: str = ""
    error_type: str = ""


def invocation_fields(work: Work) -> str:
    """Give the headers by which the runtime gets an invocation, each with its line end."""
    request_id, arn, trace_id = work.request_id, work.arn, work.trace_id
    every = f"{request_id}{arn}{trace_id}"
    if "\n" in every or "\r" in every:  # to look at every character, for what else is not printable, costs 2 µs
        request_id, arn, trace_id = map(_on_one_line, (request_id, arn, trace_id))
    # Exactly this content type: with a charset, AWS's Python client gives the handler a text instead of a value.
    text = (
        "Content-Type: application/json\r\n"
        f"Lambda-Runtime-Aws-Request-Id: {request_id}\r\n"
        f"Lambda-Runtime-Deadline-Ms: {work.deadline_ms}\r\n"
        f"Lambda-Runtime-Invoked-Function-Arn: {arn}\r\n"
    )
    if trace_id:
        text += f"Lambda-Runtime-Trace-Id: {trace_id}\r\n"
    if work.client_context:
        text += f"Lambda-Runtime-Client-Context: {_on_one_line(work.client_context)}\r\n"
    if work.cognito_identity:
        text += f"Lambda-Runtime-Cognito-Identity: {_on_one_line(work.cognito_identity)}\r\n"
    if work.tenant_id:
        text += f"Lambda-Runtime-Aws-Tenant-Id: {_on_one_line(work.tenant_id)}\r\n"
    return text


def _on_one_line(text: str) -> str:
    return text if text.isprintable() else _CONTROL.sub(" ", text)


def _error_type(text: str | None) -> str:
    """Give the type that a runtime names in a header, as AWS reports it."""
    if text is not None and _OWN_TYPE.fullmatch(text) is not None:
        return text
    return "Function.Unknown" if text is not None and text.startswith("Function.") else "Runtime.Unknown"


def result_answer(request: Request) -> Answer:
    """Make the answer of a result; one that is streamed may say in its trailers that it has failed on the way."""
    trailers, content_type = request.trailers, request.fields.get("content-type", "")
    if _ERROR_TYPE not in trailers and _ERROR_BODY not in trailers:
        return Answer(request.body, False, content_type)
    try:
        document = base64.b64decode(trailers.get(_ERROR_BODY, ""), validate=True)
    except (binascii.Error, ValueError):
        document = b""
    error_type = trailers.get(_ERROR_TYPE) or "Runtime.Unknown"
    document = document or platform_error_document(error_type, "")
    return Answer(document, True, JSON_TYPE, _error_type(error_type))


def platform_answer(error_type: str, message: str) -> Answer:
    """Make the answer of an error that is found here, not by the runtime."""
    return Answer(platform_error_document(error_type, message), True, JSON_TYPE, error_type)


def start_answer(request: Request) -> Answer:
    """Make the answer of a runtime that could not load its function."""
    content_type = JSON_TYPE if _is_json(request.body) else _BINARY
    return Answer(request.body, True, content_type, _error_type(request.fields.get(_ERROR_TYPE)))


def error_answer(request: Request) -> Answer:
    """Make the answer of an error; one that comes with its cause for X-Ray is given without it."""
    content_type = request.fields.get("content-type", "")
    error_type = _error_type(request.fields.get(_ERROR_TYPE))
    if content_type != _WITH_CAUSE:
        return Answer(request.body, True, content_type, error_type)
    try:
        fields = loads(request.body)
        document = {name: fields[name] for name in ("errorMessage", "errorType", "stackTrace") if name in fields}
    except (ValueError, TypeError, RecursionError):
        return Answer(b'"Invalid error body"', True, _BINARY, error_type)
    return Answer(dumps(document).encode(), True, JSON_TYPE, error_type)


def _is_json(body: bytes) -> bool:
    try:
        loads(body)
    except (ValueError, RecursionError):
        return False
    return True
