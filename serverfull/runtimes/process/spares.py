"""Keeps one process ready for each zygote: forked, and in groups of its own, before it is known what for.

To enter a control group takes the kernel 5 to 20 ms, in which nobody on the machine can make another. A sandbox that
finds a spare waits for none of that, and neither does the loop. What is in the spare is nobody's: the limits, the
variables and the code come with the order.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serverfull.runtimes.process.cgroups import Group, GroupRefused, make_group
from serverfull.runtimes.process.leftovers import remove_tree
from serverfull.runtimes.process.zygotes import LaunchFailed

if TYPE_CHECKING:
    from pathlib import Path

    from serverfull.runtimes.process.machine import Machine
    from serverfull.runtimes.process.zygotes import Waiting, Zygote

MAKE_AFTER = 0.05
"""Seconds after one was taken until the next one is made: the process that took it has begun by then."""


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
        self._spares: dict[Zygote, Spare] = {}
        self._making: dict[Zygote, asyncio.Task[None]] = {}
        self._closed = asyncio.Event()

    def take(self, zygote: Zygote) -> Spare | None:
        """Give the spare of a zygote, if there is one, and begin to make the next."""
        if zygote not in self._making and not self._closed.is_set():
            self._making[zygote] = asyncio.get_running_loop().create_task(self._make_later(zygote))
        return self._spares.pop(zygote, None)

    async def aclose(self) -> None:
        """Make no more, and remove those that there are. Closing twice is fine."""
        self._closed.set()
        await asyncio.gather(*self._making.values())
        while self._spares:
            _, spare = self._spares.popitem()
            await asyncio.to_thread(spare.close)

    async def _make_later(self, zygote: Zygote) -> None:
        try:
            async with asyncio.timeout(MAKE_AFTER):
                await self._closed.wait()
        except TimeoutError:
            if zygote not in self._spares:
                await self._make(zygote)
        finally:
            del self._making[zygote]

    async def _make(self, zygote: Zygote) -> None:
        folder, places, group = self._machine.new_folder(), self._machine.places, None
        try:
            if places:
                group = await asyncio.to_thread(make_group, places, folder.name)
            waiting = await zygote.spare([] if group is None else group.entrances)
        except (GroupRefused, LaunchFailed, OSError):  # whoever needs a process is told when that cannot be made
            if group is not None:
                await asyncio.to_thread(group.close)
            remove_tree(folder)
        else:
            self._spares[zygote] = Spare(folder, group, waiting)
