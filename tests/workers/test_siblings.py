"""Workers that ask each other, and one that does not answer: in one process, over the real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from serverfull.api.event_views import EventView
from serverfull.domain.events import QueuedEvent
from serverfull.domain.invocations import Simulation
from serverfull.errors import DurableExecutionAlreadyStarted, InternalFailure, ShuttingDown, TooManyRequests
from serverfull.interfaces import EventQueue
from serverfull.workers import siblings as siblings_module
from serverfull.workers.shared_events import SharedEvents
from serverfull.workers.siblings import Siblings, SiblingSilent, open_doors

EVENT = QueuedEvent(
    request_id="r",
    account="000000000000",
    region="eu-west-1",
    name="f",
    qualifier="live",
    payload=b"\xff\x00",
    accepted_at=1.5,
    trace_id="Root=1;\udcff",
    client_context={"custom": {"a": [1]}},
    simulation=Simulation(latency=1.0),
    execution_name="order-7",
)


@pytest.fixture
def three() -> Iterator[list[Siblings]]:
    doors = open_doors(3)
    yield [Siblings(number, doors) for number in range(3)]
    for door in doors:
        door.close()


class Events(EventView):
    """Three events, of which two are there, or a disk that is full."""

    def __init__(self, *, broken: bool = False) -> None:
        self._broken = broken
        self.changed: list[tuple[str, list[str]]] = []

    def _check(self) -> None:
        if self._broken:
            raise InternalFailure("The disk is full.")

    async def list(self, states: Sequence[str], *, function: str | None, after: str, limit: int) -> dict[str, Any]:
        self._check()
        found = [{"Id": key, "AcceptedAt": key} for key in ("1", "3", "4") if int(key) > int(after or 0)]
        return {"Events": found[:limit], "Unreached": []}

    async def show(self, event_id: str) -> dict[str, Any] | None:
        self._check()
        return {"Id": event_id} if event_id == "3" else None

    async def change(self, action: str, ids: Sequence[str]) -> dict[str, Any]:
        self._check()
        self.changed.append((action, list(ids)))
        return {"Count": len(ids), "Unreached": []}


class Queue(EventQueue):
    """Takes events, or says why not."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal = refusal
        self.taken: list[QueuedEvent] = []

    async def put(self, event: QueuedEvent) -> bool:
        if self.refusal is not None:
            raise self.refusal
        self.taken.append(event)
        return len(self.taken) == 1

    def freed(self, function: str) -> None: ...

    async def drain(self, timeout: float) -> int:
        return 0


@asynccontextmanager
async def answering(*workers: Siblings) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for worker in workers:
            await stack.enter_async_context(worker.answering(_NoLog()))
        yield


class _NoLog:
    def exception(self, event: str, **fields: Any) -> None: ...


async def test_a_worker_that_does_not_answer_is_named_and_the_others_are_shown(three: list[Siblings]) -> None:
    views = [SharedEvents(worker).view(Events(broken=worker.number == 1)) for worker in three]
    three[2]._door.close()
    async with answering(*three[:2]):
        found = await views[0].list(["ended"], function=None, after="", limit=10)
        assert [event["Id"] for event in found["Events"]] == ["0-1", "0-3", "0-4"]
        assert found["Unreached"] == [
            {"Worker": 1, "Reason": "it has failed: The disk is full"},
            {"Worker": 2, "Reason": "it has ended before it had answered"},
        ]
        changed = await views[1].change("purge", ["0-1", "2-1", "0-3"])
        assert (changed["Count"], [one["Worker"] for one in changed["Unreached"]]) == (2, [2])
        with pytest.raises(SiblingSilent, match="Worker 2 has ended before"):
            await views[0].show("2-3")
        assert await views[1].show("0-3") == {"Id": "0-3"}


async def test_pages_go_from_one_worker_to_the_next(three: list[Siblings]) -> None:
    views = [SharedEvents(worker).view(Events()) for worker in three]
    async with answering(*three):
        page = await views[2].list(["ended"], function=None, after="0-1", limit=4)
        assert [event["Id"] for event in page["Events"]] == ["0-3", "0-4", "1-1", "1-3"]


