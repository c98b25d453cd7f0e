"""The lines that events wait in, one for each function, and whose turn it is. In memory, on the loop, without waiting.

A line knows the keys of a few events that are due, read ahead from where they are kept, and how many there are in all.
It is *blocked* while a limit refuses its events. Lines take turns, so that a flood of one does not delay another's
events; a line that is blocked does not use its turn.

How many events of a line are begun at once, before it is known whether a limit lets them run, grows with each that
runs and falls back to one with each that is refused: being refused costs two writes.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

READ_AHEAD = 64
"""Events of a line that are read ahead: their keys, not their payloads."""

_MOST_BEGINNING = 64
"""Events of a line that are begun at once before it is known whether they may run."""


@dataclass(slots=True, eq=False)
class Line:
    """The events of one function.

    :ivar waiting: how many wait, read ahead or not.
    :ivar ready: keys of events that may be tried now, unless the line is blocked.
    :ivar known: the keys of these, and of those that are being claimed.
    :ivar held: when events are due that a limit has refused, by their keys; they are among those that are ready.
    :ivar complete: whether all events that are due have been read.
    :ivar reading: whether they are being read.
    :ivar missed: whether something was added meanwhile.
    :ivar next_due: when the line has to be read again; None: not before something is added.
    :ivar beginning: events that are begun, of which it is not known yet whether a limit lets them run.
    :ivar window: how many of these there may be.
    :ivar running: events that are begun, all of them.
    :ivar appending: events that are being accepted.
    :ivar blocked_by: what refuses its events: ``function``, ``host`` or nothing.
    :ivar blocked_until: when it is to be tried again at the latest.
    :ivar waking: when it is looked at next; None: not before something happens.
    """

    name: str
    waiting: int = 0
    ready: deque[int] = field(default_factory=deque)
    known: set[int] = field(default_factory=set)
    held: dict[int, float] = field(default_factory=dict)
    complete: bool = True
    reading: bool = False
    missed: bool = False
    next_due: float | None = None
    beginning: int = 0
    window: int = 1
    running: int = 0
    appending: int = 0
    blocked_by: str = ""
    blocked_until: float = 0.0
    waking: float | None = None

    def added(self, key: int) -> None:
        """Take the key of an event that is due now, if there is room."""
        if self.reading:
            self.missed = True
        elif self.complete and len(self.ready) < READ_AHEAD:
            self.ready.append(key)
            self.known.add(key)
        else:
            self.complete = False

    @property
    def wants_reading(self) -> bool:
        """Whether there is more where events are kept, and too little here."""
        return not self.complete and not self.reading and len(self.ready) < READ_AHEAD // 2

    def grow(self) -> None:
        """Hear that a limit let an event run."""
        self.window = min(_MOST_BEGINNING, 2 * self.window)

    @property
    def idle(self) -> bool:
        """Whether nothing is known of it that would be missed."""
        return not (self.waiting or self.running or self.appending or self.ready or self.reading or self.held)


class Beginning:
    """One of the events of a line of which it is not known yet whether they may run; until it is."""

    __slots__ = ("_line",)

    def __init__(self, line: Line) -> None:
        self._line: Line | None = line

    def over(self) -> None:
        """Hear that it is known, or that the event has ended. Hearing it twice is fine."""
        if self._line is not None:
            self._line.beginning -= 1
            self._line = None


class Lines:
    """All lines, by the names that `QueuedEvent.line` gives."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._turns: dict[Line, None] = {}
        self._by_host: dict[Line, None] = {}
        self._by_function: dict[str, dict[Line, None]] = {}
        self._wakings: list[tuple[float, int, Line]] = []
        self._number = 0

    def __iter__(self) -> Iterator[Line]:
        return iter(list(self._lines.values()))

    def line(self, name: str) -> Line:
        """Give a line, a new one where there is none."""
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = Line(name)
        return line

    def forget_if_idle(self, line: Line) -> None:
        """Let go of a line that has nothing to do."""
        if line.idle and not line.blocked_by and self._lines.get(line.name) is line:
            del self._lines[line.name]
            self._turns.pop(line, None)

    def offer(self, line: Line) -> None:
        """Let a line take turns, if it has what it could begin."""
        if line.ready and not line.blocked_by and line.beginning < line.window:
            self._turns.setdefault(line)

    def next(self) -> tuple[Line, int] | None:
        """Take the turn of the line that waits longest for it; gives the key of the event to begin."""
        while self._turns:
            line = next(iter(self._turns))
            del self._turns[line]
            if line.ready and not line.blocked_by and line.beginning < line.window:
                key = line.ready.popleft()
                line.beginning += 1
                line.running += 1
                self.offer(line)
                return line, key
        return None

    def block(self, line: Line, by: str, until: float) -> None:
        """Begin nothing of a line until a limit may let it, or that time has come."""
        line.window = 1
        if not line.blocked_by:
            self._turns.pop(line, None)
            line.blocked_by, line.blocked_until = by, until
            self._group(line).setdefault(line)
        else:
            line.blocked_until = min(line.blocked_until, until)
        self.wake_at(line, line.blocked_until)

    def _group(self, line: Line) -> dict[Line, None]:
        if line.blocked_by == "host":
            return self._by_host
        return self._by_function.setdefault(line.name.rpartition("/")[2], {})

    def unblock(self, line: Line) -> None:
        """Let a line take turns again."""
        if line.blocked_by:
            group = self._group(line)
            group.pop(line, None)
            if not group and line.blocked_by == "function":
                del self._by_function[line.name.rpartition("/")[2]]
            line.blocked_by = ""
        self.offer(line)

    def freed(self, function: str) -> bool:
        """Let those take turns that may run now that an invocation has ended; says whether there are any.

        :param function: its bare name. Of those that the limit of the host refuses two are tried: one takes what has
            become free, and another is there if that one cannot.
        """
        found = [*self._by_function.get(function, ()), *list(self._by_host)[:2]]
        for line in found:
            self.unblock(line)
        return bool(found)

    @property
    def any_blocked(self) -> bool:
        """Whether a limit refuses anything."""
        return bool(self._by_host or self._by_function)

    def wake_at(self, line: Line, when: float) -> None:
        """Have `due` give this line from that time on, if not before."""
        if line.waking is None or when < line.waking:
            line.waking = when
            self._number += 1
            heapq.heappush(self._wakings, (when, self._number, line))

    def read_at(self, line: Line, when: float) -> None:
        """Have a line read again at that time, or earlier where that was known already."""
        if line.next_due is None or when < line.next_due:
            line.next_due = when
            self.wake_at(line, when)

    @property
    def next_waking(self) -> float | None:
        """When `due` has something to give."""
        return self._wakings[0][0] if self._wakings else None

    def due(self, now: float) -> list[Line]:
        """Give the lines that have to be looked at: unblocked, or marked to be read, as it is time for."""
        found: dict[Line, None] = {}
        while self._wakings and self._wakings[0][0] <= now:
            line = heapq.heappop(self._wakings)[2]
            line.waking = None
            if line.next_due is not None and line.next_due <= now:
                line.next_due, line.complete = None, False
                line.missed = line.reading
            if line.blocked_by and line.blocked_until <= now:
                self.unblock(line)
            found[line] = None
        for line in found:
            if line.blocked_by:
                self.wake_at(line, line.blocked_until)
            if line.next_due is not None:
                self.wake_at(line, line.next_due)
        return list(found)
