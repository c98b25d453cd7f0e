"""What passes through the Lambda Extensions API: what extensions ask for by which path, and the events and refusals.

`serverfull.runtimes.runtime_api.extensions` calls this; nothing here keeps state. Statuses, error types and bodies are
those of AWS's Runtime Interface Emulator.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html#runtimes-extensions-registration-api
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Literal, TypeAlias

from serverfull.domain.json_functions import dumps, loads
from serverfull.runtimes.runtime_api.connection import error_document

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from serverfull.runtimes.runtime_api.connection import Connection
    from serverfull.runtimes.runtime_api.extensions import FunctionFacts
    from serverfull.runtimes.runtime_api.http import Request
    from serverfull.runtimes.runtime_api.messages import Work

Api: TypeAlias = "Literal['telemetry', 'logs']"

REGISTER = "/2020-01-01/extension/register"
NEXT = "/2020-01-01/extension/event/next"
INIT_ERROR = "/2020-01-01/extension/init/error"
EXIT_ERROR = "/2020-01-01/extension/exit/error"
TELEMETRY = "/2022-07-01/telemetry"
LOGS = "/2020-08-15/logs"

ROUTES = (
    ("POST", REGISTER),
    ("GET", NEXT),
    ("POST", INIT_ERROR),
    ("POST", EXIT_ERROR),
    ("PUT", TELEMETRY),
    ("PUT", TELEMETRY + "/"),
    ("PUT", LOGS),
    ("PUT", LOGS + "/"),
)
"""What is asked here. AWS's pages write the paths of subscriptions with a slash at their ends, and without."""

SANDBOX_NAMES = ("sandbox.localdomain", "sandbox.local", "sandbox")
"""What AWS calls the loopback of an environment."""

INVOKE = "INVOKE"
SHUTDOWN = "SHUTDOWN"

_IDENTIFIER = "lambda-extension-identifier"
_ERROR_TYPE = "lambda-extension-function-error-type"
_ACCEPTED = b'{"status":"OK"}\n'
_JSON = "Content-Type: application/json\r\n"


def read_events(body: bytes) -> Sequence[str]:
    """Read what an extension registers for.

    :raises ValueError: the body is no such document.
    """
    try:
        document = loads(body)
    except RecursionError:
        raise ValueError("The body is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("The body is no JSON object")  # noqa: TRY004 - of what somebody has sent
    if document.get("configurationKeys"):
        raise ValueError("configurationKeys are deprecated; use environment variables instead")
    events = document.get("events") or []
    if not isinstance(events, list) or not all(isinstance(event, str) for event in events):
        raise ValueError("events is no list of names")
    return tuple(dict.fromkeys(events))


def read_identifier(connection: Connection, request: Request) -> str | None:
    """Read who asks; None: that is not said, and the request is answered."""
    identifier = request.fields.get(_IDENTIFIER, "")
    if not identifier:
        refuse(connection, "Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header")
        return None
    try:
        return str(uuid.UUID(identifier))
    except ValueError:
        refuse(connection, "Extension.InvalidExtensionIdentifier", "Invalid Lambda-Extension-Identifier")
        return None


def read_error_type(connection: Connection, request: Request) -> str:
    """Read what has gone wrong; empty: that is not said, and the request is answered."""
    error_type = request.fields.get(_ERROR_TYPE, "")
    if not error_type:
        refuse(connection, "Extension.MissingHeader", "Lambda-Extension-Function-Error-Type not found")
    return error_type


def introduce(connection: Connection, request: Request, facts: FunctionFacts, identifier: str) -> None:
    """Answer an extension that has registered.

    :param identifier: by which it asks for more.
    """
    document = {"functionName": facts.name, "functionVersion": facts.version, "handler": facts.handler}
    features = request.fields.get("lambda-extension-accept-feature", "").split(",")
    if "accountId" in map(str.strip, features):
        document["accountId"] = facts.account
    connection.answer(200, dumps(document).encode(), f"{_JSON}Lambda-Extension-Identifier: {identifier}\r\n")


def invocation_event(work: Work) -> bytes:
    """Give what extensions are told of an invocation."""
    return _event(
        eventType=INVOKE,
        deadlineMs=work.deadline_ms,
        requestId=work.request_id,
        invokedFunctionArn=work.arn,
        tracing={"type": "X-Amzn-Trace-Id", "value": work.trace_id},
    )


def shutdown_event(reason: str, deadline_ms: int) -> bytes:
    """Give what extensions are told of the end.

    :param reason: ``spindown``, ``timeout`` or ``failure``.
    :param deadline_ms: when they will be killed, in milliseconds since the epoch.
    """
    return _event(eventType=SHUTDOWN, shutdownReason=reason, deadlineMs=deadline_ms)


def _event(**fields: Any) -> bytes:
    return dumps(fields).encode()


def deliver(connection: Connection, event: bytes, identifier: str) -> None:
    """Give an event to an extension that waits for one.

    :param identifier: of the extension.
    """
    of_event = f"Lambda-Extension-Event-Identifier: {uuid.uuid4()}\r\n"
    connection.answer(200, event, f"{_JSON}Lambda-Extension-Identifier: {identifier}\r\n{of_event}")


def api_of(path: str) -> Api:
    """Say by which API a subscription is asked for."""
    return "telemetry" if path.startswith(TELEMETRY) else "logs"


def refuse_telemetry(connection: Connection, path: str) -> None:
    """Answer a subscription where there is nothing to subscribe to, as AWS's emulator does."""
    kind = api_of(path).capitalize()
    connection.answer(202, error_document(f"{kind}.NotSupported", f"{kind} API is not supported"))


def accept(connection: Connection) -> None:
    """Answer that an error has been taken."""
    connection.answer(202, _ACCEPTED)


def refuse(connection: Connection, error_type: str, message: str) -> None:
    """Answer that this may not be."""
    connection.answer(403, error_document(error_type, message))


def refuse_event(connection: Connection, event: str, *, external: bool) -> None:
    """Answer that an extension of this kind is told of no such event."""
    kind = "external" if external else "internal"
    refuse(connection, "Extension.InvalidEventType", f"{event}: This event is not there for {kind} extensions")


def refuse_transition(connection: Connection, state: str, wanted: str, extension: str) -> None:
    """Answer that an extension may not ask for this now.

    :param state: that it is in.
    :param wanted: that it asks to be in.
    :param extension: its name or its identifier.
    """
    message = (
        f"State transition from {state} to {wanted} failed for extension {extension}. "
        "Error: State transition is not allowed"
    )
    refuse(connection, "Extension.InvalidExtensionState", message)
