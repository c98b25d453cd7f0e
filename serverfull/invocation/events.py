"""Between events as the queue keeps them and invocations as the invoker runs them. Pure functions."""

from __future__ import annotations

from collections.abc import Callable

from serverfull.domain.events import Attempt, Failed, Held, QueuedEvent, Refused, Response, Succeeded
from serverfull.domain.invocations import Invocation, Outcome
from serverfull.errors import (
    InvalidRequestContent,
    NotFoundError,
    RecursiveInvocation,
    RequestError,
    RequestTooLarge,
    TooManyRequests,
)
from serverfull.invocation.admission import FUNCTION_REASON


def event_of(invocation: Invocation, generation: str, now: float) -> QueuedEvent:
    """Make the event of an accepted invocation."""
    return QueuedEvent(
        request_id=invocation.request_id,
        account=invocation.account,
        region=invocation.region,
        name=invocation.name,
        qualifier=invocation.qualifier,
        generation=generation,
        payload=invocation.payload,
        accepted_at=now,
        trace_id=invocation.trace_id,
        client_context=invocation.client_context,
        cognito_identity=invocation.cognito_identity,
        tenant_id=invocation.tenant_id,
        simulation=invocation.simulation,
        execution_name=invocation.execution_name,
    )


def invocation_of(event: QueuedEvent, admitted: Callable[[], None]) -> Invocation:
    """Make the invocation of an attempt: each has the request id of the event."""
    return Invocation(
        event.request_id,
        event.name,
        event.qualifier,
        event.account,
        event.region,
        event.payload,
        invocation_type="Event",
        client_context=event.client_context,
        cognito_identity=event.cognito_identity,
        tenant_id=event.tenant_id,
        trace_id=event.trace_id,
        simulation=event.simulation,
        admitted=admitted,
    )


def attempt_of(outcome: Outcome) -> Attempt:
    """Say what an attempt was in which the function ran."""
    response = Response(
        status_code=200,
        executed_version=outcome.executed_version,
        function_error=outcome.function_error,
        payload=outcome.payload,
    )
    return Succeeded(response) if outcome.function_error is None else Failed(response)


def refused(refusal: RequestError, limit: int | None = None) -> Attempt:
    """Say what an attempt was in which the function did not run.

    :param limit: the function's own.
    """
    message = refusal.message
    if isinstance(refusal, TooManyRequests):
        response = Response(status_code=429, message=message)
        if limit == 0:
            return Refused("ZeroReservedConcurrency", response)
        return Held(response, "function" if refusal.reason == FUNCTION_REASON else "host")
    if isinstance(refusal, NotFoundError):
        return Refused("FunctionNotFound", Response(status_code=404, message=message))
    if isinstance(refusal, RecursiveInvocation):
        return Refused("RecursiveInvocation", Response(status_code=400, message=message))
    if isinstance(refusal, (InvalidRequestContent, RequestTooLarge)):
        return Refused("InvalidEvent", Response(status_code=400, message=message))
    return Held(Response(status_code=500, message=message))
