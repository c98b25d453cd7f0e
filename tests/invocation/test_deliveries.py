"""Deliveries are made, and made again until they are, from a real store, by a deliverer that is told what to do."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.domain.events import Delivery, EventEnd, QueuedEvent
from serverfull.errors import DeliveryFailed
from serverfull.interfaces import Deliverer
from serverfull.invocation.deliveries import MOST, MOST_ATTEMPTS, MOST_OF_TARGET, Deliveries
from serverfull.storage.events import EventFolder, SqliteEventStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EVENT = QueuedEvent(request_id="r", account="000000000000", region="us-east-1", name="orders", accepted_at=1000.0)
END = EventEnd(condition="RetriesExhausted", at=1000.0, invoke_count=3)
QUEUE = "arn:aws:sqs:us-east-1:000000000000:failed"
OTHER = "arn:aws:sqs:us-east-1:000000000000:other"


class HandClock:
    """Is what it is set to."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time


class Told(Deliverer):
    """Keeps what it delivers; does first what it is told for a target."""

    def __init__(self) -> None:
        self.first: dict[str, Callable[[], Any]] = {}
        self.made: list[str] = []
        self.running: list[str] = []

    async def deliver(self, delivery: Delivery) -> None:
        self.running.append(delivery.target)
        try:
            if first := self.first.get(delivery.target):
                await first()
        finally:
            self.running.remove(delivery.target)
        self.made.append(delivery.id)

    async def aclose(self) -> None:
        """Do nothing."""


class Log:
    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: None


