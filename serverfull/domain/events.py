"""Event invocations as the queue keeps them, and what follows from how an attempt to run one has ended.

Pure values and functions: nothing here reads a clock, waits, or knows where events are kept. Times are seconds since
the epoch, by the clock of the queue.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeAlias

from serverfull.domain.invocations import Simulation

MOST_RETRIES = 2
"""Times that a function which failed is tried again, unless its configuration says less."""

MOST_AGE = 21_600
"""Seconds that an event is kept for running, unless the function's configuration says less."""

BASE_DELAY = 60.0
"""Seconds before the first time that a function which failed is tried again; before the second it is twice as long."""

MOST_THROTTLE_DELAY = 300.0
"""Seconds between two attempts at most, while a limit or the host itself refuses an event."""

MOST_HOST_DEATHS = 3
"""Deaths of the host while it ran an event after which the event is taken for their cause."""

Condition: TypeAlias = Literal[
    "Success",
    "RetriesExhausted",
    "EventAgeExceeded",
    "ZeroReservedConcurrency",
    "FunctionNotFound",
    "RecursiveInvocation",
    "InvalidEvent",
    "HostDeaths",
]
"""Why an event has ended. The first four are AWS's. ``FunctionNotFound``: the function, or that version, is gone;
``RecursiveInvocation``: it called itself in circles; ``InvalidEvent``: the host refuses it for what it is;
``HostDeaths``: the host died each time that it ran."""


