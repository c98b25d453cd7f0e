"""An ``async def`` handler is awaited on the host's event loop: cheap, and many run at once while they wait.

It must not block that loop. A handler that sometimes does gets a loop in a thread of its own: ``loop="own"``.
"""

from __future__ import annotations

import asyncio
import time

from serverfull import Function


async def gather(event: dict[str, list[float]], context: object) -> dict[str, int]:
    """Wait for several things at once; ``{"waits": [0.05, 0.05]}`` takes 50 ms and not 100."""
    waits = event.get("waits", [])
    await asyncio.gather(*(asyncio.sleep(wait) for wait in waits))
    return {"waited_for": len(waits)}


@Function(loop="own", timeout=10)
async def mixed(event: dict[str, float], context: object) -> str:
    """This one blocks, and only its own loop waits for it."""
    time.sleep(event.get("block", 0.01))  # noqa: ASYNC251
    return "done"


functions = {"gather": gather, "mixed": mixed}
