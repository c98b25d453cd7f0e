"""A flood of events of a slow function, on a real host, and how long another function's events wait meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from statistics import quantiles
from typing import Any

from serverfull.domain.events import QueuedEvent

FLOOD = 1500
OTHERS = 50


async def test_the_events_of_another_function_run_while_a_flood_of_a_slow_one_waits(
    start_host: Callable[..., Any],
) -> None:
    """The slow function may take all that the host runs at once, so that the other one has to get turns."""
    ran: asyncio.Queue[float] = asyncio.Queue()

    async def slow(event: Any) -> None:
        await asyncio.sleep(0.02)

    async def quick(event: Any) -> None:
        ran.put_nowait(time.monotonic())

    host = await start_host({"slow": slow, "quick": quick}, limits={"max_concurrency": 4})
    queue = host.host.events
    account, region = host.host.settings.functions.account, host.host.settings.functions.region

    def event(name: str, number: int) -> QueuedEvent:
        now = time.time()
        return QueuedEvent(
            request_id=f"{name}-{number}", account=account, region=region, name=name, payload=b"1", accepted_at=now
        )

    await asyncio.gather(*(queue.put(event("slow", number)) for number in range(FLOOD)))
    waits = []
    for number in range(OTHERS):
        sent = time.monotonic()
        await queue.put(event("quick", number))
        waits.append(await asyncio.wait_for(ran.get(), 30) - sent)
    left = queue.waiting
    slowest = quantiles(waits, n=100)[98]
    print(f"\n{left} of {FLOOD} slow events were left; p99 of the other function's {slowest * 1000:.1f} ms")
    assert left > FLOOD / 2  # in the order in which they came none would be
