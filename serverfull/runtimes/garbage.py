"""Looks for cyclic garbage less often while the process serves, and hardly ever while it starts.

What a start imports stays, and looking through it again and again takes 6 % of the time to the first answer.

CPython looks through its young objects each time that 700 more of them were made than freed. Sixty-four requests in
flight hold more than that, so it looks after every 65 of them, finds nothing, and takes 4 to 8 µs of each. With room
for 5,000 it has nothing to do. Whoever chooses thresholds of their own, as a handler's module may, keeps them.

``make bench`` shows it: hello at 64 connections, and the start.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_OBJECTS = 5_000
"""Objects that are made and not freed before a look at the young ones; Python's own figure is 700, or 2,000."""

_OF_PYTHON = gc.get_threshold()
_AT_START = (200_000, *_OF_PYTHON[1:])


def hardly_looked_for() -> None:
    """Let a process start that is going to serve: `rarely_looked_for` ends this too."""
    if gc.get_threshold() == _OF_PYTHON and _OF_PYTHON[0] > 0:
        gc.set_threshold(*_AT_START)


@contextmanager
def rarely_looked_for() -> Iterator[None]:
    """Give the young generation more room, unless somebody has set thresholds since Python started."""
    young, *older = _OF_PYTHON
    chosen = (max(young, YOUNG_OBJECTS), *older)
    untouched = gc.get_threshold() in (_OF_PYTHON, _AT_START) and young > 0
    if untouched:
        gc.set_threshold(*chosen)
    try:
        yield
    finally:
        if untouched and gc.get_threshold() == chosen:
            gc.set_threshold(*_OF_PYTHON)
