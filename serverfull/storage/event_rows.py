"""How events, their ends and deliveries are written into rows, and read from them. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from serverfull.domain.events import Delivery, EventEnd, QueuedEvent, Response
from serverfull.domain.invocations import Simulation
from serverfull.domain.json_functions import dumps, loads, quoted


def details_of(event: QueuedEvent) -> str:
    """Write down what nothing is looked for by, in ASCII: what callers send need not be Unicode.

    Each event pays for this before it is accepted: an object put together here takes a quarter of what `dumps` does.
    """
    text = f'{{"id":{quoted(event.request_id)},"account":{quoted(event.account)},"region":{quoted(event.region)}'
    text += f',"name":{quoted(event.name)}'
    if event.qualifier is not None:
        text += f',"qualifier":{quoted(event.qualifier)}'
    if event.generation:
        text += f',"generation":{quoted(event.generation)}'
    if event.trace_id is not None:
        text += f',"trace":{quoted(event.trace_id)}'
    if event.tenant_id is not None:
        text += f',"tenant":{quoted(event.tenant_id)}'
    if event.client_context is not None:
        text += f',"context":{dumps(event.client_context)}'
    if event.cognito_identity is not None:
        text += f',"identity":{dumps(event.cognito_identity)}'
    if event.simulation is not None:
        text += f',"simulation":{dumps(event.simulation._asdict())}'
    return f"{text}}}"


def event_of(row: Sequence[Any]) -> QueuedEvent:
    """Read an event from accepted_at, failures, throttles, deaths, details and payload."""
    accepted_at, failures, throttles, deaths, text, payload = row
    details = loads(text)
    simulation = details.get("simulation")
    return QueuedEvent(
        request_id=details["id"],
        account=details["account"],
        region=details["region"],
        name=details["name"],
        qualifier=details.get("qualifier"),
        generation=details.get("generation", ""),
        payload=payload,
        accepted_at=accepted_at,
        trace_id=details.get("trace"),
        client_context=details.get("context"),
        cognito_identity=details.get("identity"),
        tenant_id=details.get("tenant"),
        simulation=None if simulation is None else Simulation(**simulation),
        failures=failures,
        throttles=throttles,
        deaths=deaths,
    )


def delivery_details(delivery: Delivery) -> str:
    """Write down a delivery without its body."""
    names = (field.name for field in fields(Delivery) if field.name != "body")
    return dumps({name: getattr(delivery, name) for name in names} | {"attributes": dict(delivery.attributes)})


def delivery_of(text: str, body: bytes) -> Delivery:
    """Read what `delivery_details` wrote."""
    return Delivery(**loads(text), body=body)


def end_details(end: EventEnd) -> tuple[str, bytes]:
    """Write down how an event has ended; the payload of the response apart, for it need not be text."""
    text = asdict(end)
    response = b"" if end.response is None else text["response"].pop("payload")
    return dumps(text), response


def end_of(text: str | None, response: bytes | None) -> EventEnd | None:
    """Read what `end_details` wrote."""
    if text is None:
        return None
    values = loads(text)
    given = values.pop("response")
    end = EventEnd(**values)
    return end if given is None else replace(end, response=Response(**given, payload=response or b""))


def in_ascii(text: str) -> str:
    """Give a text that every database takes: what services say need not be Unicode."""
    return text.encode("ascii", "backslashreplace").decode()
