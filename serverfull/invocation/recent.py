"""What the functions wrote last, kept in memory for ``GET /_serverfull/logs``: as much as fits, oldest first out.

`StreamSink` adds what it writes, in the pieces that it writes anyway, on its own thread; no call pays for it. One
string for each piece is all that is kept: where they are JSON already, that costs nothing but the memory. They are read
on any thread, and whoever follows is told on the event loop. The lock is between these; no handler's thread takes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from serverfull.domain.timestamps import timestamp

KEPT_CHARACTERS = 4_000_000
"""Of all functions together: some ten thousand silent invocations."""

_TIME = slice(9, 33)
"""Where a line of `JsonLines` has its time; as text it sorts as it does as time."""


class RecentLog:
    """Keeps lines of JSON, one for each record, as `JsonLines` writes them.

    :param most: characters kept.
    """

    def __init__(self, most: int = KEPT_CHARACTERS) -> None:
        self._most = most
        self._pieces: deque[str] = deque()
        self._first = 0  # how many pieces are no longer kept
        self._held = 0
        self._lock = threading.Lock()
        self._wake_ups: set[Callable[[], object]] = set()

    def add(self, piece: str) -> None:
        """Take whole lines; called by the thread that writes the log."""
        with self._lock:
            self._pieces.append(piece)
            self._held += len(piece)
            while self._held > self._most and len(self._pieces) > 1:
                self._held -= len(self._pieces.popleft())
                self._first += 1
            wake_ups = list(self._wake_ups)
        for wake_up in wake_ups:
            wake_up()

    def lines(self, function: str, since: float | None = None) -> tuple[list[str], int]:
        """Give the lines of a function, and where `following` goes on.

        :param since: seconds on the wall clock; older lines are left out.
        """
        pieces, _, end = self._behind(0)
        return list(since_then((line for piece in pieces for line in _of(piece, function)), since)), end

    async def following(self, function: str, position: int, tick: float) -> AsyncIterator[list[str]]:
        """Give the lines of a function as they come; an empty list where for a while there are none.

        A line that says so stands for those that were gone before their reader came to them.

        :param position: as `lines` gave it.
        :param tick: seconds of a while.
        """
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        with self._called(lambda: _wake(loop, news)):
            while True:
                news.clear()
                pieces, missed, position = self._behind(position)
                lines = [line for piece in pieces for line in _of(piece, function)]
                yield [gap(function), *lines] if missed else lines
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), tick)

    def _behind(self, position: int) -> tuple[list[str], bool, int]:
        """Give the pieces from a position on, whether some are missing before them, and where the next will be."""
        with self._lock:
            pieces = list(self._pieces)[max(0, position - self._first) :]
            return pieces, position < self._first, self._first + len(self._pieces)

    @contextlib.contextmanager
    def _called(self, wake_up: Callable[[], object]) -> Iterator[None]:
        with self._lock:
            self._wake_ups.add(wake_up)
        try:
            yield
        finally:
            with self._lock:
                self._wake_ups.discard(wake_up)


def _wake(loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and its followers with it
        loop.call_soon_threadsafe(news.set)


def _of(piece: str, function: str) -> Iterator[str]:
    mark = f'"function":"{function}","requestId":'  # a quotation mark inside a message is written with a backslash
    if mark in piece:
        for line in piece.split("\n"):  # not splitlines: JSON leaves other kinds of line ends as they are
            if mark in line:
                yield line + "\n"


def since_then(lines: Iterable[str], since: float | None) -> Iterator[str]:
    """Leave out lines that are older.

    :param since: seconds on the wall clock; None leaves out nothing.
    """
    earliest = "" if since is None else timestamp(since)
    return (line for line in lines if line[_TIME] >= earliest)


def of_request(request_id: str | None) -> Callable[[str], bool]:
    """Give what tells whether a line is one of an invocation; without an id they all are."""
    if request_id is None:
        return lambda _line: True
    mark = f'"requestId":"{request_id}","message":'  # a quotation mark inside a message is written with a backslash
    return lambda line: mark in line


def of_place(account: str | None, region: str | None) -> Callable[[str], bool]:
    """Give what tells whether a line is of a function of an account and region; without them it is.

    The operator's own functions are the same everywhere, and their lines say no place.
    """
    marks = [f'"{name}":"{value}",' for name, value in (("account", account), ("region", region)) if value]
    return lambda line: _PLACE not in line or all(mark in line for mark in marks)


_PLACE = ',"account":"'  # a quotation mark inside a message is written with a backslash


def gap(function: str) -> str:
    """Give a line that stands for those that a follower has missed."""
    return (
        f'{{"time":"{timestamp(time.time())}","type":"platform","function":"{function}","requestId":"",'
        f'"message":"[lines that came too fast are missing here]"}}\n'
    )
