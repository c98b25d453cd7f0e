"""What the control plane tells the rest of a host: that something has changed, after it has been written.

Published by `serverfull.management`, heard by whatever keeps a copy of what is stored, such as fetchers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from serverfull.domain.records import Partition


@dataclass(frozen=True, slots=True)
class FunctionChanged:
    """Code, configuration, versions, aliases or limits of a function are new, or it is gone.

    :param name: the function's bare name.
    :param version: the number of a version that is gone.
    :param deleted: whether the function is gone, with all its versions.
    """

    partition: Partition
    name: str
    deleted: bool = False
    version: int | None = None


Change: TypeAlias = FunctionChanged
Listener: TypeAlias = Callable[[Change], None]


class Changes:
    """Passes changes on to those who listen, in the order in which they subscribed, on the event loop."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call the listener with every change from now on; it must neither block nor raise.

        :returns: ends it. Ending it twice is fine.
        """
        self._listeners.append(listener)

        def end() -> None:
            with suppress(ValueError):
                self._listeners.remove(listener)

        return end

    def publish(self, change: Change) -> None:
        """Tell everybody."""
        for listener in tuple(self._listeners):
            listener(change)
