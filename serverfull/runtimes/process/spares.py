"""Keeps a few processes ready for each zygote: forked, and in groups of their own, before it is known what for.

To enter a control group takes the kernel 5 to 20 ms, in which nobody on the machine can make another. A sandbox that
finds a spare waits for none of that, and neither does the loop. What is in the spare is nobody's: the limits, the
variables and the code come with the order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serverfull.runtimes.process.cgroups import Group, GroupRefused, make_group
from serverfull.runtimes.process.orders import LaunchFailed
from serverfull.runtimes.sandboxes.leftovers import remove_tree

if TYPE_CHECKING:
    from pathlib import Path

    from serverfull.runtimes.process.machine import Machine
    from serverfull.runtimes.process.zygotes import Waiting, Zygote

KEPT = 2
"""Spares of each zygote. More sandboxes at the same time wait for the kernel, which takes one after the other."""

MAKE_AFTER = 0.05
"""Seconds after the last one was taken until others are made: the processes that took them have begun by then."""


@dataclass(frozen=True, slots=True)
class Spare:
    """What a sandbox can be made of.

    :param folder: of the sandbox.
    :param group: what the process is in; None where nothing holds it.
    :param waiting: the process.
    """

    folder: Path
    group: Group | None
    waiting: Waiting

    def close(self) -> None:
        """Kill the process, and remove what was made for it; blocks until that is gone."""
        if self.group is not None:
            self.group.close()
        remove_tree(self.folder)


class Spares:
    """The spares of all zygotes of a host; everything on its loop.

    :param machine: open, when the first one is taken.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._spares: dict[Zygote, deque[Spare]] = {}
        self._making: dict[Zygote, asyncio.Task[None]] = {}
        self._taken_at = 0.0
        self._closed = asyncio.Event()

    def take(self, zygote: Zygote) -> Spare | None:
        """Give a spare of a zygote, if there is one, and begin to make others."""
        loop = asyncio.get_running_loop()
        self._taken_at = loop.time()
        if zygote not in self._making and not self._closed.is_set():
            self._making[zygote] = loop.create_task(self._make_later(zygote))
        there = self._spares.get(zygote)
        return there.popleft() if there else None

    async def aclose(self) -> None:
        """Make no more, and remove those that there are. Closing twice is fine."""
        self._closed.set()
        await asyncio.gather(*self._making.values())
        for spare in [spare for there in self._spares.values() for spare in there]:
            await asyncio.to_thread(spare.close)
        self._spares.clear()

    async def _make_later(self, zygote: Zygote) -> None:
        there = self._spares.setdefault(zygote, deque())
        try:
            while len(there) < KEPT and await self._is_quiet():
                there.append(await self._make(zygote))
        except (GroupRefused, LaunchFailed, OSError):  # whoever needs a process is told when that cannot be made
            return
        finally:
            del self._making[zygote]

    async def _is_quiet(self) -> bool:
        """Wait until none has been taken for a while; False when the host is to end."""
        loop = asyncio.get_running_loop()
        while (left := self._taken_at + MAKE_AFTER - loop.time()) > 0 and not self._closed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._closed.wait()
        return not self._closed.is_set()

    async def _make(self, zygote: Zygote) -> Spare:
        folder, places, group = self._machine.new_folder(), self._machine.places, None
        try:
            if places:
                group = await asyncio.to_thread(make_group, places, folder.name)
            waiting = await zygote.spare([] if group is None else group.entrances, is_strict=self._machine.is_strict)
        except BaseException:
            if group is not None:
                await asyncio.to_thread(group.close)
            remove_tree(folder)
            raise
        return Spare(folder, group, waiting)
