"""What a host says of records that it has in memory alone."""

from __future__ import annotations

import time
from typing import Any

import pytest

from serverfull import Settings, StaticFetcher
from serverfull.config import DestinationSettings, LoggingSettings
from serverfull.domain.destinations import deliveries
from serverfull.domain.events import EventConfig, EventEnd, QueuedEvent
from serverfull.errors import ConfigurationError
from serverfull.host import Host

QUIET = LoggingSettings(functions="NULL", output="NULL")
EVENT = QueuedEvent(request_id="r", account="000000000000", region="us-east-1", name="orders", accepted_at=1000.0)


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: self.lines.append((level, event))


@pytest.mark.parametrize(
    ("target", "lost"),
    [
        ("arn:aws:lambda:us-east-1:000000000000:function:audit", False),
        ("arn:aws:sqs:us-east-1:000000000000:failed", True),  # a service that the host has no endpoint for
    ],
)
async def test_records_that_end_with_the_host_are_said_to_be_lost(target: str, lost: bool) -> None:
    log, heard = Log(), []
    end = EventEnd(condition="RetriesExhausted", at=time.time(), invoke_count=3)
    async with Host(StaticFetcher({"audit": heard.append}), Settings(logging=QUIET), logger=log) as host:
        store = await host._events.queue.store()
        (key,) = await store.append((EVENT,))
        lease = await store.claim(key)
        assert lease is not None
        await store.end(lease, end, deliveries(EVENT, end, EventConfig(on_failure=target)), keep=False)
        assert host._events._made is not None
        made = host._events._made[1]
        made.wake()
        assert await made.drain(10) is not lost
        await host.drain(10)
    assert (("error", "records lost at shutdown") in log.lines) is lost
    assert [record["requestContext"]["condition"] for record in heard] == ([] if lost else ["RetriesExhausted"])


def test_a_host_whose_destinations_contradict_each_other_does_not_start() -> None:
    settings = DestinationSettings(endpoints=("SQS=aws", "SQS=http://h"))
    with pytest.raises(ConfigurationError, match="two URLs for SQS"):
        Host(StaticFetcher({}), Settings(logging=QUIET, destinations=settings))
