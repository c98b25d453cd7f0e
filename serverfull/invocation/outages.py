"""How what has happened is written down while the store of events cannot be written: as soon as it can."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from serverfull.errors import InternalFailure

Result = TypeVar("Result")

OUTAGE = 0.5
"""Seconds until a store is asked again that could not be read or written."""


async def as_soon_as_possible(
    call: Callable[[], Awaitable[Result]], failed: Callable[[InternalFailure], None] = lambda _: None
) -> Result:
    """Have a store do something, and ask it again and again while it cannot.

    :param failed: hears of each time that it could not.
    """
    while True:
        try:
            return await call()
        except InternalFailure as failure:
            failed(failure)
        await asyncio.sleep(OUTAGE)


class Outages:
    """Says in the log when a store begins to fail, and when that is over."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._is_there = False

    async def over(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """Have the store do something, as `as_soon_as_possible`."""
        result = await as_soon_as_possible(call, self._begun)
        if self._is_there:
            self._is_there = False
            self._logger.info("events are written again")
        return result

    def _begun(self, failure: InternalFailure) -> None:
        if not self._is_there:
            self._is_there = True
            self._logger.error("events cannot be written", reason=failure.message)
