"""What calls are answered with that end, or run out of time, while a handler keeps the host's loop from turning."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from serverfull import Function, LambdaContext


def keep_the_thread(seconds: float) -> None:
    time.sleep(seconds)


async def test_an_async_handler_that_blocks_the_loop_beyond_its_timeout_has_timed_out(start_host: Any) -> None:
    async def handler(event: Any) -> str:
        if event == "raise":
            keep_the_thread(0.15)
            raise ValueError("late too")
        keep_the_thread(event)
        return "done"

    host = await start_host({"f": Function(handler, timeout=0.1)})
    for event in (0.15, "raise"):
        answer = await host.tail("f", event)
        assert answer.json()["errorType"] == "Sandbox.Timedout"
        assert "Task timed out after 0.10 seconds" in answer.tail()
        assert "Status: timeout" in answer.tail()
    assert (await host.invoke("f", 0)).json() == "done"


@pytest.mark.parametrize("loop", ["thread", "own"])
async def test_a_call_that_ends_in_time_while_another_blocks_the_loop_has_its_result(
    start_host: Any, loop: str
) -> None:
    began, blocked, deadlines = threading.Event(), threading.Event(), []

    def work(event: Any, context: LambdaContext) -> str:
        deadlines.append(time.monotonic() + context.get_remaining_time_in_millis() / 1000)
        began.set()
        blocked.wait(20)
        return "in time"

    async def on_a_loop(event: Any, context: LambdaContext) -> str:
        return work(event, context)

    async def block() -> None:
        blocked.set()
        keep_the_thread(max(0.0, deadlines[0] - time.monotonic()) + 0.1)

    quick = Function(work, timeout=1.5) if loop == "thread" else Function(on_a_loop, timeout=1.5, loop="own")
    host = await start_host({"quick": quick, "block": Function(block, timeout=30)})
    calls = [asyncio.create_task(host.invoke("quick"))]
    await host.until(began.is_set)
    calls.append(asyncio.create_task(host.invoke("block")))
    answers = await asyncio.gather(*calls)
    assert answers[0].json() == "in time"
    assert answers[1].json() is None
    assert not host.host.invoker._units["quick"].environment.lost
