"""Events that have seen all deaths of hosts but one that they may see: they run one at a time, whoever's turn it is.

If the host dies once more, it is known by which of them. All on the loop, without waiting.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serverfull.invocation.lines import Line


class LastChances:
    """Whose turn it is among the events that may be what hosts die of."""

    def __init__(self) -> None:
        self._deadly: set[int] = set()
        self._waiting: deque[tuple[Line, int]] = deque()
        self._running = False

    def add(self, key: int) -> None:
        """Hear of an event that has its last chance when it runs next."""
        self._deadly.add(key)

    def may_begin(self, line: Line, key: int) -> bool:
        """Say whether an event of which a line has given the turn may be begun; otherwise `ended` gives it later."""
        if key not in self._deadly:
            return True
        if self._running:
            self._waiting.append((line, key))
            line.beginning -= 1
            return False
        self._running = True
        return True

    def ended(self, key: int) -> tuple[Line, int] | None:
        """Hear that an event has been tried; gives the one to be begun now, if it was one of these."""
        if key not in self._deadly:
            return None
        self._deadly.discard(key)
        self._running = bool(self._waiting)
        if not self._waiting:
            return None
        line, following = self._waiting.popleft()
        line.beginning += 1
        return line, following

    def drop(self) -> None:
        """Leave those that wait to the next host."""
        while self._waiting:
            self._waiting.popleft()[0].running -= 1