async def test_what_nobody_waits_for_any_more_is_not_done(
    three: list[Siblings], monkeypatch: pytest.MonkeyPatch
) -> None:
    events = Events()
    views = [SharedEvents(worker).view(events if worker.number else Events()) for worker in three]
    with monkeypatch.context() as patch:
        patch.setattr(siblings_module, "PATIENCE", 0.05)
        with pytest.raises(SiblingSilent, match=r"did not answer within 0\.05 seconds"):
            await three[0].ask_once(1, "change", action="purge", ids=["1"])
    async with answering(*three):
        await views[0].change("purge", ["1-3"])  # comes behind the other at the same door
    assert events.changed == [("purge", ["3"])]


async def test_a_worker_that_ends_before_it_has_answered_is_not_the_last_who_is_asked(three: list[Siblings]) -> None:
    views = [SharedEvents(worker).view(Events()) for worker in three]

    async def end_instead(question: asyncio.Task[Any]) -> Any:
        line, _ = await asyncio.get_running_loop().sock_accept(three[1]._door)
        line.close()
        async with answering(three[1]):  # by whoever replaces it
            return await question

    assert await end_instead(asyncio.create_task(views[0].show("1-3"))) == {"Id": "1-3"}
    changed = await end_instead(asyncio.create_task(views[0].change("redrive", ["1-3"])))
    assert changed["Unreached"] == [{"Worker": 1, "Reason": "it has ended before it had answered"}]


async def test_more_may_ask_at_once_than_the_kernel_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings_module, "_WAITING", 1)
    doors = open_doors(2)
    workers = [Siblings(number, doors) for number in range(2)]
    views = [SharedEvents(worker).view(Events()) for worker in workers]
    async with answering(*workers):
        found = await asyncio.gather(*(views[0].show("1-3") for _ in range(200)))
    assert found == [{"Id": "1-3"}] * 200
    for door in doors:
        door.close()


@pytest.mark.parametrize(
    ("refusal", "seen"),
    [
        (None, None),
        (DurableExecutionAlreadyStarted("order-7"), DurableExecutionAlreadyStarted),
        (TooManyRequests("CallerRateLimitExceeded", message="Too many wait."), TooManyRequests),
        (ShuttingDown(), ShuttingDown),
        (InternalFailure("The disk is full."), InternalFailure),
        (RuntimeError("a bug"), InternalFailure),
    ],
)
async def test_events_with_names_are_taken_by_the_first_worker_as_they_are(
    three: list[Siblings], refusal: Exception | None, seen: type[Exception] | None
) -> None:
    queues = [Queue(refusal if worker.number == 0 else None) for worker in three]
    shared = [SharedEvents(worker).queue(queue) for worker, queue in zip(three, queues, strict=True)]
    async with answering(*three):
        if seen is None:
            assert [await queue.put(EVENT) for queue in (shared[2], shared[1], shared[0])] == [True, False, False]
            assert queues[0].taken == [EVENT] * 3
        else:
            with pytest.raises(seen, match=str(getattr(refusal, "message", "a bug")).rstrip(".")):
                await shared[2].put(EVENT)
        nameless = replace(EVENT, execution_name=None)
        await shared[2].put(nameless)
        assert queues[2].taken == [nameless]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a moment")
async def test_another_user_is_not_answered(three: list[Siblings]) -> None:
    SharedEvents(three[0]).view(Events())
    async with answering(three[0]):
        os.seteuid(65534)
        try:
            line = socket.socket(socket.AF_UNIX)
            line.setblocking(False)
            line.connect(three[0]._addresses[0])
        finally:
            os.seteuid(0)
        with line:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(line, b'{"ask": "show", "with": {"event_id": "3"}}\n')
            with suppress(ConnectionResetError):  # it has not even been read
                assert await asyncio.wait_for(loop.sock_recv(line, 100), 10) == b""
