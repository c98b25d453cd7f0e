"""The functions' log in CloudWatch Logs: at AWS, or at anything that answers as it does.

One thread takes what gathers, parts it by group and stream, and sends it with boto3, which it imports itself. Groups
and streams are made when they turn out to be missing. Where the endpoint does not answer, the thread tries again until
it does, and records pile up to a bound and are dropped and counted beyond it; where it refuses a request for good, that
request's records are dropped. An answer that got lost makes events come twice: nothing tells the two cases apart.

boto3 is an extra (``cloudwatch``).

AWS: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
"""

from __future__ import annotations

import importlib.util
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from serverfull.errors import ExtraMissing
from serverfull.interfaces import LogRecord
from serverfull.invocation.sinks import BatchSink, with_newlines

AWS = "aws"
"""Stands for the endpoint that boto3 finds by itself."""

MOST_BYTES = 1_048_576
MOST_EVENTS = 10_000
EVENT_OVERHEAD = 26
"""Bytes that an event counts beside its message."""
MOST_EVENT_BYTES = 262_144 - EVENT_OVERHEAD
"""AWS has come to take more; other servers have not."""
LONGEST_SPAN_MS = 24 * 3600 * 1000

_GATHER = 1.0
_ATTEMPTS = 5
"""How often a request is sent that is answered with an error; without an answer there is no such number."""
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0
"""Seconds between attempts: the first one, doubled each time, and the most."""
_LAST_CHANCE = 4.0
"""Seconds that an ending host gives to what is not sent yet; none where the endpoint has stopped answering."""

Event: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CloudWatchEndpoint:
    """Where CloudWatch Logs is.

    :param url: such as ``http://127.0.0.1:4566``, or ``aws``.
    :param region: whose groups the log goes to.
    """

    url: str
    region: str

    def client(self) -> Any:
        """Make boto3's client. At a URL of one's own, requests are signed by nobody where there are no credentials.

        They are signed all the same, because the signature names service and region.
        """
        from boto3.session import Session
        from botocore.config import Config

        session = Session(region_name=self.region)
        own = self.url != AWS
        nobody = own and session.get_credentials() is None
        config = Config(
            connect_timeout=3,
            read_timeout=10,
            retries={"mode": "standard", "total_max_attempts": 1},  # what is tried again is decided here
            max_pool_connections=1,
            parameter_validation=False,
        )
        keys = {"aws_access_key_id": "nobody", "aws_secret_access_key": "nobody"} if nobody else {}
        return session.client("logs", endpoint_url=self.url if own else None, config=config, **keys)


