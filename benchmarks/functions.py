"""The functions that ``serverfull serve benchmarks/functions.py:functions`` serves while it is measured."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import serverfull
from benchmarks.busy import busy


async def hello_async(event: Any, context: Any) -> str:
    return "hello"


def hello_sync(event: Any, context: Any) -> str:
    return "hello"


async def echo_async(event: Any, context: Any) -> Any:
    return event


def echo_sync(event: Any, context: Any) -> Any:
    return event


async def held(event: Any, context: Any) -> None:
    await asyncio.Event().wait()


async def sleep_async(event: Any, context: Any) -> str:
    await asyncio.sleep(0.005)
    return "hello"


def sleep_sync(event: Any, context: Any) -> str:
    time.sleep(0.005)
    return "hello"


async def cpu_async(event: Any, context: Any) -> int:
    return busy()


def cpu_sync(event: Any, context: Any) -> int:
    return busy()


async def log_async(event: Any, context: Any) -> str:
    serverfull.logger().info("handled", order=17)
    return "hello"


def log_sync(event: Any, context: Any) -> str:
    serverfull.logger().info("handled", order=17)
    return "hello"


functions: dict[str, Any] = {
    function.__name__: function
    for function in (
        hello_async,
        hello_sync,
        echo_async,
        echo_sync,
        sleep_async,
        sleep_sync,
        cpu_async,
        cpu_sync,
        log_async,
        log_sync,
    )
}
functions["held"] = serverfull.Function(held, max_concurrency=1, timeout=5400)
