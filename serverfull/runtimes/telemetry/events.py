"""What happens in a sandbox, as records of the Telemetry API, and how the older Logs API has them.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serverfull.domain.json_functions import dumps, loads
from serverfull.domain.timestamps import timestamp

if TYPE_CHECKING:
    from serverfull.runtimes.telemetry.subscriptions import Subscription

_ROUGHLY = 300
"""Bytes of a record of the platform's, and of what is around a line of a log."""

_STATUSES = {"error": "failure"}
"""How the Logs API calls what the Telemetry API has another word for."""

_FIRST_WITH_OBJECTS = "2022-12-13"
"""The first schema in which a line that is a JSON object is one in the record, where the function's log is JSON."""


@dataclass(slots=True)
class Event:
    """Something that has happened.

    :param at: seconds since the epoch.
    :param type: such as ``platform.start``, ``function`` or ``extension``.
    :param record: of the platform's events an object; else a line with its newline.
    """

    at: float
    type: str
    record: Mapping[str, Any] | str

    @property
    def stream(self) -> str:
        """The stream that it belongs to."""
        return self.type.partition(".")[0]

    @property
    def size(self) -> int:
        """How many bytes it will take, roughly."""
        return _ROUGHLY + len(self.record) if isinstance(self.record, str) else _ROUGHLY


def written(events: list[Event], subscription: Subscription, *, json_log: bool) -> list[bytes]:
    """Give events as JSON, in the schema of a subscription; some are left out there.

    :param json_log: whether lines of the function's log may be JSON objects.
    """
    if subscription.api == "telemetry":
        objects = json_log and subscription.schema >= _FIRST_WITH_OBJECTS
        shown = (_of_telemetry(event, objects=objects) for event in events if event.type != "platform.fault")
    else:
        shown = (pair for event in events for pair in _of_logs(event, subscription.schema))
    return [dumps({"time": timestamp(at), "type": kind, "record": record}).encode() for at, kind, record in shown]


def _of_telemetry(event: Event, *, objects: bool) -> tuple[float, str, Any]:
    record: Any = event.record
    if isinstance(record, str):
        record = record.removesuffix("\n")
        if objects and record.startswith("{"):
            with contextlib.suppress(ValueError, RecursionError):
                record = loads(record)
    return event.at, event.type, record


def _of_logs(event: Event, schema: str) -> Iterator[tuple[float, str, Any]]:
    kind, record = event.type, event.record
    if isinstance(record, str):
        yield event.at, kind, record  # with its newline, as AWS has it there
    elif kind == "platform.start":
        yield event.at, kind, {name: record[name] for name in ("requestId", "version")}
    elif kind == "platform.runtimeDone":
        if schema != "2020-08-15":
            status = _STATUSES.get(record["status"], record["status"])
            yield event.at, kind, {"requestId": record["requestId"], "status": status}
    elif kind == "platform.report":
        yield event.at, "platform.end", {"requestId": record["requestId"]}
        yield event.at, kind, {name: record[name] for name in ("requestId", "metrics")}
    elif kind in {"platform.extension", "platform.logsDropped", "platform.logsSubscription"}:
        yield event.at, kind, record
