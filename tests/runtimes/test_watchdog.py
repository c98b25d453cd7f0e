"""Loops that a handler blocks: noticed, named, counted, over."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from serverfull import Function


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
    await host.until(lambda: "event loop turns again" in host.log.events())
    assert host.log.events().count("event loop stalled") == 1
    assert b"culprit" in host.host.metrics_text()[0]


async def test_a_stall_of_an_own_loop_is_seen_while_the_host_goes_on(start_host: Any) -> None:
    go = threading.Event()

    async def blocking(event: Any) -> None:
        hold_the_loop(go)

    host = await start_host({"own": Function(blocking, loop="own", timeout=30), "other": lambda: "fine"})
    call = asyncio.create_task(host.invoke("own"))
    await host.until(lambda: "event loop stalled" in host.log.events())
    [fields] = [fields for _, event, fields in host.log.lines if event == "event loop stalled"]
    assert fields["function"] == "own"
    assert "hold_the_loop" in fields["stack"]
    assert host.host.stall is None  # the host itself is well
    assert (await host.invoke("other")).json() == "fine"
    go.set()
    assert (await call).status == 200
    await host.until(lambda: "event loop turns again" in host.log.events())


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
    assert "event loop stalled" not in host.log.events()
