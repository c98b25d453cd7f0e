"""Loops that a handler blocks: noticed, named, counted, over."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from serverfull import Function
from serverfull.runtimes.loops import Heart
from serverfull.runtimes.watchdog import Watchdog


def hold_the_loop(go: threading.Event) -> None:
    go.wait(20)


async def stalled_by(host: Any, name: str, go: threading.Event) -> dict[str, Any]:
    """Invoke a handler that blocks its loop until the watchdog has spoken; give what it said."""
    found: list[dict[str, Any]] = []

    def watch() -> None:
        for _ in range(2000):
            found.extend(fields for _, event, fields in host.log.lines if event == "event loop stalled")
            if found:
                found[0]["seen"] = host.host.stall
                break
            time.sleep(0.005)
        go.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    answer = await host.invoke(name)
    watcher.join()
    assert answer.status == 200
    return found[0]


async def test_a_stall_of_the_hosts_loop_names_the_function_and_its_stack(start_host: Any) -> None:
    go = threading.Event()

    async def blocking(event: Any) -> None:
        hold_the_loop(go)

    host = await start_host({"culprit": Function(blocking, timeout=30), "innocent": lambda: 1})
    await host.invoke("innocent")
    fields = await stalled_by(host, "culprit", go)
    assert fields["function"] == "culprit"
    assert "hold_the_loop" in fields["stack"]
    assert fields["seconds"] >= 0.25
    assert fields["seen"].function == "culprit"
    await host.until(lambda: host.host.stall is None)
    await host.until(lambda: "warning: event loop turns again" in host.log.events())
    assert host.log.events().count("warning: event loop stalled") == 1
    assert b"culprit" in host.host.metrics_text()[0]


async def test_the_time_of_a_stall_is_counted_while_it_lasts_and_once(start_host: Any) -> None:
    seen: list[float] = []

    def counted() -> float:
        text = host.host.metrics_text()[0].decode()
        name = 'serverfull_loop_stall_seconds_total{function="culprit"} '
        return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))

    def watch() -> None:
        give_up = time.monotonic() + 15
        while counted() < 0.6 and time.monotonic() < give_up:
            time.sleep(0.005)
        seen.append(counted())
        go.set()

    go = threading.Event()

    async def blocking(event: Any) -> None:
        hold_the_loop(go)

    host = await start_host({"culprit": Function(blocking, timeout=30)})
    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    await host.invoke("culprit")
    await host.until(lambda: "warning: event loop turns again" in host.log.events())
    watcher.join()
    assert 0.6 <= seen[0] <= counted()
    assert counted() <= time.monotonic() - began


async def test_two_stalls_between_two_looks_are_two_stalls() -> None:
    told: list[Any] = []
    dog = Watchdog(
        0.25,
        lambda stall: told.append("begun"),
        lambda stall, seconds: told.append(round(seconds)),
        lambda stall, seconds: told.append(("over", round(seconds))),
    )
    heart = Heart(asyncio.get_running_loop())
    heart.thread_id = threading.get_ident()
    dog.watch(heart)
    for silent_for in (100.0, 200.0):
        heart.last = time.monotonic() - silent_for
        dog._look(heart, dog._hearts[heart])
    assert told == ["begun", 100, ("over", 100), "begun", 200]


async def test_a_stall_is_over_when_the_loop_turns_and_not_when_that_is_looked_at() -> None:
    dog = Watchdog(0.25, lambda stall: None, lambda stall, seconds: None, lambda stall, seconds: None)
    heart = Heart(asyncio.get_running_loop())
    heart.thread_id = threading.get_ident()
    heart.last = time.monotonic() - 100
    dog.watch(heart)
    dog._look(heart, dog._hearts[heart])
    stall = dog.stall_of(heart)
    assert stall is not None
    assert stall.seconds > 99
    heart.start()
    assert dog.stall_of(heart) is None
    heart.stop()


async def test_a_stall_of_an_own_loop_is_seen_while_the_host_goes_on(start_host: Any) -> None:
    go = threading.Event()

    async def blocking(event: Any) -> None:
        hold_the_loop(go)

    host = await start_host({"own": Function(blocking, loop="own", timeout=30), "other": lambda: "fine"})
    call = asyncio.create_task(host.invoke("own"))
    await host.until(lambda: "warning: event loop stalled" in host.log.events())
    [fields] = [fields for _, event, fields in host.log.lines if event == "event loop stalled"]
    assert fields["function"] == "own"
    assert "hold_the_loop" in fields["stack"]
    assert host.host.stall is None  # the host itself is well
    assert (await host.invoke("other")).json() == "fine"
    go.set()
    assert (await call).status == 200
    await host.until(lambda: "warning: event loop turns again" in host.log.events())


async def test_a_loop_that_is_given_up_is_replaced(start_host: Any) -> None:
    go = threading.Event()

    async def blocking(event: Any) -> None:
        if event == "block":
            hold_the_loop(go)

    host = await start_host({"own": Function(blocking, loop="own", timeout=0.2)})
    assert (await host.invoke("own", "block")).json()["errorType"] == "Sandbox.Timedout"
    await host.until(lambda: host.host.invoker._units["own"].environment.lost)
    assert (await host.invoke("own")).json() is None
    go.set()


async def test_a_host_that_is_idle_or_busy_with_threads_has_no_stall(start_host: Any) -> None:
    host = await start_host({"f": lambda: time.sleep(0.4)})
    await host.invoke("f")
    assert "warning: event loop stalled" not in host.log.events()
