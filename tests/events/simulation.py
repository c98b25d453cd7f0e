"""Hosts, events and faults drawn from a seed, on a clock that jumps, and what must be true all the time.

Whoever accepts, runs and ends an event is noted where it is written, not where it is told: a host that dies between the
two has done it. The queue, the lines and the database are the real ones; time, functions and faults are not.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from serverfull.domain.events import (
    BASE_DELAY,
    Attempt,
    Delivery,
    EventConfig,
    EventEnd,
    Failed,
    Held,
    Lease,
    QueuedEvent,
    Refused,
    Response,
    Succeeded,
)
from serverfull.errors import RequestError
from serverfull.invocation.queueing import Running
from tests.events.virtual import BEGAN, RESULT, DirectStore, Runner, VirtualLoop, event, virtual_loop

ERROR = Response(status_code=200, executed_version="$LATEST", function_error="Unhandled", payload=b"{}")
THROTTLED = Response(status_code=429, message="Rate Exceeded.")
EXPECTED = {
    "events wait from before",
    "events wait for the next start",
    "events cannot be written",
    "events are written again",
}
HOURS = 2.0
"""Hours that faults go on for in one simulation; a time without faults is added, in which events come at first, too."""

QUIET = 10.0
"""Hours at the end in which no event comes: longer than any may live."""


class SetClock:
    """A clock that was set before the host started."""

    def __init__(self, ahead: float) -> None:
        self._ahead = ahead

    def now(self) -> float:
        return BEGAN + asyncio.get_running_loop().time() + self._ahead


class NotingStore(DirectStore):
    """Notes how events end, in the moment in which that is written."""

    note: Callable[[QueuedEvent, EventEnd], None]

    async def end(self, lease: Lease, end: EventEnd, deliveries: Sequence[Delivery], *, keep: bool) -> bool:
        def noted() -> bool:
            done = self.file.end(lease, end, deliveries, keep=keep)
            if done:
                self.note(lease.event, end)
            return done

        return await self._do(noted)


class World:
    """One simulation.

    :param seed: everything is drawn from it.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.path = folder / f"events-{seed}.db"
        dice = self.dice
        self.configs = {
            f"f{number}": EventConfig(retries=dice.randint(0, 2), maximum_age=dice.choice([60, 600, 3600, 21_600]))
            for number in range(dice.randint(1, 5))
        }
        self.limits = {name: dice.choice([0, 1, 2, 5, 1000]) for name in self.configs}
        self.host_limit = dice.choice([1, 3, 1000])
        self.moods = {
            name: dice.choice(["fine", "fails", "slow", "mixed", "deadly", "broken"]) for name in self.configs
        }
        self.accepted: dict[str, QueuedEvent] = {}
        self.ends: dict[str, EventEnd] = {}
        self.failures: Counter[str] = Counter()
        self.failed: dict[str, tuple[int, float]] = {}
        self.running: Counter[str] = Counter()
        self.busy: set[str] = set()
        self.hosts = 0
        self.seconds = 0.0
        self.quiet, self.quiet_since = False, math.inf
        self.number = 0
        self.broken: list[str] = []
        self.most = 0

    def run(self) -> None:
        """Live through it; every broken promise is an AssertionError."""
        with virtual_loop() as loop:
            loop.run_until_complete(self._live(loop))
            self.seconds = loop.seconds

    async def _live(self, loop: VirtualLoop) -> None:
        until = HOURS * 3600
        while loop.time() < until:
            await self._host(loop, min(until, loop.time() + self.dice.expovariate(1 / 1200)))
        self.quiet, self.quiet_since = True, SetClock(0.0).now() + 300  # until what is running slowly has ended
        self.limits = dict.fromkeys(self.limits, 1000)
        self.host_limit = 1000
        await self._host(loop, loop.time() + 30 * 3600)
        self.promise(not self.queue.waiting, f"{self.queue.waiting} wait, as it seems")
        lost = set(self.accepted) - set(self.ends)
        self.promise(not lost, f"lost: {sorted(lost)[:5]}")
        assert not self.broken, self.broken[:5]

    def promise(self, kept: bool, what: str) -> None:
        """Note a broken promise: the queue would take an exception for a failure of the host."""
        if not kept:
            self.broken.append(what)

    async def _host(self, loop: VirtualLoop, until: float) -> None:
        self.hosts += 1
        dice = self.dice
        clock = SetClock(0.0 if self.quiet else dice.choice([0.0, 0.0, 0.0, 3600.0, -3600.0, 86_400.0, -86_400.0]))
        slow = dice.choice([0.0, 0.001, 0.2])
        store = NotingStore(self.path, lambda: dice.random() * slow, clock)
        store.note = self._note
        runner = Runner(store, limit=10**9, clock=clock, retry=dice.choice([None, None, 10.0]))
        runner.queue._attempts._running = _running(runner, self)
        self.queue, self.clock = runner.queue, clock
        self.dying = asyncio.Event()
        tasks = [asyncio.create_task(self._faults(store))]
        await runner.queue.start()
        tasks.append(asyncio.create_task(self._send(runner, clock, until - QUIET * 3600)))
        try:
            async with asyncio.timeout_at(until):
                await self.dying.wait()
        except TimeoutError:
            pass
        killed = self.dying.is_set() or (not self.quiet and dice.random() < 0.7)
        for task in tasks:
            task.cancel()
        store.broken = False
        if killed:
            store.die()
        else:
            await runner.queue.drain(dice.choice([0.0, 5.0, 60.0]))
        await asyncio.gather(*tasks, runner.queue._stop(), return_exceptions=True)
        if not killed:
            await runner.queue.aclose()
        self.promise(not self.busy and not +self.running, "a host has ended and runs events")
        said = {line for line, _ in runner.log.lines} - EXPECTED
        self.promise(killed or not said, f"the host says {said}")

    async def _send(self, runner: Runner, clock: SetClock, until: float) -> None:
        dice, most = self.dice, len(self.accepted) + 50 if self.quiet else 300
        while not self.quiet or asyncio.get_running_loop().time() < until:
            await asyncio.sleep(dice.expovariate(1 / dice.choice([0.5, 60, 900])))
            for _ in range(dice.choice([1, 1, 1, 5, 30]) if len(self.accepted) < most else 0):
                self.number += 1
                made = event(dice.choice(sorted(self.configs)), self.number, accepted_at=clock.now())
                try:
                    await runner.queue.put(made)
                except RequestError:
                    continue
                self.accepted[made.request_id] = made

    async def _faults(self, store: DirectStore) -> None:
        dice = self.dice
        while not self.quiet:
            await asyncio.sleep(dice.expovariate(1 / 600))
            store.broken = True
            await asyncio.sleep(dice.expovariate(1 / 5))
            store.broken = False
            for name in self.limits:
                self.limits[name] = dice.choice([self.limits[name], 0, 1, 2, 1000])

    async def config(self, event: QueuedEvent) -> EventConfig:
        return self.configs[event.name]

    async def attempt(self, event: QueuedEvent, admitted: Callable[[], None]) -> Attempt:
        """Run an event as its function does."""
        dice, name, request_id = self.dice, event.name, event.request_id
        self.promise(request_id not in self.ends, f"{request_id} runs after its end")
        self.promise(request_id not in self.busy, f"{request_id} runs twice at once")
        age, most = event.age(self.clock.now()), self.configs[name].maximum_age
        self.promise(age <= most, f"{request_id} runs {age} seconds old, of {most} at most")
        host, failed_at = self.failed.get(request_id, (0, 0.0))
        early = failed_at + BASE_DELAY * event.failures - asyncio.get_running_loop().time()
        self.promise(host != self.hosts or early < 0.001, f"{request_id} is tried again {early} seconds early")
        if self.running[name] >= self.limits[name] or self.running.total() >= self.host_limit:
            return Held(THROTTLED, "function" if self.running[name] >= self.limits[name] else "host")
        mood = "fine" if self.quiet else self.moods[name]
        if mood == "mixed":
            mood = dice.choice(["fine", "fails", "slow", "broken", "gone"])
        if mood == "broken" and dice.random() < 0.5:
            return Held(Response(status_code=500, message="broken"))
        if mood == "gone" and dice.random() < 0.1:
            return Refused("FunctionNotFound", Response(status_code=404, message="gone"))
        admitted()
        self.busy.add(request_id)
        self.running[name] += 1
        self.most = max(self.most, self.running.total())
        try:
            await asyncio.sleep(dice.expovariate(1 / 300) if mood == "slow" else dice.random())
            if mood == "deadly" and dice.random() < 0.2:
                self.dying.set()
                await asyncio.sleep(3600)
            if mood == "fails" or (mood != "fine" and dice.random() < 0.1):
                self.failures[request_id] += 1
                self.failed[request_id] = self.hosts, asyncio.get_running_loop().time()
                return Failed(ERROR)
            return Succeeded(RESULT)
        finally:
            self.busy.discard(request_id)
            self.running[name] -= 1
            self.queue.freed(name)

    def _note(self, event: QueuedEvent, end: EventEnd) -> None:
        request_id, config = event.request_id, self.configs[event.name]
        self.promise(request_id not in self.ends, f"{request_id} ends twice")
        self.ends[request_id] = end
        if event.accepted_at > self.quiet_since:
            self.promise(event.age(end.at) < 60, f"{request_id} waits {event.age(end.at)} seconds for nothing")
        failures = self.failures[request_id]
        # One that could not be written before its host died was seen, and is not known: the next host repeats it.
        most = config.retries + 1 + event.deaths
        self.promise(failures <= most, f"{request_id} failed {failures} times, of {most} at most")
        if end.condition == "RetriesExhausted":
            self.promise(failures > config.retries, f"{request_id} failed {failures} times only")
        if end.condition == "HostDeaths":
            self.promise(event.deaths >= 3 and self.hosts > 3, f"{request_id} is put aside too early")


def _running(runner: Runner, world: World) -> Running:
    return replace(runner.queue._attempts._running, run=world.attempt, config=world.config)


def simulate(seed: int, folder: Path) -> World:
    """Run one simulation; says which one it was where a promise was broken."""
    world = World(seed, folder)
    try:
        world.run()
    except BaseException as failure:
        raise AssertionError(f"seed {seed}: {failure!r}") from failure
    return world