class CloudWatchSink(BatchSink):
    """Sends records to CloudWatch Logs.

    :param logger: the host's own log: it says when the endpoint stops and starts to take what is sent.
    :param most_waiting: characters in records waiting at most.
    :raises ExtraMissing: boto3 is not installed.
    """

    def __init__(self, endpoint: CloudWatchEndpoint, logger: Any, most_waiting: int = 32 * 1024 * 1024) -> None:
        if importlib.util.find_spec("boto3") is None:
            raise ExtraMissing("logging.cloudwatch", "boto3", "cloudwatch")
        super().__init__(
            "serverfull-log-cloudwatch",
            logger,
            backlog=100_000,
            most_waiting=most_waiting,
            gather=_GATHER,
            batch=MOST_EVENTS,
        )
        self._endpoint = endpoint
        self._client: Any = None
        self._failing: set[str] = set()  # groups that the host's log says so of
        self._given_up: set[str] = set()  # groups whose last request was given up
        self._answers = True
        self._last_chance = float("inf")
        self._dropped_before = 0

    def end(self) -> None:
        """Let the thread send what is there and end: within some seconds, or at once where nobody answers."""
        if not self._ending.is_set():
            self._last_chance = time.monotonic() + (_LAST_CHANCE if self._answers else 0.0)
            self._dropped_before = self.dropped
        super().end()

    def close(self, within: float = _LAST_CHANCE + 1.0) -> None:
        """End, and say in the host's log what did not get anywhere."""
        self.end()
        super().close(min(within, max(0.2, self._last_chance + 1.0 - time.monotonic())))
        if self._taken > self._written or self.dropped > self._dropped_before:
            self._logger.error(
                "log of functions is lost", endpoint=self._endpoint.url, reason="it was not taken in time"
            )

    def _write_batch(self, batch: list[LogRecord]) -> int:
        lost = 0
        try:
            for (group, stream), events in _by_stream(batch).items():
                for request in requests_of(events):
                    lost += self._send(group, stream, request)
        except Exception as error:  # the thread's boundary: whatever goes wrong costs this batch and not the log
            self._fails("", f"{type(error).__name__}: {error}")
            return len(batch)
        return lost

    def _send(self, group: str, stream: str, events: list[Event]) -> int:
        """Send one request until it is taken or given up; gives how many events were lost."""
        from botocore.exceptions import BotoCoreError, ClientError

        attempt, refusals = 0, _ATTEMPTS - 1 if group in self._given_up else 0  # others wait meanwhile
        while time.monotonic() < self._last_chance:
            try:
                lost = self._put(group, stream, events)
            except ClientError as error:
                reason, refusals, self._answers = str(error), refusals + 1, True
                if refusals >= _ATTEMPTS or _code(error) in _NEVER:
                    self._given_up.add(group)
                    self._fails(group, reason)
                    break
            except (BotoCoreError, OSError) as error:
                reason, self._answers = str(error), False
            else:
                self._succeeds(group)
                return lost
            self._fails(group, reason)
            if not self._wait(min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt)):
                break
            attempt = min(attempt + 1, 10)
        return len(events)

    def _put(self, group: str, stream: str, events: list[Event]) -> int:
        from botocore.exceptions import ClientError

        if self._client is None:
            self._client = self._endpoint.client()
        where = {"logGroupName": group, "logStreamName": stream}
        try:
            answer = self._client.put_log_events(**where, logEvents=events)
        except ClientError as error:
            if _code(error) != "ResourceNotFoundException":
                raise
            self._make(self._client.create_log_group, logGroupName=group)
            self._make(self._client.create_log_stream, **where)
            answer = self._client.put_log_events(**where, logEvents=events)
        return rejected(answer.get("rejectedLogEventsInfo") or {}, len(events))

    @staticmethod
    def _make(create: Any, **what: str) -> None:
        from botocore.exceptions import ClientError

        try:
            create(**what)
        except ClientError as error:
            if _code(error) != "ResourceAlreadyExistsException":
                raise

    def _succeeds(self, group: str) -> None:
        self._answers = True
        self._given_up.discard(group)
        if group in self._failing:
            self._failing.discard(group)
            self._logger.info("log of functions gets to CloudWatch Logs again", group=group)

    def _fails(self, group: str, reason: str) -> None:
        if group not in self._failing:
            self._failing.add(group)
            self._logger.warning(
                "log of functions does not get to CloudWatch Logs",
                group=group,
                endpoint=self._endpoint.url,
                reason=reason,
            )

    def _wait(self, seconds: float) -> bool:
        """Wait before another attempt; says whether there is time for one."""
        if self._ending.is_set():
            time.sleep(_FIRST_WAIT)
        else:
            self._ending.wait(seconds * random.uniform(0.5, 1.0))  # noqa: S311 - so that hosts do not all come at once
        return time.monotonic() < self._last_chance


_NEVER = {"InvalidParameterException", "SerializationException", "ValidationException"}
"""Errors that the same request would meet again."""


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def rejected(info: Mapping[str, int], count: int) -> int:
    """Count the events that were too old or too new: those before one index, and those from another on."""
    old = max(info.get("tooOldLogEventEndIndex", 0), info.get("expiredLogEventEndIndex", 0))
    return old + count - info.get("tooNewLogEventStartIndex", count)


def _by_stream(batch: Iterable[LogRecord]) -> dict[tuple[str, str], list[Event]]:
    found: dict[tuple[str, str], list[Event]] = {}
    for record in batch:
        found.setdefault((record.log_group, record.log_stream), []).extend(events_of(record))
    return found


def events_of(record: LogRecord) -> Iterator[Event]:
    """Make an event of each line, and several of one that is too long."""
    at = int(record.at * 1000)
    for line in record.text.removesuffix("\n").split("\n"):
        text = with_newlines(line + "\n")
        if len(text) * 3 <= MOST_EVENT_BYTES:  # the usual case, without encoding it
            yield {"timestamp": at, "message": _sendable(text)}
            continue
        data = text.encode("utf-8", "replace")
        while data:
            piece = data[:MOST_EVENT_BYTES]
            if len(piece) < len(data):  # no character is cut in two
                piece = piece.decode("utf-8", "ignore").encode()
            yield {"timestamp": at, "message": piece.decode()}
            data = data[len(piece) :]


def _sendable(text: str) -> str:
    """Give text that UTF-8 can hold: half a surrogate pair would end the request."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def requests_of(events: list[Event]) -> Iterator[list[Event]]:
    """Part the events of a stream into requests that AWS takes: in order, not too many, too large or too far apart."""
    request: list[Event] = []
    size = 0
    for event in sorted(events, key=lambda event: int(event["timestamp"])):
        length = len(event["message"].encode()) + EVENT_OVERHEAD
        if request and (
            len(request) >= MOST_EVENTS
            or size + length > MOST_BYTES
            or event["timestamp"] - request[0]["timestamp"] >= LONGEST_SPAN_MS
        ):
            yield request
            request, size = [], 0
        request.append(event)
        size += length
    if request:
        yield request
