"""Has the next call of a function find an environment with its new code, after somebody has edited that in place.

Where containers are made, that is half a second which a developer would wait for after each save. Only functions that
were called since their code was another are in use; one environment is made at a time. `aclose` ends all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from serverfull.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from serverfull.control_plane.warming import Running
    from serverfull.domain.records import Partition
    from serverfull.fetchers.deployed import DeployedFetcher


class HotWarming:
    """Warms functions whose code has changed.

    :param fetcher: gives the functions.
    :param running: makes the environments.
    :param calls: says how many calls there have been of functions with a name.
    """

    def __init__(self, fetcher: DeployedFetcher, running: Running, calls: Callable[[str], float], logger: Any) -> None:
        self._fetcher = fetcher
        self._running = running
        self._calls = calls
        self._logger = logger
        self._called: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._gate = asyncio.Lock()
        self._closed = False

    def changed(self, partition: Partition, name: str) -> None:
        """Hear that the code of ``$LATEST`` is another now."""
        calls = self._calls(name)
        if self._closed or calls <= self._called.get(name, 0.0):
            return
        self._called[name] = calls
        task = asyncio.create_task(self._warm(partition, name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Warm nothing any more. Closing twice is fine."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _warm(self, partition: Partition, name: str) -> None:
        try:
            async with self._gate:
                function = await self._fetcher.function_now(partition, name, None)
                await self._running.warm(partition, name, function)
        except RequestError:  # a call is told
            return
        except Exception as error:  # a task's boundary
            self._logger.error("environment not made", function=name, exc_info=error)