class Scene:
    """A store with deliveries in it, and who makes them."""

    def __init__(self, store: SqliteEventStore, clock: HandClock) -> None:
        self.store = store
        self.clock = clock
        self.told = Told()
        self.deliveries = Deliveries(self.get_store, lambda: self.told, clock, Log())

    async def get_store(self) -> SqliteEventStore:
        return self.store

    async def end_event(self, *targets: str, count: int = 1) -> None:
        """Let events end that have a delivery for each of the targets."""
        for _ in range(count):
            (key,) = await self.store.append((EVENT,))
            lease = await self.store.claim(key)
            assert lease is not None
            end = replace(END, at=self.clock.now())
            await self.store.end(lease, end, [a_delivery(f"{key}-{target}", target) for target in targets], keep=False)
        self.deliveries.wake()

    async def until(self, accept: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not accept():  # noqa: ASYNC110 - neither store nor deliverer tells
                await asyncio.sleep(0.001)

    async def due(self) -> float | None:
        """Wait until all that is due has been tried; gives when there is more."""
        async with asyncio.timeout(20):
            while True:
                due, following = await self.store.pending(1)
                if not due:
                    return following
                await asyncio.sleep(0.001)


def a_delivery(unique: str, target: str) -> Delivery:
    return Delivery(
        id=unique,
        target=target,
        function_arn="arn:aws:lambda:us-east-1:000000000000:function:orders:$LATEST",
        request_id="r",
        kind="destination",
        success=False,
        body=b"{}",
    )


@pytest.fixture
async def scene():
    clock = HandClock()
    store = await SqliteEventStore.open(EventFolder(), clock)
    scene = Scene(store, clock)
    yield scene
    await scene.deliveries.aclose()
    await store.aclose()


def failing(reason: str = "no", *, final: bool = False) -> Callable[[], Any]:
    async def fail() -> None:
        raise DeliveryFailed(reason, final=final)

    return fail


async def test_what_was_delivered_is_gone(scene: Scene) -> None:
    await scene.end_event(QUEUE, OTHER)
    await scene.until(lambda: len(scene.told.made) == 2)
    assert await scene.due() is None
    assert not await scene.store.shown(["delivering", "ended"])


async def test_a_delivery_is_tried_again_after_one_second_then_two_and_so_on_to_five_minutes(scene: Scene) -> None:
    scene.told.first[QUEUE] = failing()
    await scene.end_event(QUEUE)
    waited = []
    for _ in range(11):
        following = await scene.due()
        assert following is not None
        waited.append(following - scene.clock.time)
        scene.clock.time = following
        scene.deliveries.wake()
    assert waited == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    del scene.told.first[QUEUE]
    scene.clock.time += 300
    scene.deliveries.wake()
    await scene.until(lambda: scene.told.made)


async def test_a_bug_in_making_a_delivery_costs_an_attempt_and_not_the_delivery(scene: Scene) -> None:
    async def fail() -> None:
        raise ZeroDivisionError("division by zero")

    scene.told.first[QUEUE] = fail
    await scene.end_event(QUEUE)
    assert await scene.due() == scene.clock.time + 1
    (kept,) = await scene.store.shown(["delivering"])
    assert kept.undelivered == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("final", [True, False])
async def test_what_can_never_be_delivered_or_not_in_six_hours_is_kept_for_the_operator(
    scene: Scene, final: bool
) -> None:
    scene.told.first[QUEUE] = failing("the queue is gone", final=final)
    await scene.end_event(QUEUE)
    following, tries = await scene.due(), 1
    scene.clock.time += 0 if final else 86_400  # without a host, which is not counted
    scene.deliveries.wake()
    while following is not None:
        scene.clock.time, tries = max(following, scene.clock.time), tries + 1
        scene.deliveries.wake()
        following = await scene.due()
    assert tries == (1 if final else MOST_ATTEMPTS)
    assert scene.clock.time == 1000.0 if final else 20_000 < scene.clock.time - 87_400 <= 21_600
    (kept,) = await scene.store.shown(["ended"])
    assert (kept.undelivered, kept.event.request_id) == ("the queue is gone", "r")
    del scene.told.first[QUEUE]
    assert await scene.store.redrive([kept.key]) == 1
    scene.deliveries.wake()
    await scene.until(lambda: scene.told.made)


async def test_a_target_that_is_slow_leaves_room_for_others(scene: Scene) -> None:
    held = asyncio.Event()
    scene.told.first[QUEUE] = held.wait
    scene.deliveries.wake, wake = lambda: None, scene.deliveries.wake
    await scene.end_event(QUEUE, count=3 * MOST)
    scene.clock.time += 1
    await scene.end_event(OTHER, count=MOST)
    wake()
    await scene.until(lambda: len(scene.told.made) == MOST)
    assert scene.told.running == [QUEUE] * MOST_OF_TARGET
    held.set()
    await scene.until(lambda: len(scene.told.made) == 4 * MOST)
    assert await scene.due() is None
    assert len(set(scene.told.made)) == len(scene.told.made)  # none was made twice


async def test_what_is_being_delivered_when_the_host_ends_is_delivered_by_the_next(tmp_path: Path) -> None:
    clock = HandClock()
    for _ in range(2):
        store = await SqliteEventStore.open(EventFolder(tmp_path), clock)
        scene = Scene(store, clock)
        if not await store.shown(["delivering"]):
            scene.told.first[QUEUE] = asyncio.Event().wait
            await scene.end_event(QUEUE)
            await scene.until(lambda told=scene.told: told.running)
        else:
            scene.deliveries.wake()
            await scene.until(lambda told=scene.told: told.made)
        await scene.deliveries.aclose()
        await store.aclose()


async def test_a_drain_waits_for_what_is_due_and_not_for_what_hangs(scene: Scene) -> None:
    await scene.deliveries.drain(10)
    scene.told.first[QUEUE] = lambda: asyncio.sleep(0.05)
    await scene.end_event(QUEUE, count=MOST_OF_TARGET + 1)
    assert await scene.deliveries.drain(10)
    assert len(scene.told.made) == MOST_OF_TARGET + 1
    scene.told.first[QUEUE] = asyncio.Event().wait
    await scene.end_event(QUEUE)
    assert not await scene.deliveries.drain(0.05)