@dataclass(slots=True, kw_only=True)
class QueuedEvent:
    """An accepted event, and how often it was tried. Nobody changes one; it is not frozen, because a frozen one costs
    4 µs more to make, and each 202 waits for that.

    :param request_id: the same for every attempt.
    :param account: twelve digits.
    :param name: the function's bare name.
    :param qualifier: version or alias as it was asked for; what it means is found when the event runs.
    :param generation: tells the function from a later one of the same name; empty: it has none, such as an operator's.
    :param payload: as it arrived.
    :param accepted_at: when.
    :param trace_id: the tracing header, with the lineage.
    :param client_context: the decoded JSON of the header; None: there was none.
    :param cognito_identity: the same.
    :param tenant_id: the tenant of the call.
    :param simulation: what the call asks for beside an answer; in mock mode only.
    :param execution_name: of all events of the function that share it one is taken; None: it has none.
    :param failures: attempts that the function failed.
    :param throttles: attempts since then that a limit, or a failure of the host, has refused.
    :param deaths: hosts that died while they ran it.
    """

    request_id: str
    account: str
    region: str
    name: str
    qualifier: str | None = None
    generation: str = ""
    payload: bytes = field(default=b"", repr=False)
    accepted_at: float
    trace_id: str | None = None
    client_context: dict[str, Any] | None = None
    cognito_identity: dict[str, Any] | None = None
    tenant_id: str | None = None
    simulation: Simulation | None = None
    execution_name: str | None = None
    failures: int = 0
    throttles: int = 0
    deaths: int = 0

    @property
    def line(self) -> str:
        """What tells the function from all others that have events waiting: each has a line of its own."""
        return f"{self.account}/{self.region}/{self.name}"

    def age(self, now: float) -> float:
        """Give the seconds since it was accepted; never below 0, whatever was done to the clock."""
        return max(0.0, now - self.accepted_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventConfig:
    """What is to be done with a function's events.

    :param retries: how often it is tried again when it has failed, 0 to 2.
    :param maximum_age: seconds after which an event is given up, 60 to 21,600.
    :param on_success: ARN that gets a record of each event that was handled; None: nobody.
    :param on_failure: ARN that gets a record of each event that was given up; None: nobody.
    :param dead_letter: ARN of the queue or topic that gets each event that was given up; None: nobody.
    """

    retries: int = MOST_RETRIES
    maximum_age: float = MOST_AGE
    on_success: str | None = None
    on_failure: str | None = None
    dead_letter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What an attempt gave back.

    :param status_code: 200 where the function ran, however that ended; otherwise the status of the refusal.
    :param executed_version: ``$LATEST`` or a number; empty where nothing ran.
    :param function_error: None, or ``Unhandled``.
    :param payload: the result, or the error document, or empty where nothing ran.
    :param message: why it was refused, where nothing ran.
    """

    status_code: int
    executed_version: str = ""
    function_error: str | None = None
    payload: bytes = field(default=b"", repr=False)
    message: str = ""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The function has handled the event."""

    response: Response


@dataclass(frozen=True, slots=True)
class Failed:
    """The function ran, and failed."""

    response: Response


@dataclass(frozen=True, slots=True)
class Held:
    """A limit, or a failure of the host, kept the function from running; that is no attempt of the function's.

    :param limit: whose: the ``function``'s own, or one of the ``host``; empty: it was a failure.
    """

    response: Response
    limit: Literal["", "function", "host"] = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The event can never run."""

    condition: Condition
    response: Response


Attempt: TypeAlias = "Succeeded | Failed | Held | Refused"
"""How an attempt to run an event has ended."""


@dataclass(frozen=True, slots=True)
class Again:
    """The event is to be tried again.

    :param event: with its counts as they are now.
    :param at: when.
    """

    event: QueuedEvent
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EventEnd:
    """How an event has ended.

    :param at: when.
    :param invoke_count: about how often the function was invoked with it.
    :param response: of the last attempt, where one is known.
    """

    condition: Condition
    at: float
    invoke_count: int
    response: Response | None = None

    @property
    def success(self) -> bool:
        """Whether the function has handled it."""
        return self.condition == "Success"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Something that is to be told of an event that has ended; kept until that is done.

    :param id: tells it from others; the same each time that it is tried.
    :param target: ARN of the queue, topic, function, bus or bucket.
    :param function_arn: of the function whose event it was, qualified.
    :param request_id: of the event.
    :param kind: a record for a destination, or the event itself as a dead letter.
    :param success: whether the event was handled.
    :param attributes: of a message; a number is a number there.
    :param trace_id: the tracing header to send along, with the lineage of the event and the function.
    """

    id: str
    target: str
    function_arn: str
    request_id: str
    kind: Literal["destination", "dead-letter"]
    success: bool
    body: bytes = field(repr=False)
    attributes: Mapping[str, str | int] = field(default_factory=dict)
    trace_id: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run an event, until it is given back or its holder's process has ended.

    :param key: the event's, in its store.
    :param token: tells this lease from all others of the event, so that one who comes late changes nothing.
    """

    key: int
    token: int
    event: QueuedEvent


class Upcoming(NamedTuple):
    """An event that waits.

    :param due: when it may run.
    :param deaths: hosts that died while they ran it.
    """

    key: int
    due: float
    deaths: int


@dataclass(frozen=True, slots=True)
class PendingDelivery:
    """A delivery that is to be made now.

    :param attempts: times that it has been tried.
    """

    delivery: Delivery
    attempts: int


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """An event that a store has, as the operator sees it.

    :param state: ``waiting``, ``running``, ``delivering`` (it has ended, and somebody is still to be told), or
        ``ended`` (with nobody to tell, or nobody who could be told).
    :param at: when it is due, was begun, or ended.
    :param end: how it has ended; None: it has not.
    :param undelivered: why a delivery has failed that did so last; empty: none has.
    :param size: bytes of the payload, which is only there where the event was asked for by its key.
    """

    key: int
    event: QueuedEvent
    state: str
    at: float
    end: EventEnd | None = None
    undelivered: str = ""
    size: int = 0


ACCEPTED_BEFORE, NAME_TAKEN = 0, -1
"""What a store of events gives in place of keys: an event of that name was accepted with the same payload, or with
another one."""


def before(event: QueuedEvent, config: EventConfig, now: float) -> EventEnd | None:
    """Say how an event that is about to run has ended already; None: it may run."""
    invoked = event.failures + event.deaths
    if event.deaths >= MOST_HOST_DEATHS:
        response = Response(status_code=500, message=f"The host died {event.deaths} times while it ran this event.")
        return EventEnd(condition="HostDeaths", at=now, invoke_count=invoked, response=response)
    if event.age(now) > config.maximum_age:
        return EventEnd(condition="EventAgeExceeded", at=now, invoke_count=invoked)
    return None


def after(
    event: QueuedEvent, attempt: Attempt, config: EventConfig, now: float, base_delay: float = BASE_DELAY
) -> Again | EventEnd:
    """Say what follows from an attempt.

    An event is given up as soon as it is known that it will be too old for the next attempt, as on AWS.

    :param base_delay: seconds before the first retry of a function that failed.
    """
    invoked = event.failures + event.deaths
    if isinstance(attempt, Succeeded):
        return EventEnd(condition="Success", at=now, invoke_count=invoked + 1, response=attempt.response)
    if isinstance(attempt, Refused):
        return EventEnd(condition=attempt.condition, at=now, invoke_count=invoked, response=attempt.response)
    if isinstance(attempt, Failed):
        invoked += 1
        event = replace(event, failures=event.failures + 1, throttles=0)
        if event.failures > config.retries:
            return EventEnd(condition="RetriesExhausted", at=now, invoke_count=invoked, response=attempt.response)
        at = now + base_delay * event.failures
    else:
        at = now + throttle_delay(event.throttles)
        event = replace(event, throttles=event.throttles + 1)
    if event.age(at) > config.maximum_age:
        return EventEnd(condition="EventAgeExceeded", at=now, invoke_count=invoked, response=attempt.response)
    return Again(event, at)


def longest_delay(base_delay: float) -> float:
    """Give the seconds that an event may have to wait for its next attempt."""
    return max(MOST_THROTTLE_DELAY, base_delay * MOST_RETRIES)


def throttle_delay(throttles: int) -> float:
    """Give the seconds until an event is tried again that was refused so many times before: 1, 2, 4 … 300."""
    return min(MOST_THROTTLE_DELAY, float(2 ** min(throttles, 16)))
